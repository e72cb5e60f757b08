//! Scans of progressive frames: spectral selection and successive approximation (T.81 annex G).

use super::frame::Frame;
use super::huffman::{Bits, Table};
use super::scan::{dc, each_block, needed};
use super::{Fault, Scan, Tables, undecodable};
use crate::error::Result;

/// Decodes one scan.
pub(super) fn decode(frame: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    frame.advance(scan)?;
    match (scan.ss, scan.ah) {
        (0, 0) => dc_first(frame, scan, tables, data),
        (0, _) => dc_refinement(frame, scan, tables, data),
        _ => ac(frame, scan, tables, data),
    }
}

/// The upper bits of the DC coefficients (T.81 G.1.2.1): coded as in a sequential frame, then shifted.
fn dc_first(frame: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    let parts = scan.parts();
    let first = parts.first().ok_or_else(|| undecodable("a jpeg scan has no components"))?;
    let mut sources = [(first.component, needed(&tables.dc, first.dc)?); 4];
    for (source, part) in sources.iter_mut().zip(parts) {
        *source = (part.component, needed(&tables.dc, part.dc)?);
    }
    each_block(frame, scan, tables.restart_interval, data, |frame, bits, prediction, place| {
        let (component, table) = sources[place.part];
        let component = &mut frame.components[component];
        let index = place.line * component.stride + place.column;
        component.coefficients[64 * index] = shifted(dc(bits, table, prediction)?, scan.al)?;
        component.masks[index] |= 1;
        Ok(())
    })
}

/// One more bit of the DC coefficients (T.81 G.1.2.1): plain bits without codes. They extend the two's complement, so a bit is set in
/// a negative value as in a positive one.
fn dc_refinement(frame: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    let parts = scan.parts();
    each_block(frame, scan, tables.restart_interval, data, |frame, bits, _, place| {
        if bits.bit()? {
            let component = &mut frame.components[parts[place.part].component];
            let index = place.line * component.stride + place.column;
            component.coefficients[64 * index] |= 1 << scan.al;
        }
        Ok(())
    })
}

/// A value moved up to its bit position.
#[inline(always)]
fn shifted(value: i32, al: u8) -> Result<i16, Fault> {
    // At most 16 bits moved by at most 13.
    i16::try_from(value << al).map_err(|_| Fault::Range)
}

/// A band of AC coefficients of one component, for the first time or refined.
fn ac(frame: &mut Frame, scan: &Scan, tables: &Tables, data: &[u8]) -> Result<usize> {
    let [part] = scan.parts() else { return Err(undecodable("a jpeg scan of ac coefficients has several components")) };
    let table = needed(&tables.ac, part.ac)?;
    let component = &frame.components[part.component];
    let (wide, stride) = (component.blocks_wide, component.stride);
    let total = wide * component.blocks_high;
    if scan.ah > 0 {
        frame.visit(total)?;
    }
    let component = &mut frame.components[part.component];
    let interval = if tables.restart_interval == 0 { total } else { tables.restart_interval };
    let band = Band::new(scan);
    let mut bits = Bits::new(data);
    let (mut next, mut restarts) = (0, 0);
    while next < total {
        if next > 0 {
            bits.restart(restarts).map_err(Fault::error)?;
            restarts += 1;
        }
        let end = total.min(next + interval);
        while next < end {
            let (line, column) = (next / wide, next % wide);
            let index = line * stride + column;
            // One block, and the run of blocks without further coefficients that its code may announce; then on to the next
            // line. Lines keep blocks that only interleaved scans code, so a run goes on line by line.
            let line_end = wide.min(column + (end - next));
            let mut blocks = Blocks {
                coefficients: &mut component.coefficients[64 * index..64 * (index + line_end - column)],
                masks: &mut component.masks[index..index + line_end - column],
            };
            let mut run = 0;
            let mut done = 0;
            while done < blocks.masks.len() && run == 0 {
                run = if scan.ah == 0 {
                    band.first(&mut bits, table, &mut blocks, done).map_err(Fault::error)?
                } else {
                    band.refine(&mut bits, table, &mut blocks, done).map_err(Fault::error)?
                };
                done += 1;
            }
            next += done;
            if run > end - next {
                return Err(Fault::Run.error());
            }
            // Nothing is new in the blocks of a run. A first scan passes them without a look; a refinement corrects what is
            // there already.
            if scan.ah == 0 {
                next += run;
                continue;
            }
            while run > 0 {
                let (line, column) = (next / wide, next % wide);
                let index = line * stride + column;
                let count = run.min(wide - column);
                let mut blocks = Blocks {
                    coefficients: &mut component.coefficients[64 * index..64 * (index + count)],
                    masks: &mut component.masks[index..index + count],
                };
                band.correct_run(&mut bits, &mut blocks).map_err(Fault::error)?;
                next += count;
                run -= count;
            }
        }
    }
    bits.finish().map_err(Fault::error)
}

