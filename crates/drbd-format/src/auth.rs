//! Digests: the shared secret's proof at the handshake, and checksums over data.
//!
//! Upstream takes any algorithm of the kernel's crypto API; these are the ones in use. Names are the kernel's, as in
//! `cram-hmac-alg`, `data-integrity-alg`, `csums-alg` and `verify-alg` of drbd.conf(5).

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// A checksum over a block's data.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Digest {
    /// Castagnoli's CRC, its four bytes in little-endian order; not for secrets.
    Crc32c,
    /// MD5.
    Md5,
    /// SHA-1.
    Sha1,
    /// SHA-2 with 224 bits.
    Sha224,
    /// SHA-2 with 256 bits.
    Sha256,
    /// SHA-2 with 384 bits.
    Sha384,
    /// SHA-2 with 512 bits.
    Sha512,
}

impl Digest {
    /// All of them, for messages that say what would be right.
    pub const ALL: [Self; 7] =
        [Self::Crc32c, Self::Md5, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The algorithm of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|digest| digest.name() == name)
    }

    /// The name of the algorithm.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the digest.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of some data.
    pub fn of(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Crc32c => crc32c::crc32c(data).to_le_bytes().to_vec(),
            Self::Md5 => Md5::digest(data).to_vec(),
            Self::Sha1 => Sha1::digest(data).to_vec(),
            Self::Sha224 => Sha224::digest(data).to_vec(),
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha384 => Sha384::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }
}

/// The proof that the peer knows the shared secret: a HMAC over the challenge it was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CramHmac(Digest);

impl CramHmac {
    /// The HMAC of a digest's name; there is none of `crc32c`.
    pub fn by_name(name: &str) -> Option<Self> {
        Digest::by_name(name).filter(|&digest| digest != Digest::Crc32c).map(Self)
    }

    /// Length of a response.
    pub const fn bytes(self) -> usize {
        self.0.bytes()
    }

    /// The response to a challenge.
    pub fn response(self, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        match self.0 {
            Digest::Crc32c => unreachable!("`by_name` gives no HMAC of it"),
            Digest::Md5 => hmac::<Hmac<Md5>>(secret, challenge),
            Digest::Sha1 => hmac::<Hmac<Sha1>>(secret, challenge),
            Digest::Sha224 => hmac::<Hmac<Sha224>>(secret, challenge),
            Digest::Sha256 => hmac::<Hmac<Sha256>>(secret, challenge),
            Digest::Sha384 => hmac::<Hmac<Sha384>>(secret, challenge),
            Digest::Sha512 => hmac::<Hmac<Sha512>>(secret, challenge),
        }
    }

    /// Whether a peer's response to our challenge is right. Takes the same time wherever the first difference is.
    pub fn accepts(self, secret: &[u8], challenge: &[u8], response: &[u8]) -> bool {
        let right = self.response(secret, challenge);
        let difference = right.iter().zip(response).fold(0, |seen, (a, b)| seen | (a ^ b));
        right.len() == response.len() && difference == 0
    }
}

fn hmac<M: Mac + KeyInit>(secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).expect("a HMAC takes keys of any length");
    mac.update(challenge);
    mac.finalize().into_bytes().to_vec()
}
