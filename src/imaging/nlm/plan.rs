//! What a denoising needs to know that is the same for all of its tiles, and how a volume is cut into them.

use super::rows::{Rows, WIDEST};
use super::tile::{Group, Tile, half_offsets};

/// Voxels of a tile, about: with its surroundings and sums it takes one to two megabytes, of which a group of offsets reads a part at a
/// time. Smaller tiles compute more pairs twice.
const TILE_VOXELS: usize = 65_536;
/// Fewest and most rows of a tile along y and along z.
const FEWEST: usize = 4;
const MOST: usize = 16;

/// Numbers of one denoising.
pub(super) struct Plan {
    /// Columns, rows and slices of the volume.
    pub(super) dims: [usize; 3],
    /// Radius of a patch.
    pub(super) patch: usize,
    /// How far from a voxel the centres of the patches lie that its own is compared with.
    pub(super) search: usize,
    /// What voxels are multiplied by: a power of two that brings the largest near 1, so that no square leaves the range of a float.
    pub(super) scale: f32,
    /// Binary logarithm of the weight of a pair of patches, per sum of squared differences of scaled voxels; below 0.
    pub(super) rate: f32,
    /// What is taken from the mean of the squares: 2 sigma², scaled, for Rician noise.
    pub(super) bias: f32,
    /// Offsets that are visited.
    pub(super) groups: Vec<Group>,
    /// Instructions.
    pub(super) rows: Rows,
}

impl Plan {
    /// `sigma` is above 0 and finite, `largest` the largest magnitude of a voxel, `search` no more than a few dozen.
    pub(super) fn new(dims: [usize; 3], patch: usize, search: usize, sigma: f64, is_rician: bool, largest: f32) -> Plan {
        // Far from the ends of the range of exponents, where the reciprocal would be lost: such volumes lose nothing by being scaled less.
        let exponent = if largest > 0.0 { f64::from(largest).log2().floor().clamp(-100.0, 126.0) } else { 0.0 };
        let scale = (-exponent).exp2();
        let variance = (sigma * scale).powi(2);
        let count = (2 * patch + 1).pow(3) as f64;
        // exp(-(mean of squared differences) / (sqrt(2) sigma²)). The limit keeps 0 times the rate at 0 for the least sigma.
        let rate = (-std::f64::consts::LOG2_E / (count * std::f64::consts::SQRT_2 * variance)).max(-1e30);
        let bias = if is_rician { 2.0 * variance } else { 0.0 };
        Plan {
            dims,
            patch,
            search,
            scale: scale as f32,
            rate: rate as f32,
            bias: bias as f32,
            groups: half_offsets(search),
            rows: Rows::detect(),
        }
    }

    /// Where a row begins in the volume.
    pub(super) fn row(&self, y: usize, z: usize) -> usize {
        (z * self.dims[1] + y) * self.dims[0]
    }

    /// Boxes that hold every voxel of the mask, each voxel once: whole rows, a few of them along y and z, cut down to what is masked.
    pub(super) fn tiles(&self, mask: Option<&[u8]>) -> Vec<Tile> {
        let [width, height, depth] = self.dims;
        let wide = width.div_ceil(width.div_ceil(WIDEST).max(1)).max(1);
        let rows = TILE_VOXELS / wide;
        let tall = rows.isqrt().clamp(FEWEST, MOST);
        let deep = (rows / tall).clamp(FEWEST, MOST);
        let mut tiles = Vec::new();
        for z in (0..depth).step_by(deep) {
            for y in (0..height).step_by(tall) {
                for x in (0..width).step_by(wide) {
                    let whole = Tile { start: [x, y, z], size: [wide.min(width - x), tall.min(height - y), deep.min(depth - z)] };
                    tiles.extend(match mask {
                        Some(mask) => self.cut_down(whole, mask),
                        None => Some(whole),
                    });
                }
            }
        }
        tiles
    }

    /// The smallest box within a tile that holds its part of the mask.
    fn cut_down(&self, tile: Tile, mask: &[u8]) -> Option<Tile> {
        let [width, height, depth] = tile.size;
        let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
        for z in tile.start[2]..tile.start[2] + depth {
            for y in tile.start[1]..tile.start[1] + height {
                let row = &mask[self.row(y, z) + tile.start[0]..][..width];
                let ends = (row.iter().position(|m| *m != 0), row.iter().rposition(|m| *m != 0));
                if let (Some(first), Some(last)) = ends {
                    low = [low[0].min(tile.start[0] + first), low[1].min(y), low[2].min(z)];
                    high = [high[0].max(tile.start[0] + last + 1), high[1].max(y + 1), high[2].max(z + 1)];
                }
            }
        }
        (high[0] > 0).then(|| Tile { start: low, size: std::array::from_fn(|axis| high[axis] - low[axis]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(plan: &Plan, tiles: &[Tile]) -> Vec<u8> {
        let mut times = vec![0u8; plan.dims.iter().product()];
        for tile in tiles {
            for z in tile.start[2]..tile.start[2] + tile.size[2] {
                for y in tile.start[1]..tile.start[1] + tile.size[1] {
                    let from = plan.row(y, z) + tile.start[0];
                    times[from..from + tile.size[0]].iter_mut().for_each(|times| *times += 1);
                }
            }
        }
        times
    }

    #[test]
    fn tiles_hold_every_voxel_once() {
        for dims in [[1, 1, 1], [5, 33, 17], [700, 9, 21], [20_000, 5, 5]] {
            let plan = Plan::new(dims, 1, 1, 1.0, false, 1.0);
            assert!(covered(&plan, &plan.tiles(None)).iter().all(|times| *times == 1));
        }
    }

    #[test]
    fn tiles_of_a_mask_hold_it_and_little_else() {
        let plan = Plan::new([40, 40, 40], 1, 2, 1.0, true, 1.0);
        let mut mask = vec![0u8; 64_000];
        for z in 12..30 {
            (9..31).for_each(|y| mask[plan.row(y, z) + 7..plan.row(y, z) + 22].fill(1));
        }
        assert_eq!(covered(&plan, &plan.tiles(Some(&mask))), mask);
        assert!(plan.tiles(Some(&[0; 64_000])).is_empty());
    }

    #[test]
    fn any_finite_volume_has_finite_numbers() {
        for (sigma, largest) in [(1e-300, f32::MAX), (1e-30, 1e-40), (1e38, f32::MAX), (1.0, 0.0)] {
            let plan = Plan::new([9, 9, 9], 1, 2, sigma, true, largest);
            assert!(plan.scale > 0.0 && (1.0 / plan.scale).is_finite() && largest * plan.scale <= 4.0);
            assert!(plan.rate <= 0.0 && plan.rate.is_finite());
        }
    }
}
