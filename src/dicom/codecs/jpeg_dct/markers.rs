//! Markers and their segments (T.81 annex B).

use super::frame::Frame;
use super::huffman::Table;
use super::idct::Steps;
use super::{Tables, undecodable, unsupported};
use crate::error::Result;

/// Start of frame: baseline, extended sequential and progressive, each with Huffman coding (T.81 table B.1).
pub(super) const SOF0: u8 = 0xC0;
pub(super) const SOF2: u8 = 0xC2;
/// Define Huffman tables.
pub(super) const DHT: u8 = 0xC4;
/// End of image.
pub(super) const EOI: u8 = 0xD9;
/// Start of scan.
pub(super) const SOS: u8 = 0xDA;
/// Define quantisation tables.
pub(super) const DQT: u8 = 0xDB;
/// Define restart interval.
pub(super) const DRI: u8 = 0xDD;

/// What a frame header says of one component (B.2.2).
pub(super) struct ComponentHeader {
    pub identifier: u8,
    pub h: usize,
    pub v: usize,
    pub table: usize,
}

/// A frame header (B.2.2).
pub(super) struct FrameHeader {
    pub precision: u32,
    pub columns: u32,
    pub rows: u32,
    pub components: Vec<ComponentHeader>,
}

/// What a scan header says of one component (B.2.3).
#[derive(Clone, Copy, Default)]
pub(super) struct Part {
    /// Index of the component in the frame.
    pub component: usize,
    /// Tdj and Taj: destinations of the Huffman tables.
    pub dc: usize,
    pub ac: usize,
}

/// A scan header (B.2.3).
pub(super) struct Scan {
    parts: [Part; 4],
    count: usize,
    /// First and last coefficient of the band, in zigzag order.
    pub ss: usize,
    pub se: usize,
    /// Successive approximation: the bit position of the scan before (0 for none) and of this one.
    pub ah: u8,
    pub al: u8,
}

impl Scan {
    /// The components of the scan, in the order of their blocks.
    pub fn parts(&self) -> &[Part] {
        &self.parts[..self.count]
    }
}

/// Walks over the segments of a frame.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

/// The bytes of one segment behind its length.
struct Segment<'a>(&'a [u8]);

impl<'a> Segment<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(|| undecodable("a jpeg segment is too short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    fn word(&mut self) -> Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Two fields of four bits: the high one first.
    fn nibbles(&mut self) -> Result<(u8, u8)> {
        let byte = self.byte()?;
        Ok((byte >> 4, byte & 15))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(undecodable("a jpeg segment is longer than what it says")) }
    }
}

/// A destination of a table: one of four (B.2.4).
fn destination(field: u8) -> Result<usize> {
    if field < 4 { Ok(usize::from(field)) } else { Err(undecodable("a jpeg table has a destination above 3")) }
}

impl<'a> Reader<'a> {
    /// Starts behind the start of image, which must be there.
    pub fn new(data: &'a [u8]) -> Result<Reader<'a>> {
        if data.starts_with(&[0xFF, 0xD8]) { Ok(Reader { data, position: 2 }) } else { Err(undecodable("a jpeg frame has no start")) }
    }

    /// What follows: behind a scan header, the entropy-coded data.
    pub fn rest(&self) -> &'a [u8] {
        &self.data[self.position..]
    }

    /// Passes bytes that the scan used.
    pub fn skip(&mut self, count: usize) {
        self.position = self.data.len().min(self.position.saturating_add(count));
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.data.get(self.position).ok_or_else(|| undecodable("a jpeg frame ends early"))?;
        self.position += 1;
        Ok(byte)
    }

    /// The code of the next marker. Any number of bytes 0xFF may stand before it (B.1.1.2).
    pub fn marker(&mut self) -> Result<u8> {
        if self.byte()? != 0xFF {
            return Err(undecodable("a jpeg marker is missing"));
        }
        loop {
            match self.byte()? {
                0xFF => {}
                0 => return Err(undecodable("a jpeg marker is missing")),
                code => return Ok(code),
            }
        }
    }

