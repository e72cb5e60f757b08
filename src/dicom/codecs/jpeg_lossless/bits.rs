//! The bits of lossless scans (T.81 F.1.2.3 and H.2.2): bytes without their stuffing, and the differences in them.

use zeroize::Zeroizing;

use super::codes::{PAIR, Pairs, Reading, Table};
use super::{Fault, zeros};
use crate::error::Result;

/// How many looks at pairs a full buffer of more than 55 bits allows.
const LOOKS: usize = 4;

/// What fills the buffer reads this many bytes at a time.
const WORD: usize = 8;

/// Bytes are freed of their stuffing this many at a time.
const BLOCK: usize = 32;

/// What stays in the nearest caches.
const CLEAN: usize = 1 << 14;

/// The entropy-coded data of one scan.
pub(super) struct Stream<'a> {
    data: &'a [u8],
    /// How much of it is in `clean` or behind that.
    read: usize,
    /// The next bytes without their stuffing, and a word of zeros behind them.
    clean: Zeroizing<Vec<u8>>,
    /// How many bytes there are before those zeros.
    written: usize,
    /// They are the last ones before a marker.
    is_last: bool,
    /// How much one line can take at most.
    line: usize,
    /// Where in `clean` the part is that the buffer does not hold whole, and how many bytes behind its end the buffer holds.
    position: usize,
    behind: usize,
    buffer: u64,
    count: u32,
}