/// Blocks next to each other on a line.
struct Blocks<'a> {
    coefficients: &'a mut [i16],
    masks: &'a mut [u64],
}

/// A band of coefficients and the bit position that a scan brings.
struct Band {
    ss: u32,
    se: u32,
    al: u8,
    /// The bits of a mask that are in the band.
    mask: u64,
}

impl Band {
    fn new(scan: &Scan) -> Band {
        // 1 <= ss <= se <= 63.
        Band { ss: scan.ss as u32, se: scan.se as u32, al: scan.al, mask: u64::MAX << scan.ss & u64::MAX >> (63 - scan.se) }
    }

    /// The number of blocks behind this one that a code for the end of the band covers (T.81 table G.1): this one is the first.
    #[inline(always)]
    fn end_of_band(bits: &mut Bits, category: u8) -> Result<usize, Fault> {
        let extra = bits.receive(u32::from(category))? as usize;
        Ok((1 << category) + extra - 1)
    }

    /// The band of one block for the first time (T.81 G.1.2.2). Returns the length of the run that follows.
    fn first(&self, bits: &mut Bits, table: &Table, blocks: &mut Blocks, index: usize) -> Result<usize, Fault> {
        let (block, mask) = (&mut blocks.coefficients[64 * index..64 * index + 64], &mut blocks.masks[index]);
        let mut k = self.ss;
        while k <= self.se {
            let symbol = bits.symbol(table)?;
            let (run, category) = (symbol >> 4, symbol & 15);
            if category > 0 {
                k += u32::from(run);
                if k > self.se {
                    return Err(Fault::Run);
                }
                block[k as usize] = shifted(bits.receive_extend(u32::from(category))?, self.al)?;
                *mask |= 1 << k;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                return Band::end_of_band(bits, run);
            }
        }
        if k > self.se + 1 { Err(Fault::Run) } else { Ok(0) }
    }

    /// One more bit of the band of one block (T.81 G.1.2.3). A code tells how many coefficients that are still zero lie before the
    /// next that becomes nonzero; between them lie coefficients that are not zero any more, each with a bit of correction.
    fn refine(&self, bits: &mut Bits, table: &Table, blocks: &mut Blocks, index: usize) -> Result<usize, Fault> {
        let (block, mask) = (&mut blocks.coefficients[64 * index..64 * index + 64], &mut blocks.masks[index]);
        // What is not zero from earlier scans and not corrected yet, and what is zero and not passed yet.
        let mut old = *mask & self.mask;
        let mut zeros = !*mask & self.mask;
        let mut k = self.ss;
        while k <= self.se {
            let symbol = bits.symbol(table)?;
            let (run, category) = (symbol >> 4, symbol & 15);
            let value = match category {
                0 if run < 15 => {
                    let run = Band::end_of_band(bits, run)?;
                    self.correct(bits, block, old)?;
                    return Ok(run);
                }
                0 => 0,
                1 if bits.bit()? => 1 << self.al,
                1 => -(1 << self.al),
                // Only coefficients of magnitude 1 are new at a bit position.
                _ => return Err(Fault::Code),
            };
            for _ in 0..run {
                zeros &= zeros.wrapping_sub(1);
            }
            if zeros == 0 {
                return Err(Fault::Run);
            }
            let place = zeros.trailing_zeros();
            zeros &= zeros - 1;
            let passed = (1u64 << place) - 1;
            self.correct(bits, block, old & passed)?;
            old &= !passed;
            if value != 0 {
                block[place as usize] = value;
                *mask |= 1 << place;
            }
            k = place + 1;
        }
        self.correct(bits, block, old)?;
        Ok(0)
    }

    /// Reads a bit for each of these coefficients, and where it is set moves the coefficient away from zero.
    #[inline(always)]
    fn correct(&self, bits: &mut Bits, block: &mut [i16], mut which: u64) -> Result<(), Fault> {
        while which != 0 {
            let k = which.trailing_zeros() as usize;
            which &= which - 1;
            if bits.bit()? {
                // The bit is free in a magnitude that earlier scans gave, so this stays within 16 bits; a shift at the very end
                // of the range may not, and then wraps.
                let step = 1i16 << self.al;
                block[k] = block[k].wrapping_add(if block[k] < 0 { -step } else { step });
            }
        }
        Ok(())
    }

    /// Corrects the blocks of a run.
    fn correct_run(&self, bits: &mut Bits, blocks: &mut Blocks) -> Result<(), Fault> {
        for (block, mask) in blocks.coefficients.chunks_exact_mut(64).zip(blocks.masks.iter()) {
            let old = mask & self.mask;
            if old != 0 {
                self.correct(bits, block, old)?;
            }
        }
        Ok(())
    }
}
