//! JPEG frames coded with the discrete cosine transform (ITU-T T.81): baseline, extended sequential and progressive, Huffman
//! coded, of 8 or 12 bits per sample. These are the DICOM transfer syntaxes JPEG Baseline (1.2.840.10008.1.2.4.50), JPEG Extended
//! (.51) and the retired Spectral Selection (.53) and Full Progression (.55).
//!
//! It is our own code, written from the standard, because no decoder on the registry would do: the established ones read 8 bits
//! per sample only, those that claim 12 bits are weeks old, and the rest bind a C library. Results are exact: the inverse transform
//! gives, sample by sample, what the accurate integer method of the Independent JPEG Group's library gives, so a study reads here
//! as it reads in the DICOM toolkits. Where that library guesses (a frame that ends early, missing scans, damaged codes) this
//! decoder refuses: invented pixels have no place in a diagnosis.
//!
//! [`super::jpeg_markers`] and [`markers`] read the segments, [`frame`] holds the components and what is known of them, [`huffman`] reads
//! bits and codes, [`scan`] the sequential and [`progressive`] the progressive scans, [`idct`] turns coefficients into samples, and
//! [`output`] brings the components to one size and interleaves them.

mod frame;
mod huffman;
mod idct;
mod markers;
mod output;
mod progressive;
mod scan;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use self::frame::Frame;
use self::huffman::Table;
use super::jpeg_markers::{DHT, DQT, DRI, EOI, Reader, SOS, Scan, undecodable, unsupported};
use crate::error::{Error, Kind, Result};
use crate::secret::Plain;

/// Scans in one frame. Real encoders write at most a dozen or so; each scan may touch every block, so that without a bound a short
/// stream of scans that say nothing would keep a large frame busy.
const MAX_SCANS: usize = 256;

/// The samples of one frame.
pub(super) struct Decoded {
    /// Little endian, one byte per sample for a precision of 8 and two for 12, interleaved by pixel, as coded: no colour transformation.
    pub samples: Plain,
    /// Bits per sample: 8 or 12.
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
    /// The stream or the scan ends inside a block.
    Early,
    /// The bits are no code of the table, or the code has no meaning there.
    Code,
    /// A run of zeros passes the end of the block or of the band.
    Run,
    /// A coefficient leaves the 16 bits that the standard's widest precision needs.
    Range,
    /// Bytes that no block used stand at the end of a scan or restart interval.
    Surplus,
    /// The restart marker that is due is another or missing.
    Restart,
}

impl Fault {
    fn error(self) -> Error {
        undecodable(match self {
            Fault::Early => "a jpeg frame ends early",
            Fault::Code => "a jpeg frame holds a huffman code without a meaning",
            Fault::Run => "a run of zeros passes the end of a jpeg block",
            Fault::Range => "a jpeg coefficient is out of range",
            Fault::Surplus => "a jpeg frame holds bytes that no block uses",
            Fault::Restart => "a jpeg restart marker is missing or out of order",
        })
    }
}

/// A vector of zeros, or an error where the allocator has no room for it.
fn zeros<T: Copy + Default + Zeroize>(length: Option<usize>) -> Result<Zeroizing<Vec<T>>> {
    let mut cells = Zeroizing::new(Vec::new());
    let length = length.ok_or_else(|| Error::new(Kind::OutOfMemory, "a jpeg frame is larger than the address space"))?;
    cells.try_reserve_exact(length).map_err(|_| Error::new(Kind::OutOfMemory, "no memory for a jpeg frame"))?;
    cells.resize(length, T::default());
    Ok(cells)
}

/// The tables that segments between the scans set and replace: four destinations of each sort (T.81 B.2.4).
#[derive(Default)]
struct Tables {
    /// Quantisation steps in zigzag order.
    quantization: [Option<[u16; 64]>; 4],
    dc: [Option<Box<Table>>; 4],
    ac: [Option<Box<Table>>; 4],
    /// MCUs between two restart markers, 0 for no markers.
    restart_interval: usize,
}

/// Decodes one frame whose header must say exactly these columns, rows and components.
pub(super) fn decode(frame: &[u8], columns: u32, rows: u32, components: u32) -> Result<Decoded> {
    let mut reader = Reader::new(frame)?;
    let mut tables = Tables::default();
    let mut image: Option<Frame> = None;
    let mut scans = 0;
    loop {
        match reader.marker()? {
            EOI => break,
            DQT => markers::quantization_tables(&mut reader, &mut tables)?,
            DHT => markers::huffman_tables(&mut reader, &mut tables)?,
            DRI => tables.restart_interval = reader.restart_interval()?,
            markers::SOF0..=markers::SOF2 if image.is_some() => return Err(undecodable("a jpeg frame has two headers")),
            sof @ markers::SOF0..=markers::SOF2 => {
                let header = markers::frame_header(&mut reader)?;
                if (header.columns, header.rows, header.components.len()) != (columns, rows, components as usize) {
                    return Err(undecodable("the size in a jpeg frame is not the size in the data set"));
                }
                image = Some(Frame::new(&header, sof == markers::SOF2, frame.len())?);
            }
            SOS => {
                let image = image.as_mut().ok_or_else(|| undecodable("a jpeg scan stands before the frame's header"))?;
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(unsupported("a jpeg frame has more than 256 scans"));
                }
                let scan = markers::scan_header(&mut reader, image)?;
                let used = decode_scan(image, &scan, &tables, reader.rest())?;
                reader.skip(used);
            }
            other => reader.other(other)?,
        }
    }
    let mut image = image.ok_or_else(|| undecodable("a jpeg frame has no header"))?;
    image.finish()?;
    output::interleave(&image)
}

/// Decodes the entropy-coded data of one scan and returns how many bytes it took.
fn decode_scan(image: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    for part in scan.parts() {
        let component = &mut image.components[part.component];
        // The steps in force when the component first appears are the component's (T.81 B.2.2: Tqi names a destination, and
        // encoders may reuse the destination later for another component).
        if component.steps.is_none() {
            let steps = tables.quantization[component.table];
            component.steps = Some(steps.ok_or_else(|| undecodable("a jpeg frame lacks a quantization table"))?);
        }
    }
    if image.progressive { progressive::decode(image, scan, tables, data) } else { scan::decode(image, scan, tables, data) }
}