impl<'a> Stream<'a> {
    /// The first interval of data that go on behind it, for lines of so many samples.
    pub fn new(data: &'a [u8], samples: usize) -> Result<Stream<'a>> {
        // Codes and differences have at most 31 bits.
        let line = samples.saturating_mul(4).saturating_add(WORD);
        let clean = zeros(line.checked_mul(2).and_then(|most| most.max(CLEAN).checked_add(BLOCK)))?;
        let (read, written, position, behind) = (0, 0, 0, 0);
        Ok(Stream { data, read, clean, written, is_last: false, line, position, behind, buffer: 0, count: 0 })
    }

    /// The differences of the next line, modulo 2^16 and little endian. `tables` are those of the components, in turn. Sums begin with
    /// `start`.
    pub fn line(&mut self, tables: &[&Table], reading: Reading, start: u16, differences: &mut [u8]) -> Result<(), Fault> {
        if self.written < self.position + self.line {
            self.advance()?;
        }
        let end = self.written + WORD;
        let rest = self.clean.get(self.position..end).ok_or(Fault::Early)?;
        let mut bits = Bits { rest, behind: self.behind, buffer: self.buffer, count: self.count };
        match *tables {
            [table] if reading == Reading::Sums => bits.differences::<true>(table, start, differences)?,
            [table] => bits.differences::<false>(table, 0, differences)?,
            [a, b] => bits.interleaved([a, b], differences)?,
            [a, b, c] => bits.interleaved([a, b, c], differences)?,
            [a, b, c, d] => bits.interleaved([a, b, c, d], differences)?,
            _ => return Err(Fault::Code),
        }
        let left = bits.left();
        let Bits { rest, behind, buffer, count } = bits;
        (self.position, self.behind, self.buffer, self.count) = (end - rest.len(), behind, buffer, count);
        left.map(|_| ())
    }

    /// Brings more bytes, if any are left before the next marker.
    fn advance(&mut self) -> Result<(), Fault> {
        if self.is_last {
            return Ok(());
        }
        // What the buffer holds stays too, for the end of the interval.
        let kept = self.position.min(WORD);
        let start = self.position - kept;
        let left = self.written.checked_sub(self.position).ok_or(Fault::Early)? + kept;
        self.clean.copy_within(start..start + left, 0);
        (self.position, self.written) = (kept, left);
        let room = self.clean.len() - WORD;
        (self.is_last, self.read, self.written) = unstuff(self.data, self.read, &mut self.clean[..room], self.written)?;
        self.clean[self.written..self.written + WORD].fill(0);
        Ok(())
    }

    /// Ends a scan or a restart interval: returns where in the data its marker stands. The bits that fill the last byte are dropped
    /// (F.1.2.3). Some encoders add whole bytes of padding, all zeros or all ones; anything else means that the samples did not use the
    /// bits as the encoder wrote them, hence that the frame is damaged.
    pub fn finish(&mut self) -> Result<usize, Fault> {
        let rest = self.clean.get(self.position..self.written + WORD).ok_or(Fault::Early)?;
        let bits = Bits { rest, behind: self.behind, buffer: self.buffer, count: self.count };
        let mut padding = bits.left()? / 8;
        loop {
            let start = self.written.checked_sub(padding).ok_or(Fault::Surplus)?;
            let bytes = self.clean.get(start..self.written).ok_or(Fault::Surplus)?;
            if bytes.iter().any(|byte| !matches!(byte, 0 | 0xFF)) {
                return Err(Fault::Surplus);
            }
            if self.is_last {
                return Ok(self.read);
            }
            self.position = self.written;
            self.advance()?;
            padding = self.written - self.position;
        }
    }

    /// Passes the restart marker with this number modulo 8, which must stand behind the interval (E.2.4).
    pub fn restart(&mut self, number: usize) -> Result<(), Fault> {
        let marker = self.data.get(self.finish()?..).unwrap_or_default();
        // Any number of bytes 0xFF may stand before the code of a marker (B.1.1.2).
        let fill = marker.iter().take_while(|byte| **byte == 0xFF).count();
        match marker.get(fill) {
            None => return Err(Fault::Early),
            Some(&code) if usize::from(code) == 0xD0 + number % 8 => self.read += fill + 1,
            Some(_) => return Err(Fault::Restart),
        }
        (self.written, self.is_last, self.position, self.behind, self.buffer, self.count) = (0, false, 0, 0, 0, 0);
        Ok(())
    }
}

/// Copies the data from this place on to `clean` from that place on, up to the next marker or until there is no room for another block,
/// without the zero bytes that are stuffed after 0xFF. Returns whether a marker was met, and the places behind.
fn unstuff(data: &[u8], mut from: usize, clean: &mut [u8], mut to: usize) -> Result<(bool, usize, usize), Fault> {
    while let Some(room) = clean.get_mut(to..).and_then(|room| room.first_chunk_mut::<BLOCK>()) {
        let rest = data.get(from..).unwrap_or_default();
        let step = match rest.first_chunk::<BLOCK>() {
            Some(block) => {
                *room = *block;
                // Without a way out, which the compiler makes a comparison of whole vectors.
                if !block.iter().fold(false, |found, byte| found | (*byte == 0xFF)) {
                    (from, to) = (from + BLOCK, to + BLOCK);
                    continue;
                }
                first_marker(block)
            }
            None => {
                let step = rest.iter().position(|byte| *byte == 0xFF).ok_or(Fault::Early)?;
                room[..step].copy_from_slice(&rest[..step]);
                step
            }
        };
        (from, to) = (from + step, to + step);
        match rest.get(step + 1) {
            None => return Err(Fault::Early),
            Some(0) => {
                room[step] = 0xFF;
                (from, to) = (from + 2, to + 1);
            }
            Some(_) => return Ok((true, from, to)),
        }
    }
    Ok((false, from, to))
}

/// Where the first byte of 0xFF stands; 0 if there is none.
fn first_marker(block: &[u8; BLOCK]) -> usize {
    for (index, word) in block.as_chunks::<WORD>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A byte of 0xFF is a zero byte of the complement; the subtraction borrows into its top bit. The lowest bit found is exact.
        let found = (!word).wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080;
        if found != 0 {
            return index * WORD + found.trailing_zeros() as usize / 8;
        }
    }
    0
}

/// Reads bits, most significant first. Behind the last one stand zeros without end, so that the reading of single differences need not
/// ask whether there are any left; [`Bits::left`] tells afterwards.
#[derive(Clone, Copy)]
struct Bits<'a> {
    /// What the buffer does not hold whole: at its end, a word of zeros that are not of the data.
    rest: &'a [u8],
    /// How many bytes behind its end the buffer holds.
    behind: usize,
    /// The next bits, left-aligned; below the first `count` of them stand more, which the next filling writes again.
    buffer: u64,
    count: u32,
}

