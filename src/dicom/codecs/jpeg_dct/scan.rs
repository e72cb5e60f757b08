//! Scans of blocks: the order of the blocks, the restart intervals, and the sequential coding (T.81 A.2, E.2 and F.2.2).

use super::frame::Frame;
use super::huffman::{Bits, Table};
use super::{Fault, Scan, Tables, idct, undecodable};
use crate::error::Result;

/// One block of a scan.
pub(super) struct Place {
    /// Index of the component within the scan.
    pub part: usize,
    /// Column and line of the block within the component.
    pub column: usize,
    pub line: usize,
}

/// The blocks of one component within an MCU, across and down.
#[derive(Clone, Copy)]
struct Unit {
    h: usize,
    v: usize,
}

/// Calls `block` for every block of the scan, in the order in which they are coded, with the prediction of its component; returns
/// how many bytes the scan took. A scan of one component codes just the blocks that hold samples, line by line (T.81 A.2.2); one of
/// several interleaves whole MCUs (A.2.3).
pub(super) fn each_block(
    frame: &mut Frame,
    scan: &Scan,
    interval: usize,
    data: &[u8],
    mut block: impl FnMut(&mut Frame, &mut Bits, &mut i32, Place) -> Result<(), Fault>,
) -> Result<usize> {
    let mut units = [Unit { h: 1, v: 1 }; 4];
    let parts = scan.parts();
    let (wide, high) = if let [part] = parts {
        let component = &frame.components[part.component];
        (component.blocks_wide, component.blocks_high)
    } else {
        for (unit, part) in units.iter_mut().zip(parts) {
            let component = &frame.components[part.component];
            *unit = Unit { h: component.h, v: component.v };
        }
        (frame.mcus_wide, frame.mcus_high)
    };
    let mut bits = Bits::new(data);
    let mut predictions = [0i32; 4];
    let (mut until_restart, mut restarts) = (interval, 0);
    for mcu_line in 0..high {
        for mcu_column in 0..wide {
            if interval > 0 {
                if until_restart == 0 {
                    bits.restart(restarts).map_err(Fault::error)?;
                    restarts += 1;
                    until_restart = interval;
                    predictions = [0; 4];
                }
                until_restart -= 1;
            }
            for (part, (unit, prediction)) in units.iter().zip(&mut predictions).take(parts.len()).enumerate() {
                for y in 0..unit.v {
                    for x in 0..unit.h {
                        let place = Place { part, column: mcu_column * unit.h + x, line: mcu_line * unit.v + y };
                        block(frame, &mut bits, prediction, place).map_err(Fault::error)?;
                    }
                }
            }
        }
    }
    bits.finish().map_err(Fault::error)
}

/// A table that the scan names and some segment must have set.
pub(super) fn needed(tables: &[Option<Box<Table>>; 4], place: usize) -> Result<&Table> {
    tables[place].as_deref().ok_or_else(|| undecodable("a jpeg frame lacks a huffman table"))
}

/// The next DC coefficient (T.81 F.2.2.1): the difference from the one before, in a category of at most 15.
#[inline(always)]
pub(super) fn dc(bits: &mut Bits, table: &Table, prediction: &mut i32) -> Result<i32, Fault> {
    let category = bits.symbol(table)?;
    if category > 15 {
        return Err(Fault::Code);
    }
    *prediction += bits.receive_extend(u32::from(category))?;
    // Also keeps the sum of any number of differences from overflowing.
    if i16::try_from(*prediction).is_ok() { Ok(*prediction) } else { Err(Fault::Range) }
}

/// One block (T.81 F.2.2): sets its coefficients, in zigzag order, and returns which of them are not zero.
#[inline(always)]
fn block(bits: &mut Bits, dc_table: &Table, ac_table: &Table, prediction: &mut i32, coefficients: &mut [i16; 64]) -> Result<u64, Fault> {
    // The range was checked, so the cast keeps the value.
    coefficients[0] = dc(bits, dc_table, prediction)? as i16;
    let mut mask = 1;
    let mut k = 1;
    while k < 64 {
        let symbol = bits.symbol(ac_table)?;
        let (run, category) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if category == 0 {
            match run {
                0 => break, // end of block
                15 => k += 16,
                _ => return Err(Fault::Code),
            }
            continue;
        }
        k += run;
        if k > 63 {
            return Err(Fault::Run);
        }
        coefficients[k] = bits.receive_extend(category)? as i16;
        mask |= 1 << k;
        k += 1;
    }
    if k > 64 { Err(Fault::Run) } else { Ok(mask) }
}

/// Decodes a scan of a sequential frame, whose blocks are complete and become samples at once.
pub(super) fn decode(frame: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    frame.advance(scan)?;
    let parts = scan.parts();
    let first = parts.first().ok_or_else(|| undecodable("a jpeg scan has no components"))?;
    let mut sources = [(first.component, needed(&tables.dc, first.dc)?, needed(&tables.ac, first.ac)?); 4];
    for (source, part) in sources.iter_mut().zip(parts) {
        *source = (part.component, needed(&tables.dc, part.dc)?, needed(&tables.ac, part.ac)?);
    }
    each_block(frame, scan, tables.restart_interval, data, |frame, bits, prediction, place| {
        let (component, dc_table, ac_table) = sources[place.part];
        let mut coefficients = [0i16; 64];
        let mask = block(bits, dc_table, ac_table, prediction, &mut coefficients)?;
        let range = frame.range;
        let component = &mut frame.components[component];
        let stride = 8 * component.stride;
        let plane = &mut component.plane[8 * (place.line * stride + place.column)..];
        if let Some(steps) = &component.steps {
            idct::block(&coefficients, mask, steps, range, plane, stride);
        }
        Ok(())
    })
}
