//! Huffman tables of lossless frames (T.81 annex C and H.1.2.2): what looks at the next bits find.

use super::{Fault, undecodable};
use crate::dicom::codecs::jpeg_markers::Codes;
use crate::error::Result;

/// Codes up to this length are found with one look.
const LOOK: u32 = 11;

/// One look at pairs is at so many bits: it finds two differences if both end within them with their codes, or else one.
pub(super) const PAIR: u32 = 13;

/// The code that the next bits begin with. From the lowest byte on: the length of the code and its difference, the length of the code, and
/// how far to shift the bits behind it. 0 where the code is longer than one look or its symbol is not a category up to 15.
#[derive(Clone, Copy, PartialEq)]
struct Code(u32);

impl Code {
    const NONE: Code = Code(0);

    fn new(length: u32, category: u32) -> Code {
        Code((length + category) | length << 8 | (63 - category) << 16)
    }

    /// How many bits the code and its difference have.
    #[inline(always)]
    fn length(self) -> u32 {
        self.0 & 63
    }

    /// The difference in the bits that begin with the code, modulo 2^16 (F.2.2.1: EXTEND). Without a branch: where the first of its bits
    /// is 0, it is negative, and its size is the complement of the bits.
    #[inline(always)]
    fn difference(self, bits: u64) -> u16 {
        let bits = bits.wrapping_shl(self.0 >> 8);
        let sign = !((bits as i64) >> 63) as u64;
        let size = ((bits ^ sign) >> 1).wrapping_shr(self.0 >> 16);
        (size ^ sign).wrapping_sub(sign) as u16
    }
}

/// Differences by the next [`PAIR`] bits. Two tables, so that the one that the next look waits for stays in the nearest cache.
pub(super) struct Pairs {
    /// In the lower 6 bits how many bits codes and differences have, above them how many there are; 0 where there is none.
    pub steps: [u8; 1 << PAIR],
    /// The first difference in the lower half; in the upper half the second one, or for [`Reading::Sums`] the sum of both.
    pub differences: [u32; 1 << PAIR],
}

/// What a scan's data are read as.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reading {
    Differences,
    /// In scans of one component where each sample is predicted from the one before it, the samples: running sums of the differences.
    /// This is by far the most frequent form, and a transfer syntax of its own.
    Sums,
}

/// A Huffman table, ready for decoding differences.
pub(super) struct Table {
    /// By the next [`LOOK`] bits.
    codes: [Code; 1 << LOOK],
    /// Where it pays.
    pub pairs: Option<Box<Pairs>>,
    /// Per length: one more than the last code of that length, left-aligned to 16 bits. Codes grow with their length, so the first
    /// limit above the next 16 bits tells the length.
    limits: [u32; 17],
    /// Per length: what to add to a code for the place of its symbol.
    places: [i32; 17],
    symbols: [u8; 256],
}

impl Table {
    /// The table of a DHT segment, for so many samples.
    pub fn new(codes: Codes, samples: usize, reading: Reading) -> Result<Box<Table>> {
        let mut table =
            Box::new(Table { codes: [Code::NONE; 1 << LOOK], pairs: None, limits: [0; 17], places: [0; 17], symbols: [0; 256] });
        let Some(symbols) = table.symbols.get_mut(..codes.symbols.len()) else {
            return Err(undecodable("a jpeg huffman table has more than 256 codes"));
        };
        symbols.copy_from_slice(codes.symbols);
        let (mut code, mut place) = (0u32, 0usize);
        // Codes that a look at pairs finds, left-aligned to 16 bits, and how much of the values of 16 bits begin with one.
        let (mut short, mut found) = (Vec::new(), 0);
        for length in 1..=16u32 {
            let count = u32::from(codes.counts[length as usize - 1]);
            table.places[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return Err(undecodable("a jpeg huffman table has more codes than their length allows"));
            }
            for symbol in codes.symbols.iter().skip(place).take(count as usize) {
                let category = u32::from(*symbol);
                if length <= LOOK && category <= 15 {
                    let shift = LOOK - length;
                    table.codes[(code << shift) as usize..((code + 1) << shift) as usize].fill(Code::new(length, category));
                }
                if length + category <= PAIR {
                    short.push((code << (16 - length), length, category));
                    found += 1 << (16 - length);
                }
                code += 1;
                place += 1;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        // Encoders choose codes so that all values of the next bits are about equally frequent, hence this is about how often a look at
        // pairs finds something; more often in flat images, whose codes cannot be as short as they should.
        if samples >= 1 << PAIR && found >= table.limits[16] / 2 {
            table.pairs = Some(Pairs::new(&short, reading));
        }
        Ok(table)
    }

    /// The difference that these bits begin with, modulo 2^16, and how many bits it has with its code: 31 at most.
    #[inline(always)]
    pub fn difference(&self, bits: u64) -> Result<(u16, u32), Fault> {
        let code = self.codes[(bits >> (64 - LOOK)) as usize];
        if code == Code::NONE { self.long_difference(bits) } else { Ok((code.difference(bits), code.length())) }
    }

    /// The same for codes that one look does not find.
    #[inline(never)]
    fn long_difference(&self, bits: u64) -> Result<(u16, u32), Fault> {
        let next = (bits >> 48) as u32;
        for length in 1..=16 {
            if next < self.limits[length as usize] {
                let place = self.places[length as usize] + (next >> (16 - length)) as i32;
                return match self.symbols.get(place as usize) {
                    Some(&category @ 0..=15) => {
                        let code = Code::new(length, u32::from(category));
                        Ok((code.difference(bits), code.length()))
                    }
                    // A difference of 32768 has no further bits (H.1.2.2).
                    Some(16) => Ok((0x8000, length)),
                    _ => Err(Fault::Code),
                };
            }
        }
        Err(Fault::Code)
    }
}

impl Pairs {
    /// The pairs of the codes in this list, each left-aligned to 16 bits, with its length and category, together at most [`PAIR`].
    fn new(codes: &[(u32, u32, u32)], reading: Reading) -> Box<Pairs> {
        let earlier = |difference| if reading == Reading::Sums { difference } else { 0u16 };
        let mut pairs = Box::new(Pairs { steps: [0; 1 << PAIR], differences: [0; 1 << PAIR] });
        each_difference(codes, PAIR, |place, length, difference| {
            let places = place..place + (1 << (PAIR - length));
            pairs.steps[places.clone()].fill(length as u8 | 1 << 6);
            pairs.differences[places].fill(u32::from(earlier(difference)) << 16 | u32::from(difference));
            each_difference(codes, PAIR - length, |behind, more, second| {
                let place = place + behind;
                let places = place..place + (1 << (PAIR - length - more));
                pairs.steps[places.clone()].fill((length + more) as u8 | 2 << 6);
                let second = second.wrapping_add(earlier(difference));
                pairs.differences[places].fill(u32::from(second) << 16 | u32::from(difference));
            });
        });
        pairs
    }
}

/// Calls `each` with every difference that ends within so many bits with its code: these bits, with zeros behind the difference, how many
/// of them it takes, and the difference.
fn each_difference(codes: &[(u32, u32, u32)], bits: u32, mut each: impl FnMut(usize, u32, u16)) {
    for &(code, length, category) in codes {
        let both = length + category;
        if both > bits {
            continue;
        }
        for value in 0..1u32 << category {
            let place = code >> (16 - length) << category | value;
            let difference = Code::new(length, category).difference(u64::from(place) << (64 - both));
            each((place << (bits - both)) as usize, both, difference);
        }
    }
}
