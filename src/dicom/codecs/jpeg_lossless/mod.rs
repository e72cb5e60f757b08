//! JPEG frames coded without loss (ITU-T T.81 annex H, process 14): prediction and Huffman coding, 2 to 16 bits per sample. These are the
//! DICOM transfer syntaxes JPEG Lossless (1.2.840.10008.1.2.4.57) and JPEG Lossless First-Order Prediction (.70).
//!
//! Results are what the DICOM toolkits read: sums are taken modulo 2^16 whatever the precision is, and are not cut to the precision
//! afterwards, since some encoders of signed samples leave it. Where the Independent JPEG Group's library guesses (a frame that ends early,
//! bits that are no code, restart markers out of order) this decoder refuses: invented pixels have no place in a diagnosis.
//!
//! [`super::jpeg_markers`] reads the segments, [`bits`] finds the differences in the data with the tables of [`codes`],
//! [`lines`] makes samples of them.

mod bits;
mod codes;
mod lines;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;

use zeroize::Zeroizing;

use self::bits::Stream;
use self::codes::{Reading, Table};
use super::jpeg_markers::{Codes, DHT, DQT, DRI, EOI, FrameHeader, Part, Reader, SOS, Scan, undecodable, unsupported};
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Start of frame: lossless, sequential, with Huffman coding (T.81 table B.1).
const SOF3: u8 = 0xC3;

/// The samples of one frame.
pub(super) struct Decoded {
    /// Little endian, one byte per sample for a precision up to 8 and two above, interleaved by pixel, as coded: no colour transformation.
    pub samples: Plain,
    /// Bits per sample: 2 to 16.
    pub precision: u32,
}

impl fmt::Debug for Decoded {
    /// Leaves the samples out: they are patient data.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoded").field("precision", &self.precision).finish_non_exhaustive()
    }
}

/// What the entropy decoder can find wrong. One byte, so that the results of the innermost functions stay in registers; the error
/// that callers see is made once, outside the loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The stream, the scan or the restart interval ends before its last sample.
    Early,
    /// The bits are no code of the table, or the code has no meaning there.
    Code,
    /// Bytes that no sample used stand at the end of a scan or restart interval.
    Surplus,
    /// The restart marker that is due is another or missing.
    Restart,
}

impl Fault {
    fn error(self) -> Error {
        undecodable(match self {
            Fault::Early => "a jpeg frame ends early",
            Fault::Code => "a jpeg frame holds a huffman code without a meaning",
            Fault::Surplus => "a jpeg frame holds bytes that no sample uses",
            Fault::Restart => "a jpeg restart marker is missing or out of order",
        })
    }
}

/// The frame.
struct Frame {
    precision: u32,
    columns: usize,
    rows: usize,
    /// Ci: the names of the components, which scan headers use, and whether a scan has delivered them.
    components: Vec<(u8, bool)>,
    /// Bytes per sample.
    width: usize,
    /// Grows with the lines of the first scan.
    samples: Plain,
}