    fn segment(&mut self) -> Result<Segment<'a>> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let payload = length.checked_sub(2).ok_or_else(|| undecodable("a jpeg segment has a length below 2"))?;
        let bytes = self.rest().get(..payload).ok_or_else(|| undecodable("a jpeg frame ends early"))?;
        self.position += payload;
        Ok(Segment(bytes))
    }

    /// Passes a segment that does not matter here, and refuses what this decoder cannot decode.
    pub fn other(&mut self, code: u8) -> Result<()> {
        match code {
            // Application data and comments; reserved for temporary use, without a segment.
            0xE0..=0xEF | 0xFE => self.segment().map(|_| ()),
            0x01 => Ok(()),
            0xC3 | 0xC7 | 0xCB | 0xCF | 0xF7 => Err(unsupported("the jpeg frame is coded without loss, in the data set it is not")),
            0xC5 | 0xC6 | 0xCD | 0xCE | 0xDE | 0xDF => Err(unsupported("the jpeg frame is hierarchical")),
            0xC9 | 0xCA | 0xCC => Err(unsupported("the jpeg frame is arithmetically coded")),
            0xDC => Err(unsupported("the jpeg frame gives its number of lines behind the first scan")),
            _ => Err(undecodable("a jpeg marker stands where it may not")),
        }
    }

    /// DQT: any number of tables, of 8 or 16 bits (B.2.4.1).
    pub fn quantization_tables(&mut self, tables: &mut Tables) -> Result<()> {
        let mut segment = self.segment()?;
        while !segment.0.is_empty() {
            let (wide, place) = segment.nibbles()?;
            let mut steps: Steps = [0; 64];
            for step in &mut steps {
                *step = match wide {
                    0 => u16::from(segment.byte()?),
                    1 => segment.word()?,
                    _ => return Err(undecodable("a jpeg quantization table is of neither 8 nor 16 bits")),
                };
                if *step == 0 {
                    return Err(undecodable("a jpeg quantization table holds a zero"));
                }
            }
            tables.quantization[destination(place)?] = Some(steps);
        }
        Ok(())
    }

    /// DHT: any number of tables (B.2.4.2).
    pub fn huffman_tables(&mut self, tables: &mut Tables) -> Result<()> {
        let mut segment = self.segment()?;
        while !segment.0.is_empty() {
            let (class, place) = segment.nibbles()?;
            let mut counts = [0u8; 16];
            counts.copy_from_slice(segment.bytes(16)?);
            let symbols = segment.bytes(counts.iter().map(|&count| usize::from(count)).sum())?;
            let table = Some(Box::new(Table::new(&counts, symbols)?));
            match class {
                0 => tables.dc[destination(place)?] = table,
                1 => tables.ac[destination(place)?] = table,
                _ => return Err(undecodable("a jpeg huffman table is for neither dc nor ac")),
            }
        }
        Ok(())
    }

    /// DRI: MCUs between restart markers, 0 for none (B.2.4.4).
    pub fn restart_interval(&mut self) -> Result<usize> {
        let mut segment = self.segment()?;
        let interval = segment.word()?;
        segment.end()?;
        Ok(usize::from(interval))
    }

    /// SOF0, SOF1 or SOF2 (B.2.2). Some encoders mark 12-bit frames as baseline; nothing in them is ambiguous, so they are read.
    pub fn frame_header(&mut self) -> Result<FrameHeader> {
        let mut segment = self.segment()?;
        let precision = u32::from(segment.byte()?);
        if precision != 8 && precision != 12 {
            return Err(unsupported("the jpeg frame has neither 8 nor 12 bits per sample"));
        }
        let (rows, columns) = (u32::from(segment.word()?), u32::from(segment.word()?));
        if rows == 0 {
            return Err(unsupported("the jpeg frame gives its number of lines behind the first scan"));
        }
        if columns == 0 {
            return Err(undecodable("a jpeg frame has no columns"));
        }
        let count = segment.byte()?;
        if count == 0 {
            return Err(undecodable("a jpeg frame has no components"));
        }
        if count > 4 {
            return Err(unsupported("the jpeg frame has more than four components"));
        }
        let mut components: Vec<ComponentHeader> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let identifier = segment.byte()?;
            let (h, v) = segment.nibbles()?;
            let table = destination(segment.byte()?)?;
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) {
                return Err(undecodable("a jpeg sampling factor is outside 1 to 4"));
            }
            if components.iter().any(|c| c.identifier == identifier) {
                return Err(undecodable("two jpeg components have one name"));
            }
            components.push(ComponentHeader { identifier, h: usize::from(h), v: usize::from(v), table });
        }
        segment.end()?;
        Ok(FrameHeader { precision, columns, rows, components })
    }

    /// SOS (B.2.3).
    pub fn scan_header(&mut self, frame: &Frame) -> Result<Scan> {
        let mut segment = self.segment()?;
        let count = usize::from(segment.byte()?);
        if !(1..=4).contains(&count) {
            return Err(undecodable("a jpeg scan has neither one nor two to four components"));
        }
        let mut parts = [Part::default(); 4];
        for index in 0..count {
            let identifier = segment.byte()?;
            let (dc, ac) = segment.nibbles()?;
            let component = frame.components.iter().position(|c| c.identifier == identifier);
            let component = component.ok_or_else(|| undecodable("a jpeg scan names a component that the frame lacks"))?;
            if parts[..index].iter().any(|part| part.component == component) {
                return Err(undecodable("a jpeg scan names a component twice"));
            }
            parts[index] = Part { component, dc: destination(dc)?, ac: destination(ac)? };
        }
        let (ss, se) = (usize::from(segment.byte()?), usize::from(segment.byte()?));
        let (ah, al) = segment.nibbles()?;
        segment.end()?;
        if !frame.progressive {
            // A sequential scan codes whole blocks whatever these fields hold, and some encoders fill them wrongly
            // (pydicom's JPEG-lossy.dcm is such a file).
            return Ok(Scan { parts, count, ss: 0, se: 63, ah: 0, al: 0 });
        }
        // G.1.1.1: the DC coefficient alone, of any components, or a band of AC coefficients of one component; each refinement
        // adds one bit.
        let band = if ss == 0 { se == 0 } else { ss <= se && se < 64 && count == 1 };
        if !band || al > 13 || (ah != 0 && ah != al + 1) {
            return Err(undecodable("a progressive jpeg scan has parameters outside the standard"));
        }
        Ok(Scan { parts, count, ss, se, ah, al })
    }
}
