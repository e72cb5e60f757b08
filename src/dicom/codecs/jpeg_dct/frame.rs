//! The frame: its components, their blocks, and which of their coefficients the scans have delivered so far.

use zeroize::Zeroizing;

use super::idct::{Range, Steps};
use super::{idct, undecodable, unsupported, zeros};
use crate::dicom::codecs::jpeg_markers::{FrameHeader, Scan};
use crate::error::Result;

/// No scan has coded the coefficient yet; any other entry of [`Component::known`] is the bit position (Al) still missing.
const NEVER: u8 = u8::MAX;

/// Visits of blocks in scans of refinement: encoders need at most 13 per block and band, and have few bands.
const VISITS_PER_BLOCK: usize = 64;

/// What any frame may use, however small: a fraction of a second.
const VISITS_OF_ANY_FRAME: usize = 1 << 26;

/// One component of the frame (T.81 A.1.1): its geometry and what is decoded of it.
pub(super) struct Component {
    /// Ci: the name that scan headers use.
    pub identifier: u8,
    /// Hi and Vi: blocks per MCU, across and down.
    pub h: usize,
    pub v: usize,
    /// Tqi: destination of the quantisation table.
    pub table: usize,
    /// The quantisation table, once a scan has coded the component.
    pub steps: Option<Steps>,
    /// Samples that the component really has (xi and yi).
    pub width: usize,
    pub height: usize,
    /// Blocks that hold those samples: the blocks of a scan of this component alone (A.2.2).
    pub blocks_wide: usize,
    pub blocks_high: usize,
    /// Blocks stored per line: whole MCUs, as interleaved scans code them (A.2.3).
    pub stride: usize,
    /// Samples, `8 * stride` to the line.
    pub plane: Zeroizing<Vec<u16>>,
    /// Coefficients in zigzag order, 64 to the block. Empty in a sequential frame, whose blocks are transformed as they come.
    pub coefficients: Zeroizing<Vec<i16>>,
    /// One word per block: bit k is set where coefficient k is not zero. Scans of refinement visit only these, and the bulk of
    /// a run of blocks without any is passed at the speed of memory.
    pub masks: Zeroizing<Vec<u64>>,
    /// Per coefficient, how far the scans have come.
    pub known: [u8; 64],
}

/// The frame.
pub(super) struct Frame {
    pub progressive: bool,
    pub precision: u32,
    pub columns: usize,
    pub rows: usize,
    /// Hmax and Vmax.
    pub h_max: usize,
    pub v_max: usize,
    pub mcus_wide: usize,
    pub mcus_high: usize,
    pub range: Range,
    /// How many blocks scans of refinement may still visit. A run of blocks costs a few bits however long it is, so without a bound
    /// a short stream could have a large frame passed thousands of times.
    visits: usize,
    pub components: Vec<Component>,
}

impl Frame {
    /// Lays the frame out and allocates its planes. `stream` is the length of the whole stream in bytes: every block costs at
    /// least one bit of it, so a header that claims more blocks is refused before anything of their size exists.
    pub fn new(header: &FrameHeader, progressive: bool, stream: usize) -> Result<Frame> {
        let h_max = header.components.iter().map(|c| c.h).max().unwrap_or(1);
        let v_max = header.components.iter().map(|c| c.v).max().unwrap_or(1);
        let (columns, rows) = (header.columns as usize, header.rows as usize);
        let (mcus_wide, mcus_high) = (columns.div_ceil(8 * h_max), rows.div_ceil(8 * v_max));
        let mut blocks = 0usize;
        let mut components = Vec::with_capacity(header.components.len());
        for c in &header.components {
            if h_max % c.h != 0 || v_max % c.v != 0 {
                return Err(unsupported("the sampling factors of a jpeg frame are no multiples of each other"));
            }
            // A.1.1: the component's size is the frame's in proportion to the factors, rounded up.
            let (width, height) = ((columns * c.h).div_ceil(h_max), (rows * c.v).div_ceil(v_max));
            let (blocks_wide, blocks_high) = (width.div_ceil(8), height.div_ceil(8));
            blocks = blocks.saturating_add(blocks_wide.saturating_mul(blocks_high));
            components.push(Component {
                identifier: c.identifier,
                h: c.h,
                v: c.v,
                table: c.table,
                steps: None,
                width,
                height,
                blocks_wide,
                blocks_high,
                stride: mcus_wide * c.h,
                plane: Zeroizing::default(),
                coefficients: Zeroizing::default(),
                masks: Zeroizing::default(),
                known: [NEVER; 64],
            });
        }
        if blocks / 8 > stream {
            return Err(undecodable("a jpeg frame is too short for its size"));
        }
        for component in &mut components {
            let stored = component.stride.checked_mul(mcus_high * component.v);
            let cells = stored.and_then(|blocks| blocks.checked_mul(64));
            component.plane = zeros(cells)?;
            if progressive {
                component.coefficients = zeros(cells)?;
                component.masks = zeros(stored)?;
            }
        }
        let range = Range::new(header.precision);
        let (precision, visits) = (header.precision, blocks.saturating_mul(VISITS_PER_BLOCK).max(VISITS_OF_ANY_FRAME));
        Ok(Frame { progressive, precision, columns, rows, h_max, v_max, mcus_wide, mcus_high, range, visits, components })
    }

    /// Takes the blocks of a scan of refinement off the allowance.
    pub fn visit(&mut self, blocks: usize) -> Result<()> {
        let left = self.visits.checked_sub(blocks);
        self.visits = left.ok_or_else(|| unsupported("a jpeg frame is refined in too many scans for its size"))?;
        Ok(())
    }

    /// Notes what a scan is about to code, and refuses it where that does not continue what came before: each coefficient is coded
    /// once, and in a progressive frame then refined one bit at a time (T.81 G.1.1.1).
    pub fn advance(&mut self, scan: &Scan) -> Result<()> {
        for part in scan.parts() {
            for known in &mut self.components[part.component].known[scan.ss..=scan.se] {
                let expected = if scan.ah == 0 { NEVER } else { scan.ah };
                if *known != expected {
                    return Err(undecodable("a jpeg scan does not continue the scans before it"));
                }
                *known = scan.al;
            }
        }
        Ok(())
    }

    /// Checks that the scans have delivered every bit of every coefficient, and transforms the blocks of a progressive frame.
    pub fn finish(&mut self) -> Result<()> {
        for component in &mut self.components {
            if component.known.iter().any(|&missing| missing != 0) {
                return Err(undecodable("a jpeg frame lacks some of its scans"));
            }
            let Some(steps) = &component.steps else { return Err(undecodable("a jpeg frame lacks some of its scans")) };
            if !self.progressive {
                continue;
            }
            let stride = 8 * component.stride;
            let lines = component.plane.chunks_exact_mut(8 * stride);
            let masks = component.masks.chunks_exact(component.stride);
            let coefficients = component.coefficients.chunks_exact(64 * component.stride);
            for ((line, masks), coefficients) in lines.zip(masks).zip(coefficients) {
                for (index, (mask, block)) in masks.iter().zip(coefficients.as_chunks::<64>().0).enumerate() {
                    idct::block(block, *mask, steps, self.range, &mut line[8 * index..], stride);
                }
            }
        }
        Ok(())
    }
}
