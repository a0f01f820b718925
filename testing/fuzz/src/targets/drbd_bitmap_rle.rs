//! A peer's run-length code: size of the bitmap, encoding, code.

use drbd_format::bitmap::Bitmap;

/// Bits of the largest bitmap; 1 GiB of device.
const BITS_MAX: u64 = 1 << 18;

/// Marks what the code marks. What is marked then must survive being encoded and decoded again.
pub fn run(input: &[u8]) {
    let Some((&[low, high, encoding], code)) = input.split_first_chunk() else { return };
    let bits = u64::from(u16::from_be_bytes([high, low])) * 5 % BITS_MAX;
    let mut bitmap = Bitmap::new(bits);
    let _ = bitmap.or_runs(0, encoding, code);
    assert!(bitmap.count() <= bits);
    let mut again = Bitmap::new(bits);
    let mut from = 0;
    while let Some(part) = bitmap.encode_runs(from, 4096) {
        assert_eq!(again.or_runs(from, part.encoding, &part.code), Ok(part.next_bit));
        assert!(part.next_bit > from, "no progress at bit {from} of {bits}");
        from = part.next_bit;
    }
    for bit in 0..from {
        assert_eq!(again.is_set(bit), bitmap.is_set(bit), "bit {bit} of {bits}");
    }
}
