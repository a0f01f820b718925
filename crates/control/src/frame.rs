//! Frames: length, then JSON.

use std::io::{Read, Write};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ControlError;

/// Upper bound of a frame's JSON.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;

/// Bytes that a peer's length alone makes us set aside; the rest grows with what arrives.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// Encodes `value` and sends it as one frame.
pub fn send<T: Serialize>(
    to: &mut impl Write,
    what: &'static str,
    timeout: Option<Duration>,
    value: &T,
) -> Result<(), ControlError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value).map_err(|source| ControlError::Encode { what, source })?;
    let length_bytes = (bytes.len() - 4) as u64;
    let length = u32::try_from(length_bytes)
        .ok()
        .filter(|&length| length <= FRAME_BYTES_MAX)
        .ok_or(ControlError::TooLarge { what, length_bytes, limit_bytes: FRAME_BYTES_MAX })?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    to.write_all(&bytes).map_err(|source| ControlError::transfer(what, timeout, source))
}

/// Receives one frame's bytes.
pub fn receive(
    from: &mut impl Read,
    what: &'static str,
    timeout: Option<Duration>,
) -> Result<Vec<u8>, ControlError> {
    let fault = |source| ControlError::transfer(what, timeout, source);
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(fault)?;
    let length = u32::from_be_bytes(length);
    if length > FRAME_BYTES_MAX {
        let length_bytes = u64::from(length);
        return Err(ControlError::TooLarge { what, length_bytes, limit_bytes: FRAME_BYTES_MAX });
    }
    let mut bytes = Vec::with_capacity((length as usize).min(READ_AHEAD_BYTES));
    from.take(u64::from(length)).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() < length as usize {
        return Err(ControlError::Closed { awaited: what });
    }
    Ok(bytes)
}

/// Decodes what [`receive`] brought.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(bytes).map_err(|source| ControlError::Decode { what, source })
}