impl Bits<'_> {
    /// Fills the buffer up to more than 55 bits.
    #[inline(always)]
    fn refill(&mut self) {
        let bytes = (63u32.wrapping_sub(self.count) >> 3 & 7) as usize;
        if let Some(word) = self.rest.first_chunk::<WORD>() {
            self.buffer |= u64::from_be_bytes(*word).wrapping_shr(self.count);
            self.rest = &self.rest[bytes..];
        } else {
            // Fewer bytes than a word are left only of the zeros.
            self.behind = self.behind.wrapping_add(bytes);
        }
        self.count |= 56;
    }

    /// How many bits of the data are left, or an error where more were read than there are.
    fn left(self) -> Result<usize, Fault> {
        let bytes = (self.rest.len() + 8).checked_sub(WORD + self.behind);
        // Eight bytes more on either side, for what the buffer holds.
        let bits = bytes.and_then(|bytes| (8 * bytes + self.count as usize).checked_sub(64));
        bits.ok_or(Fault::Early)
    }

    /// The zeros behind the last bit need not be a code: that is an early end, not a wrong code.
    #[cold]
    fn fault(self, fault: Fault) -> Fault {
        if self.left().is_ok_and(|left| left >= 16) { fault } else { Fault::Early }
    }

    /// The next difference, out of a buffer with 31 bits at least.
    #[inline(always)]
    fn difference(&mut self, table: &Table) -> Result<u16, Fault> {
        let (difference, length) = table.difference(self.buffer).map_err(|fault| self.fault(fault))?;
        self.buffer = self.buffer.wrapping_shl(length);
        self.count = self.count.wrapping_sub(length);
        Ok(difference)
    }

    /// The next differences, all with one table, or their sums from `sum` on.
    fn differences<const SUMS: bool>(&mut self, table: &Table, mut sum: u16, differences: &mut [u8]) -> Result<(), Fault> {
        // A copy, which stays in registers.
        let mut reader = *self;
        let found = match &table.pairs {
            Some(pairs) => reader.pairs::<SUMS>(table, pairs, &mut sum, differences)?,
            None => 0,
        };
        for place in differences[found..].as_chunks_mut::<2>().0 {
            reader.refill();
            let difference = reader.difference(table)?;
            sum = if SUMS { sum.wrapping_add(difference) } else { difference };
            *place = sum.to_le_bytes();
        }
        *self = reader;
        Ok(())
    }

    /// The next differences or sums, as many as whole groups of looks find; returns their bytes.
    #[inline(always)]
    fn pairs<const SUMS: bool>(&mut self, table: &Table, pairs: &Pairs, sum: &mut u16, differences: &mut [u8]) -> Result<usize, Fault> {
        // A look writes two differences behind the one or two of each look before it.
        const GROUP: usize = 4 * LOOKS + 2;
        let mut at = 0usize;
        while let Some(group) = differences.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<GROUP>()) {
            self.refill();
            // The sum of the steps: bits in the lower 6 bits, which hold that many, and differences above them.
            let mut steps = 0u32;
            let mut is_found = true;
            for _ in 0..LOOKS {
                let next = (self.buffer >> (64 - PAIR)) as usize;
                let step = u32::from(pairs.steps[next]);
                if step == 0 {
                    is_found = false;
                    break;
                }
                // Where there is one difference only, what stands for the second is overwritten.
                let place = (steps >> 5) as usize & (4 * LOOKS - 2);
                let found = pairs.differences[next];
                if SUMS {
                    group[place..place + 2].copy_from_slice(&sum.wrapping_add(found as u16).to_le_bytes());
                    *sum = sum.wrapping_add((found >> 16) as u16);
                    group[place + 2..place + 4].copy_from_slice(&sum.to_le_bytes());
                } else {
                    group[place..place + 4].copy_from_slice(&found.to_le_bytes());
                }
                self.buffer = self.buffer.wrapping_shl(step);
                steps = steps.wrapping_add(step);
            }
            self.count = self.count.wrapping_sub(steps & 63);
            let place = (steps >> 5) as usize & !1;
            if !is_found {
                self.refill();
                let difference = self.difference(table)?;
                *sum = if SUMS { sum.wrapping_add(difference) } else { difference };
                let place = place & (4 * LOOKS - 2);
                group[place..place + 2].copy_from_slice(&sum.to_le_bytes());
                at = at.wrapping_add(2);
            }
            at = at.wrapping_add(place);
        }
        Ok(at)
    }

    /// The next differences, one of each table in turn.
    fn interleaved<const COMPONENTS: usize>(&mut self, tables: [&Table; COMPONENTS], differences: &mut [u8]) -> Result<(), Fault> {
        let mut reader = *self;
        for pixel in differences.as_chunks_mut::<2>().0.as_chunks_mut::<COMPONENTS>().0 {
            for c in 0..COMPONENTS {
                reader.refill();
                pixel[c] = reader.difference(tables[c])?.to_le_bytes();
            }
        }
        *self = reader;
        Ok(())
    }
}
