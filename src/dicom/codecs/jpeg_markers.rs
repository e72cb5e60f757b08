//! Markers and segments that all JPEG processes share (ITU-T T.81 annex B): what lies between the entropy-coded data.

use crate::error::{Error, Kind, Result};

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

#[cold]
pub(super) fn undecodable(detail: &'static str) -> Error {
    Error::new(Kind::PixelsUndecodable, detail)
}

#[cold]
pub(super) fn unsupported(detail: &'static str) -> Error {
    Error::new(Kind::PixelsUnsupported, detail)
}

/// What a frame header says of one component (B.2.2).
pub(super) struct ComponentHeader {
    pub identifier: u8,
    pub h: usize,
    pub v: usize,
    /// Tqi: destination of the quantisation table, as it stands there. In lossless frames it means nothing.
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
    /// Tdj: destination of the Huffman table for DC coefficients or lossless differences.
    pub dc: usize,
    /// Taj: the same for AC coefficients, as it stands there. In lossless frames it means nothing.
    pub ac: usize,
}

/// A scan header (B.2.3).
pub(super) struct Scan {
    parts: [Part; 4],
    count: usize,
    /// First and last coefficient of the band, in zigzag order; in lossless frames, the predictor and nothing.
    pub ss: usize,
    pub se: usize,
    /// Successive approximation: the bit position of the scan before (0 for none) and of this one; in lossless frames, nothing and
    /// the point transform.
    pub ah: u8,
    pub al: u8,
}

impl Scan {
    /// The components of the scan, in the order of their blocks or samples.
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
pub(super) struct Segment<'a>(&'a [u8]);

impl<'a> Segment<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(|| undecodable("a jpeg segment is too short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn byte(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub fn word(&mut self) -> Result<u16> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Two fields of four bits: the high one first.
    pub fn nibbles(&mut self) -> Result<(u8, u8)> {
        let byte = self.byte()?;
        Ok((byte >> 4, byte & 15))
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(undecodable("a jpeg segment is longer than what it says")) }
    }
}

/// A Huffman table as its segment gives it: how many codes each length from 1 to 16 has, and the symbols in the order of the codes.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    pub counts: &'a [u8; 16],
    pub symbols: &'a [u8],
}

/// A destination of a table: one of four (B.2.4).
pub(super) fn destination(field: impl Into<usize>) -> Result<usize> {
    let field = field.into();
    if field < 4 { Ok(field) } else { Err(undecodable("a jpeg table has a destination above 3")) }
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

    pub fn segment(&mut self) -> Result<Segment<'a>> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let payload = length.checked_sub(2).ok_or_else(|| undecodable("a jpeg segment has a length below 2"))?;
        let bytes = self.rest().get(..payload).ok_or_else(|| undecodable("a jpeg frame ends early"))?;
        self.position += payload;
        Ok(Segment(bytes))
    }

    /// Passes a segment that does not matter here, and refuses what no decoder here can decode.
    pub fn other(&mut self, code: u8) -> Result<()> {
        match code {
            // Application data and comments; reserved for temporary use, without a segment.
            0xE0..=0xEF | 0xFE => self.segment().map(|_| ()),
            0x01 => Ok(()),
            0xC0..=0xC2 => Err(unsupported("the jpeg frame is coded with loss, in the data set it is not")),
            0xC3 => Err(unsupported("the jpeg frame is coded without loss, in the data set it is not")),
            0xF7 => Err(unsupported("the jpeg frame is coded without loss as jpeg-ls, in the data set it is not")),
            0xC5..=0xC7 | 0xCD..=0xCF | 0xDE | 0xDF => Err(unsupported("the jpeg frame is hierarchical")),
            0xC9..=0xCC => Err(unsupported("the jpeg frame is arithmetically coded")),
            0xDC => Err(unsupported("the jpeg frame gives its number of lines behind the first scan")),
            _ => Err(undecodable("a jpeg marker stands where it may not")),
        }
    }

    /// DHT: any number of tables (B.2.4.2). `set` takes the class (0 for DC and lossless, 1 for AC), the destination and the codes.
    pub fn huffman_tables(&mut self, mut set: impl FnMut(u8, usize, Codes<'a>) -> Result<()>) -> Result<()> {
        let mut segment = self.segment()?;
        while !segment.is_empty() {
            let (class, place) = segment.nibbles()?;
            let counts = segment.bytes(16)?.first_chunk().ok_or_else(|| undecodable("a jpeg segment is too short"))?;
            let symbols = segment.bytes(counts.iter().map(|&count| usize::from(count)).sum())?;
            if class > 1 {
                return Err(undecodable("a jpeg huffman table is for neither dc nor ac"));
            }
            set(class, destination(place)?, Codes { counts, symbols })?;
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

    /// A frame header of any process (B.2.2). Which precisions the process has, the caller knows.
    pub fn frame_header(&mut self) -> Result<FrameHeader> {
        let mut segment = self.segment()?;
        let precision = u32::from(segment.byte()?);
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
            let table = usize::from(segment.byte()?);
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

    /// SOS (B.2.3), in a frame whose components have these identifiers. What its last fields may be, the caller knows.
    pub fn scan_header(&mut self, identifiers: impl Iterator<Item = u8> + Clone) -> Result<Scan> {
        let mut segment = self.segment()?;
        let count = usize::from(segment.byte()?);
        if !(1..=4).contains(&count) {
            return Err(undecodable("a jpeg scan has neither one nor two to four components"));
        }
        let mut parts = [Part::default(); 4];
        for index in 0..count {
            let identifier = segment.byte()?;
            let (dc, ac) = segment.nibbles()?;
            let component = identifiers.clone().position(|known| known == identifier);
            let component = component.ok_or_else(|| undecodable("a jpeg scan names a component that the frame lacks"))?;
            if parts[..index].iter().any(|part| part.component == component) {
                return Err(undecodable("a jpeg scan names a component twice"));
            }
            parts[index] = Part { component, dc: destination(dc)?, ac: usize::from(ac) };
        }
        let (ss, se) = (usize::from(segment.byte()?), usize::from(segment.byte()?));
        let (ah, al) = segment.nibbles()?;
        segment.end()?;
        Ok(Scan { parts, count, ss, se, ah, al })
    }
}
