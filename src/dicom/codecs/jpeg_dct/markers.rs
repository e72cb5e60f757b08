//! What the segments of these processes have of their own: quantisation tables, precisions, and the parameters of the scans.

use super::frame::Frame;
use super::huffman::Table;
use super::idct::Steps;
use super::{Tables, undecodable, unsupported};
use crate::dicom::codecs::jpeg_markers::{FrameHeader, Reader, Scan, destination};
use crate::error::Result;

/// Start of frame: baseline, extended sequential and progressive, each with Huffman coding (T.81 table B.1).
pub(super) const SOF0: u8 = 0xC0;
pub(super) const SOF2: u8 = 0xC2;

/// DQT: any number of tables, of 8 or 16 bits (B.2.4.1).
pub(super) fn quantization_tables(reader: &mut Reader, tables: &mut Tables) -> Result<()> {
    let mut segment = reader.segment()?;
    while !segment.is_empty() {
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
pub(super) fn huffman_tables(reader: &mut Reader, tables: &mut Tables) -> Result<()> {
    reader.huffman_tables(|class, place, codes| {
        let table = Some(Box::new(Table::new(codes.counts, codes.symbols)?));
        if class == 0 {
            tables.dc[place] = table;
        } else {
            tables.ac[place] = table;
        }
        Ok(())
    })
}

/// SOF0, SOF1 or SOF2 (B.2.2). Some encoders mark 12-bit frames as baseline; nothing in them is ambiguous, so they are read.
pub(super) fn frame_header(reader: &mut Reader) -> Result<FrameHeader> {
    let header = reader.frame_header()?;
    if header.precision != 8 && header.precision != 12 {
        return Err(unsupported("the jpeg frame has neither 8 nor 12 bits per sample"));
    }
    for component in &header.components {
        destination(component.table)?;
    }
    Ok(header)
}

/// SOS (B.2.3).
pub(super) fn scan_header(reader: &mut Reader, frame: &Frame) -> Result<Scan> {
    let mut scan = reader.scan_header(frame.components.iter().map(|component| component.identifier))?;
    for part in scan.parts() {
        destination(part.ac)?;
    }
    if !frame.progressive {
        // A sequential scan codes whole blocks whatever these fields hold, and some encoders fill them wrongly
        // (pydicom's JPEG-lossy.dcm is such a file).
        (scan.ss, scan.se, scan.ah, scan.al) = (0, 63, 0, 0);
        return Ok(scan);
    }
    // G.1.1.1: the DC coefficient alone, of any components, or a band of AC coefficients of one component; each refinement
    // adds one bit.
    let Scan { ss, se, ah, al, .. } = scan;
    let band = if ss == 0 { se == 0 } else { ss <= se && se < 64 && scan.parts().len() == 1 };
    if !band || al > 13 || (ah != 0 && ah != al + 1) {
        return Err(undecodable("a progressive jpeg scan has parameters outside the standard"));
    }
    Ok(scan)
}
