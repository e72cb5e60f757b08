//! Huffman tables and the bits of the entropy-coded data (T.81 annexes C and F.2.2).

use super::{Fault, undecodable};
use crate::error::Result;

/// Codes up to this length are found with one look.
const LOOK: u32 = 9;

/// A Huffman table (T.81 annex C), ready for decoding.
pub(super) struct Table {
    /// By the next [`LOOK`] bits: length of the code in the high byte and its symbol in the low one, 0 where the code is longer.
    look: [u16; 1 << LOOK],
    /// Per length: one more than the last code of that length, left-aligned to 16 bits. Codes grow with their length, so the first
    /// limit above the next 16 bits tells the length.
    limits: [u32; 17],
    /// Per length: what to add to a code for the place of its symbol.
    places: [i32; 17],
    symbols: [u8; 256],
}

impl Table {
    /// The table of a DHT segment: how many codes each length from 1 to 16 has, and the symbols in the order of the codes.
    pub fn new(counts: &[u8; 16], values: &[u8]) -> Result<Table> {
        let mut table = Table { look: [0; 1 << LOOK], limits: [0; 17], places: [0; 17], symbols: [0; 256] };
        let Some(symbols) = table.symbols.get_mut(..values.len()) else {
            return Err(undecodable("a jpeg huffman table has more than 256 codes"));
        };
        symbols.copy_from_slice(values);
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = u32::from(counts[length as usize - 1]);
            table.places[length as usize] = place as i32 - code as i32;
            if code + count > 1 << length {
                return Err(undecodable("a jpeg huffman table has more codes than their length allows"));
            }
            for symbol in values.iter().skip(place).take(count as usize) {
                if length <= LOOK {
                    let shift = LOOK - length;
                    let entry = (length as u16) << 8 | u16::from(*symbol);
                    table.look[(code << shift) as usize..((code + 1) << shift) as usize].fill(entry);
                }
                code += 1;
                place += 1;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }
}

/// Reads the bits of one scan, most significant first, without the zero bytes that are stuffed after 0xFF (T.81 F.1.2.3).
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in `buffer`.
    position: usize,
    /// The next bits, left-aligned; zeros below them.
    buffer: u64,
    /// How many bits `buffer` holds.
    count: u32,
}

impl<'a> Bits<'a> {
    /// Bits from the start of `data`, which goes on behind the scan.
    pub fn new(data: &'a [u8]) -> Bits<'a> {
        Bits { data, position: 0, buffer: 0, count: 0 }
    }

    /// Fills the buffer up to more than 55 bits, or with all there are before the next marker.
    fn refill(&mut self) {
        if let Some(bytes) = self.data[self.position..].first_chunk::<8>() {
            let word = u64::from_be_bytes(*bytes);
            // A byte of 0xFF is a zero byte of the complement; the subtraction borrows into its top bit.
            let inverse = !word;
            if inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080 == 0 {
                let bytes = (63 - self.count) / 8;
                let count = self.count + 8 * bytes;
                // The bits of the byte that does not fit whole are dropped, so that zeros stay below the bits.
                self.buffer |= word >> self.count & !(u64::MAX >> count);
                self.count = count;
                self.position += bytes as usize;
                return;
            }
        }
        while self.count <= 56 {
            let (byte, size) = match (self.data.get(self.position), self.data.get(self.position + 1)) {
                (Some(0xFF), Some(0)) => (0xFF, 2),
                (Some(0xFF), _) | (None, _) => return,
                (Some(&byte), _) => (byte, 1),
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
            self.position += size;
        }
    }

    /// Takes `length` bits, at most 16, off the buffer.
    #[inline(always)]
    fn drop_bits(&mut self, length: u32) -> Result<(), Fault> {
        if length > self.count {
            return Err(Fault::Early);
        }
        self.buffer <<= length;
        self.count -= length;
        Ok(())
    }

    /// The next symbol (T.81 F.2.2.3). Afterwards at least 16 bits are in the buffer, if the data have that many.
    #[inline(always)]
    pub fn symbol(&mut self, table: &Table) -> Result<u8, Fault> {
        if self.count < 32 {
            self.refill();
        }
        let entry = table.look[(self.buffer >> (64 - LOOK)) as usize];
        if entry != 0 {
            self.drop_bits(u32::from(entry >> 8))?;
            return Ok(entry as u8);
        }
        self.long_symbol(table)
    }

    /// The next symbol where its code is longer than [`LOOK`] bits.
    #[inline(never)]
    fn long_symbol(&mut self, table: &Table) -> Result<u8, Fault> {
        let next = (self.buffer >> 48) as u32;
        for length in LOOK + 1..=16 {
            if next < table.limits[length as usize] {
                self.drop_bits(length)?;
                let place = table.places[length as usize] + (next >> (16 - length)) as i32;
                return table.symbols.get(place as usize).copied().ok_or(Fault::Code);
            }
        }
        // Behind the last bit of the data stand zeros, which need not be a code: that is an early end, not a wrong code.
        Err(if self.count < 16 { Fault::Early } else { Fault::Code })
    }

    /// The next `length` bits, at most 16, as a number (T.81 F.2.2.4: RECEIVE).
    #[inline(always)]
    pub fn receive(&mut self, length: u32) -> Result<u32, Fault> {
        if self.count < length {
            self.refill();
        }
        let value = (self.buffer >> 1 >> (63 - length)) as u32;
        self.drop_bits(length)?;
        Ok(value)
    }

    /// The next `length` bits as a signed value of that magnitude category (T.81 F.2.2.1: EXTEND).
    #[inline(always)]
    pub fn receive_extend(&mut self, length: u32) -> Result<i32, Fault> {
        let value = self.receive(length)? as i32;
        let negative = length > 0 && value >> (length - 1) == 0;
        Ok(if negative { value - (1 << length) + 1 } else { value })
    }

    /// One bit.
    #[inline(always)]
    pub fn bit(&mut self) -> Result<bool, Fault> {
        Ok(self.receive(1)? != 0)
    }

    /// Ends a scan or a restart interval: returns where in the data its marker stands. The bits that fill the last byte are dropped
    /// (T.81 F.1.2.3). Some encoders add whole bytes of padding, all zeros or all ones; anything else means that the blocks
    /// did not use the bits as the encoder wrote them, hence that the frame is damaged.
    pub fn finish(&mut self) -> Result<usize, Fault> {
        self.drop_bits(self.count % 8)?;
        while self.count > 0 {
            if !matches!(self.receive(8)?, 0 | 0xFF) {
                return Err(Fault::Surplus);
            }
        }
        loop {
            match (self.data.get(self.position), self.data.get(self.position + 1)) {
                (Some(0xFF), Some(0)) => self.position += 2,
                (Some(0), _) => self.position += 1,
                (Some(0xFF), Some(_)) => return Ok(self.position),
                (Some(0xFF), None) | (None, _) => return Err(Fault::Early),
                (Some(_), _) => return Err(Fault::Surplus),
            }
        }
    }

    /// Passes the restart marker with this number modulo 8 (T.81 F.2.2.5, E.2.4).
    pub fn restart(&mut self, number: usize) -> Result<(), Fault> {
        self.position = self.finish()?;
        // Any number of bytes 0xFF may stand before the code of a marker (B.1.1.2).
        while self.data.get(self.position) == Some(&0xFF) {
            self.position += 1;
        }
        match self.data.get(self.position) {
            None => Err(Fault::Early),
            Some(&code) if usize::from(code) == 0xD0 + number % 8 => {
                self.position += 1;
                Ok(())
            }
            Some(_) => Err(Fault::Restart),
        }
    }
}