/// Decodes one frame whose header must say exactly these columns, rows and components.
pub(super) fn decode(frame: &[u8], columns: u32, rows: u32, components: u32) -> Result<Decoded> {
    let mut reader = Reader::new(frame)?;
    let mut tables: [Option<Codes>; 4] = [None; 4];
    let mut interval = 0;
    let mut image: Option<Frame> = None;
    loop {
        match reader.marker()? {
            EOI => break,
            // Tables for AC coefficients have no use here, but encoders of both sorts of frames write them.
            DHT => reader.huffman_tables(|class, place, codes| {
                if class == 0 {
                    tables[place] = Some(codes);
                }
                Ok(())
            })?,
            DQT => reader.segment().map(|_| ())?,
            DRI => interval = reader.restart_interval()?,
            SOF3 if image.is_some() => return Err(undecodable("a jpeg frame has two headers")),
            SOF3 => {
                let header = reader.frame_header()?;
                if (header.columns, header.rows, header.components.len()) != (columns, rows, components as usize) {
                    return Err(undecodable("the size in a jpeg frame is not the size in the data set"));
                }
                image = Some(Frame::new(&header, frame.len())?);
            }
            SOS => {
                let image = image.as_mut().ok_or_else(|| undecodable("a jpeg scan stands before the frame's header"))?;
                let scan = reader.scan_header(image.components.iter().map(|(identifier, _)| *identifier))?;
                let used = image.scan(&scan, &tables, interval, reader.rest())?;
                reader.skip(used);
            }
            other => reader.other(other)?,
        }
    }
    let image = image.ok_or_else(|| undecodable("a jpeg frame has no header"))?;
    if image.components.iter().any(|(_, is_there)| !is_there) {
        return Err(undecodable("a jpeg frame lacks some of its scans"));
    }
    Ok(Decoded { samples: image.samples, precision: image.precision })
}

