//! Chance that can be repeated.

/// The generator of Steele, Lea and Flood (2014): any seed will do.
#[derive(Clone, Debug)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0; the bias is of no importance here.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }
}

/// The seed of a test: `MIRROR_SEED`, or one from the clock. It is printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = || since_1970.map_or(1, |age| u64::try_from(age.as_millis()).unwrap_or(1));
    let given = std::env::var("MIRROR_SEED").ok();
    let seed = given.map_or_else(fresh, |text| text.parse().expect("MIRROR_SEED is a decimal number"));
    eprintln!("{test}: MIRROR_SEED={seed}");
    seed
}
