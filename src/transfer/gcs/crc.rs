//! CRC-32C (Castagnoli), the checksum that Cloud Storage has of every object.
//!
//! It guards against accidents on the way, not against people: packages carry their own signatures for those.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The polynomial 0x1EDC6F41 with its bits reversed (RFC 3720, 12.1).
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Eight bytes at a time, because the object is as large as a study: `TABLES[n][byte]` is the CRC of a byte and `n` zeros after it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[zeros - 1][byte];
            tables[zeros][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// The entry of a table for the lowest byte of a number.
fn entry(table: &[u32; 256], number: u32) -> u32 {
    table[usize::from(number.to_le_bytes()[0])]
}

/// A checksum of bytes that come in order, some of them more than once.
#[derive(Default)]
pub(super) struct Checksum {
    crc: u32,
    length: u64,
}

impl Checksum {
    /// The checksum of bytes that are all there.
    pub fn of(bytes: &[u8]) -> String {
        let mut checksum = Checksum::default();
        checksum.absorb(0, bytes);
        checksum.text()
    }

    /// Adds bytes that begin at an offset; those that were added before are passed over.
    pub fn absorb(&mut self, offset: u64, bytes: &[u8]) {
        let known = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        self.crc = update(self.crc, fresh);
        self.length += fresh.len() as u64;
    }

    /// Bytes added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// As Cloud Storage writes it: big-endian, in Base64.
    pub fn text(&self) -> String {
        STANDARD.encode(self.crc.to_be_bytes())
    }
}

fn update(crc: u32, bytes: &[u8]) -> u32 {
    let [zero, one, two, three, four, five, six, seven] = &TABLES;
    let mut crc = !crc;
    let (eights, rest) = bytes.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in eights {
        let (low, high) = (u32::from_le_bytes([*a, *b, *c, *d]) ^ crc, u32::from_le_bytes([*e, *f, *g, *h]));
        crc = entry(seven, low)
            ^ entry(six, low >> 8)
            ^ entry(five, low >> 16)
            ^ entry(four, low >> 24)
            ^ entry(three, high)
            ^ entry(two, high >> 8)
            ^ entry(one, high >> 16)
            ^ entry(zero, high >> 24);
    }
    for byte in rest {
        crc = crc >> 8 ^ entry(zero, crc ^ u32::from(*byte));
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_examples_come_out() {
        // RFC 3720, B.4, and the check value of the algorithm.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, expected) in [
            (&[0u8; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(update(0, bytes), expected);
        }
        assert_eq!(Checksum::of(b""), "AAAAAA==");
    }

    #[test]
    fn bytes_that_come_again_count_once() {
        let mut checksum = Checksum::default();
        for (offset, bytes) in [(0, &b"1234"[..]), (0, b"1234"), (2, b"34567"), (7, b""), (5, b"6"), (7, b"89")] {
            checksum.absorb(offset, bytes);
        }
        assert_eq!((checksum.text(), checksum.length()), (Checksum::of(b"123456789"), 9));
    }
}