impl Frame {
    /// `stream` is the length of the whole stream in bytes: every sample costs at least one bit of it, so a header that claims more
    /// samples is refused before anything of their size exists.
    fn new(header: &FrameHeader, stream: usize) -> Result<Frame> {
        if !(2..=16).contains(&header.precision) {
            return Err(undecodable("a lossless jpeg frame has fewer than 2 or more than 16 bits per sample"));
        }
        // One component has one sample per unit whatever its factors are (A.2.2).
        if header.components.len() > 1 && header.components.iter().any(|c| (c.h, c.v) != (1, 1)) {
            return Err(unsupported("the components of a lossless jpeg frame differ in size"));
        }
        let (columns, rows) = (header.columns as usize, header.rows as usize);
        let width = if header.precision <= 8 { 1 } else { 2 };
        let samples = columns.saturating_mul(rows).saturating_mul(header.components.len());
        if samples / 8 > stream {
            return Err(undecodable("a jpeg frame is too short for its size"));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(samples.saturating_mul(width)).map_err(|_| no_memory())?;
        let components = header.components.iter().map(|c| (c.identifier, false)).collect();
        Ok(Frame { precision: header.precision, columns, rows, components, width, samples: Plain::new(bytes) })
    }

    /// Decodes the entropy-coded data of one scan and returns how many bytes it took.
    fn scan(&mut self, scan: &Scan, tables: &[Option<Codes>; 4], interval: usize, data: &[u8]) -> Result<usize> {
        let parts = scan.parts();
        for part in parts {
            if std::mem::replace(&mut self.components[part.component].1, true) {
                return Err(undecodable("a jpeg frame codes a component twice"));
            }
        }
        let reading = if parts.len() == 1 && scan.ss == 1 { Reading::Sums } else { Reading::Differences };
        // H.1.2.1: the first line of a scan or an interval is predicted from the left.
        let (predict_first, predict) = match (lines::line(parts.len(), 1), lines::line(parts.len(), scan.ss)) {
            (Some(_), Some(_)) if reading == Reading::Sums => (lines::summed as lines::Line, lines::summed as lines::Line),
            (Some(first), Some(predict)) => (first, predict),
            _ => return Err(undecodable("a lossless jpeg scan has parameters outside the standard")),
        };
        if (scan.se, scan.ah) != (0, 0) || u32::from(scan.al) >= self.precision {
            return Err(undecodable("a lossless jpeg scan has parameters outside the standard"));
        }
        // B.2.4.4: in lossless frames, an interval is a number of lines.
        if !interval.is_multiple_of(self.columns) {
            return Err(undecodable("a restart interval of a lossless jpeg frame ends within a line"));
        }
        let lines = if interval == 0 { self.rows } else { interval / self.columns };
        let made = distinct_tables(parts, tables, self.columns * self.rows, reading)?;
        let mut by_part = Vec::with_capacity(parts.len());
        for part in parts {
            by_part.extend(made.iter().find(|(place, _)| *place == part.dc).map(|(_, table)| &**table));
        }
        if made.len() == 1 {
            // One table for all is the faster way.
            by_part.truncate(1);
        }
        // The prediction of the very first sample.
        let middle = [1u16 << (self.precision - u32::from(scan.al) - 1); 4];
        let samples = self.columns.checked_mul(parts.len()).ok_or_else(no_memory)?;
        let mut differences = zeros::<u8>(samples.checked_mul(2))?;
        let (mut above, mut line) = (zeros::<u16>(Some(samples))?, zeros::<u16>(Some(samples))?);
        let mut stream = Stream::new(data, samples)?;
        for row in 0..self.rows {
            let is_first = row % lines == 0;
            if is_first && row > 0 {
                stream.restart(row / lines - 1).map_err(Fault::error)?;
            }
            let mut start = middle;
            if !is_first {
                start[..parts.len()].copy_from_slice(&above[..parts.len()]);
            }
            stream.line(&by_part, reading, start[0], &mut differences).map_err(Fault::error)?;
            let predict = if is_first { predict_first } else { predict };
            predict(&start, &above, &differences, &mut line);
            self.store(row, parts, scan.al, &line);
            std::mem::swap(&mut above, &mut line);
        }
        stream.finish().map_err(Fault::error)
    }

    /// Puts a line of a scan where it belongs, with the bits that the point transform took away as zeros (A.4).
    fn store(&mut self, row: usize, parts: &[Part], transform: u8, line: &[u16]) {
        let count = self.components.len();
        let bytes = self.columns * count * self.width;
        if self.samples.len() < (row + 1) * bytes {
            self.samples.resize((row + 1) * bytes, 0);
        }
        let stored = &mut self.samples[row * bytes..(row + 1) * bytes];
        let transform = u32::from(transform);
        if parts.len() == count && parts.iter().enumerate().all(|(index, part)| index == part.component) {
            if self.width == 1 {
                for (stored, sample) in stored.iter_mut().zip(line) {
                    *stored = (sample << transform) as u8;
                }
            } else {
                for (stored, sample) in stored.as_chunks_mut::<2>().0.iter_mut().zip(line) {
                    *stored = (sample << transform).to_le_bytes();
                }
            }
            return;
        }
        for (pixel, samples) in stored.chunks_exact_mut(count * self.width).zip(line.chunks_exact(parts.len())) {
            for (part, sample) in parts.iter().zip(samples) {
                let sample = (sample << transform).to_le_bytes();
                pixel[part.component * self.width..][..self.width].copy_from_slice(&sample[..self.width]);
            }
        }
    }
}

/// The tables that the components of a scan name, each made once, with their destinations.
fn distinct_tables(parts: &[Part], tables: &[Option<Codes>; 4], samples: usize, reading: Reading) -> Result<Vec<(usize, Box<Table>)>> {
    let mut made: Vec<(usize, Box<Table>)> = Vec::with_capacity(parts.len());
    for part in parts {
        if made.iter().all(|(place, _)| *place != part.dc) {
            let codes = tables[part.dc].ok_or_else(|| undecodable("a jpeg frame lacks a huffman table"))?;
            made.push((part.dc, Table::new(codes, samples, reading)?));
        }
    }
    Ok(made)
}

#[cold]
fn no_memory() -> Error {
    Error::new(Kind::OutOfMemory, "no memory for a jpeg frame")
}

/// A vector of zeros, or an error where the allocator has no room for it.
fn zeros<T: Copy + Default + zeroize::Zeroize>(length: Option<usize>) -> Result<Zeroizing<Vec<T>>> {
    let mut cells = Zeroizing::new(Vec::new());
    let length = length.ok_or_else(no_memory)?;
    cells.try_reserve_exact(length).map_err(|_| no_memory())?;
    cells.resize(length, T::default());
    Ok(cells)
}
