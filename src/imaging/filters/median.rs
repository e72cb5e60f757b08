//! Median filter: every voxel becomes the median of the box around it (J. W. Tukey, Exploratory Data Analysis, 1977), exactly.
//!
//! Beyond its faces the volume is continued with its outermost voxels (zero flux, scipy's mode `nearest`), as in ITK's
//! MedianImageFilter. A radius of 0 along an axis takes the median within planes across it.
//!
//! Radii up to 1 go through a network of comparisons, the same for every voxel, so that the compiler does several voxels at once: the three
//! voxels across each slice are sorted, then the three of these across each row, then across each column, which leaves a cube that ascends
//! along all three axes. Of its 27 cells 19 can hold the median, and a network of 32 comparisons picks it; a test runs it on all 980 cubes of zeros and ones
//! that ascend so, which proves it for all numbers (the 0-1 principle: D. E. Knuth, TAOCP volume 3, 5.3.4).
//!
//! Larger radii slide a set of ranks: voxels of a tile are ranked once, the window is a set of bits by rank, and the median's place in it
//! moves a little from voxel to voxel (after T. S. Huang et al., IEEE TASSP 27(1), 1979, whose set was a histogram).

use rayon::prelude::*;

use super::{Progress, check_volume, pieces, wrong, zeros};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};

/// Largest radius along an axis, in voxels.
pub const LARGEST_RADIUS: usize = 3;
/// Rows of a strip that is filtered as one.
const STRIP: usize = 32;
/// Columns, rows and slices of a tile. With the largest radius around it a tile has 63,000 voxels, whose ranks fit 16 bits.
const TILE: [usize; 3] = [64, 24, 24];
/// Columns that go through the network side by side: a vector of any processor.
const LANES: usize = 4;
/// Words of a set of 16-bit ranks.
const WORDS: usize = 1 << 10;

/// Applies a list of comparisons to cells: the lesser goes to the first place, the greater to the second.
macro_rules! compare {
    ($cells:ident: $(($low:literal, $high:literal)),* $(,)?) => {$(
        let ordered = ascending($cells[$low], $cells[$high]);
        ($cells[$low], $cells[$high]) = ordered;
    )*};
}

/// The median filter over boxes of 2 `radius` + 1 voxels along columns, rows and slices, each radius 0 to 3.
///
/// Takes the memory of the result and a megabyte per thread.
///
/// # Errors
/// [`Kind::VolumeInvalid`] when voxels are NaN or infinite or do not fill the dimensions; [`Kind::InvalidArgument`] for a radius above
/// [`LARGEST_RADIUS`] or three of 0; [`Kind::OutOfMemory`]; [`Kind::Cancelled`].
pub fn filter(voxels: &[f32], dims: [usize; 3], radius: [usize; 3], control: &Control) -> Result<Vec<f32>> {
    if radius.iter().any(|r| *r > LARGEST_RADIUS) || radius == [0; 3] {
        return wrong("a radius lies outside 0 to 3 voxels, or all are 0");
    }
    check_volume(voxels, dims)?;
    // Along an axis of one voxel every voxel of the box counts equally often: the median is that of one of its planes.
    let radius: [usize; 3] = std::array::from_fn(|axis| if dims[axis] > 1 { radius[axis] } else { 0 });
    let mut out = zeros(voxels.len())?;
    if radius.iter().all(|r| *r <= 1) {
        by_network(voxels, dims, radius, &mut out, control)?;
    } else {
        by_ranks(voxels, dims, radius, &mut out, control)?;
    }
    control.progress("preprocess", 1.0);
    Ok(out)
}

/// A row of the volume; rows outside are the nearest inside.
fn row(voxels: &[f32], dims: [usize; 3], y: isize, z: isize) -> &[f32] {
    let clamp = |place: isize, count: usize| place.clamp(0, count as isize - 1) as usize;
    let from = (clamp(z, dims[2]) * dims[1] + clamp(y, dims[1])) * dims[0];
    voxels.get(from..from + dims[0]).unwrap_or_default()
}

/// Radii of 0 and 1. A radius of 0 takes the voxel itself for its neighbours: each value then counts three times, and the median stays.
fn by_network(voxels: &[f32], dims: [usize; 3], radius: [usize; 3], out: &mut [f32], control: &Control) -> Result<()> {
    let strips = dims[1].div_ceil(STRIP);
    let parts = pieces(out, dims, dims[0], strips * dims[2], |[_, y, z]| z * strips + y / STRIP)?;
    let progress = Progress::new(control, parts.len())?;
    let [rx, ry, rz] = radius.map(|r| r as isize);
    let width = dims[0];
    parts.into_par_iter().enumerate().try_for_each_init(Vec::new, |scratch: &mut Vec<f32>, (strip, mut rows)| {
        room(scratch, 9 * width + 9 * (width + 2))?;
        let (sorted, grid) = scratch.split_at_mut(9 * width);
        let (first, z) = ((strip % strips * STRIP) as isize, (strip / strips) as isize);
        let sort = |sorted: &mut [f32], y: isize| {
            if let Some(sorted) = sorted.chunks_exact_mut(3 * width).nth(y.rem_euclid(3) as usize) {
                let (low, rest) = sorted.split_at_mut(width);
                let (middle, high) = rest.split_at_mut(width);
                sort_three(low, middle, high, row(voxels, dims, y, z - rz), row(voxels, dims, y, z), row(voxels, dims, y, z + rz));
            }
        };
        sort(sorted, first - 1);
        sort(sorted, first);
        for (index, out) in rows.iter_mut().enumerate() {
            let y = first + index as isize;
            sort(sorted, y + 1);
            let triple = |y: isize, rank: usize| {
                let from = (3 * y.rem_euclid(3) as usize + rank) * width;
                &sorted[from..from + width]
            };
            for (rank, three) in grid.chunks_exact_mut(3 * (width + 2)).enumerate() {
                let (low, rest) = three.split_at_mut(width + 2);
                let (middle, high) = rest.split_at_mut(width + 2);
                let inner = 1..width + 1;
                sort_three(
                    &mut low[inner.clone()],
                    &mut middle[inner.clone()],
                    &mut high[inner],
                    triple(y - ry, rank),
                    triple(y, rank),
                    triple(y + ry, rank),
                );
                for line in [low, middle, high] {
                    (line[0], line[width + 1]) = (line[1], line[width]);
                }
            }
            let lines: [&[f32]; 9] = std::array::from_fn(|line| &grid[line * (width + 2)..(line + 1) * (width + 2)]);
            if rx == 1 {
                medians(out, lines.map(|line| &line[..width]), lines.map(|line| &line[1..]), lines.map(|line| &line[2..]));
            } else {
                let same = lines.map(|line| &line[1..]);
                medians(out, same, same, same);
            }
        }
        progress.step()
    })
}

/// Room for so many floats, zeros where it is new.
fn room(scratch: &mut Vec<f32>, count: usize) -> Result<()> {
    scratch.try_reserve(count.saturating_sub(scratch.len())).map_err(|_| short())?;
    scratch.resize(count, 0.0);
    Ok(())
}

fn short() -> Error {
    Error::new(Kind::OutOfMemory, "no memory for a tile").at(Stage::Imaging)
}

/// The lesser and the greater, lane by lane. One comparison, so that equal values are neither lost nor doubled, and no rule for NaN, which there is none of.
#[inline(always)]
fn ascending<const N: usize>(a: [f32; N], b: [f32; N]) -> ([f32; N], [f32; N]) {
    let (mut low, mut high) = (a, b);
    for i in 0..N {
        low[i] = if a[i] < b[i] { a[i] } else { b[i] };
        high[i] = if a[i] < b[i] { b[i] } else { a[i] };
    }
    (low, high)
}

/// Sorts three rows voxel by voxel.
#[inline(never)]
fn sort_three(low: &mut [f32], middle: &mut [f32], high: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
    let count = low.len().min(a.len());
    let (low, middle, high) = (&mut low[..count], &mut middle[..count], &mut high[..count]);
    let (a, b, c) = (&a[..count], &b[..count], &c[..count]);
    for i in 0..count {
        let (p, q) = ascending([a[i]], [b[i]]);
        let (q, r) = ascending(q, [c[i]]);
        let (p, q) = ascending(p, q);
        ([low[i]], [middle[i]], [high[i]]) = (p, q, r);
    }
}

/// Medians of a row, given nine rows that ascend in threes and three by three (row 3 j + k is rank j across slices, k across rows), each
/// shifted to the column before, the column itself and the one after.
#[inline(never)]
fn medians(out: &mut [f32], before: [&[f32]; 9], here: [&[f32]; 9], after: [&[f32]; 9]) {
    let whole = out.len() / LANES * LANES;
    let (blocks, rest) = out.split_at_mut(whole);
    for (index, out) in blocks.chunks_exact_mut(LANES).enumerate() {
        out.copy_from_slice(&block_of::<LANES>(index * LANES, &before, &here, &after));
    }
    for (index, out) in rest.iter_mut().enumerate() {
        [*out] = block_of::<1>(whole + index, &before, &here, &after);
    }
}

/// Medians of some columns.
#[inline(always)]
fn block_of<const N: usize>(start: usize, before: &[&[f32]; 9], here: &[&[f32]; 9], after: &[&[f32]; 9]) -> [f32; N] {
    let part = |row: &[f32]| row.get(start..).and_then(|row| row.first_chunk::<N>()).copied().unwrap_or([0.0; N]);
    let mut cells = [[0.0f32; N]; 27];
    for line in 0..9 {
        let (p, q) = ascending(part(before[line]), part(here[line]));
        let (q, r) = ascending(q, part(after[line]));
        let (p, q) = ascending(p, q);
        (cells[line], cells[9 + line], cells[18 + line]) = (p, q, r);
    }
    median(cells)
}

/// The median of a cube that ascends along all axes; cell 9 i + 3 j + k.
#[inline(always)]
fn median<const N: usize>(mut cells: [[f32; N]; 27]) -> [f32; N] {
    compare!(cells: (12, 10), (14, 6), (20, 6), (13, 8), (2, 10), (20, 16), (24, 10), (24, 14), (20, 22), (5, 13), (11, 14), (20, 8), (11, 4), (18, 5), (10, 20), (10, 4), (14, 5), (21, 13), (14, 21), (14, 10), (4, 13), (7, 5), (10, 21), (10, 7), (4, 5), (7, 4), (21, 19), (7, 21), (19, 4), (19, 21), (19, 15), (21, 15));
    cells[21]
}

/// A window's ranks, as bits, and where their median is.
struct Window {
    bits: Box<[u64; WORDS]>,
    /// The word that held the median last, and how many ranks lie in the words before it.
    word: usize,
    before: u32,
}

impl Window {
    fn toggle(&mut self, rank: u16, by: u32) {
        let word = usize::from(rank >> 6);
        self.bits[word] ^= 1 << (rank & 63);
        self.before = self.before.wrapping_add(if word < self.word { by } else { 0 });
    }

    /// Takes some ranks out and puts others in.
    #[inline]
    fn replace(&mut self, places: &[usize], old: &[u16], new: &[u16]) {
        let mut change = 0u32;
        for place in places {
            if let (Some(old), Some(new)) = (old.get(*place), new.get(*place)) {
                let (out, into) = (usize::from(old >> 6), usize::from(new >> 6));
                self.bits[out] ^= 1 << (old & 63);
                self.bits[into] ^= 1 << (new & 63);
                change = change.wrapping_add(u32::from(into < self.word)).wrapping_sub(u32::from(out < self.word));
            }
        }
        self.before = self.before.wrapping_add(change);
    }

    /// The rank that so many ranks of the window lie below.
    fn select(&mut self, wanted: u32) -> usize {
        while self.before > wanted && self.word > 0 {
            self.word -= 1;
            self.before -= self.bits[self.word].count_ones();
        }
        loop {
            let held = self.bits[self.word].count_ones();
            if self.before + held > wanted || self.word == WORDS - 1 {
                break;
            }
            self.before += held;
            self.word += 1;
        }
        let mut bits = self.bits[self.word];
        for _ in self.before..wanted {
            bits &= bits.wrapping_sub(1);
        }
        self.word * 64 + bits.trailing_zeros() as usize
    }

    fn clear(&mut self) {
        self.bits.fill(0);
        self.before = 0;
    }
}

/// What a thread needs for its tiles.
#[derive(Default)]
struct Scratch {
    /// Sortable keys of a tile's voxels with their places, in the order of the volume, then sorted.
    keys: Vec<(u32, u16)>,
    spare: Vec<(u32, u16)>,
    ranks: Vec<u16>,
    window: Window,
}

impl Default for Window {
    fn default() -> Window {
        Window { bits: Box::new([0; WORDS]), word: 0, before: 0 }
    }
}

/// Radii of 2 and 3.
fn by_ranks(voxels: &[f32], dims: [usize; 3], radius: [usize; 3], out: &mut [f32], control: &Control) -> Result<()> {
    let counts: [usize; 3] = std::array::from_fn(|axis| dims[axis].div_ceil(TILE[axis]));
    let tile_of = |[x, y, z]: [usize; 3]| ((z / TILE[2]) * counts[1] + y / TILE[1]) * counts[0] + x / TILE[0];
    let parts = pieces(out, dims, TILE[0], counts.iter().product(), tile_of)?;
    let progress = Progress::new(control, parts.len())?;
    parts.into_par_iter().enumerate().try_for_each_init(Scratch::default, |scratch, (tile, mut rows)| {
        let start = [tile % counts[0] * TILE[0], tile / counts[0] % counts[1] * TILE[1], tile / counts[0] / counts[1] * TILE[2]];
        let size: [usize; 3] = std::array::from_fn(|axis| TILE[axis].min(dims[axis] - start[axis]));
        scratch.rank(voxels, dims, radius, start, size)?;
        scratch.slide(radius, size, &mut rows);
        progress.step()
    })
}

impl Scratch {
    /// Ranks the voxels of a tile and its surroundings.
    fn rank(&mut self, voxels: &[f32], dims: [usize; 3], radius: [usize; 3], start: [usize; 3], size: [usize; 3]) -> Result<()> {
        let whole: [usize; 3] = std::array::from_fn(|axis| size[axis] + 2 * radius[axis]);
        let count = whole.iter().product();
        self.keys.clear();
        self.keys.try_reserve(count).map_err(|_| short())?;
        for z in 0..whole[2] {
            for y in 0..whole[1] {
                let row = row(voxels, dims, (start[1] + y) as isize - radius[1] as isize, (start[2] + z) as isize - radius[2] as isize);
                let columns = (0..whole[0]).map(|x| (start[0] + x).saturating_sub(radius[0]).min(dims[0] - 1));
                let place = self.keys.len();
                self.keys.extend(columns.enumerate().map(|(x, column)| (to_key(row[column]), (place + x) as u16)));
            }
        }
        self.spare.try_reserve(count.saturating_sub(self.spare.len())).map_err(|_| short())?;
        self.spare.resize(count, (0, 0));
        for shift in [0, 11, 22] {
            sort_by_digit(&self.keys, &mut self.spare, shift);
            std::mem::swap(&mut self.keys, &mut self.spare);
        }
        self.ranks.try_reserve(count.saturating_sub(self.ranks.len())).map_err(|_| short())?;
        self.ranks.resize(count, 0);
        for (rank, (_, place)) in self.keys.iter().enumerate() {
            self.ranks[usize::from(*place)] = rank as u16;
        }
        Ok(())
    }

    /// Moves the window along the rows of a tile.
    fn slide(&mut self, radius: [usize; 3], size: [usize; 3], rows: &mut [&mut [f32]]) {
        let stride = size[0] + 2 * radius[0];
        let plane = stride * (size[1] + 2 * radius[1]);
        let length = 2 * radius[0] + 1;
        let wanted = ((length * (2 * radius[1] + 1) * (2 * radius[2] + 1)) / 2) as u32;
        // Where the window's rows begin, counted from its first voxel; 49 at most.
        let mut starts = [0usize; (2 * LARGEST_RADIUS + 1).pow(2)];
        let mut count = 0;
        for (z, y) in (0..=2 * radius[2]).flat_map(|z| (0..=2 * radius[1]).map(move |y| (z, y))) {
            starts[count] = z * plane + y * stride;
            count += 1;
        }
        let starts = &starts[..count];
        for (line, out) in rows.iter_mut().enumerate() {
            let base = line / size[1] * plane + line % size[1] * stride;
            self.window.clear();
            for start in starts {
                self.ranks[base + start..base + start + length].iter().for_each(|rank| self.window.toggle(*rank, 1));
            }
            for (x, out) in out.iter_mut().enumerate() {
                if x > 0 {
                    let (old, new) = (&self.ranks[base + x - 1..], &self.ranks[base + x - 1 + length..]);
                    self.window.replace(starts, old, new);
                }
                *out = from_key(self.keys[self.window.select(wanted)].0);
            }
        }
    }
}

/// A stable counting sort by 11 bits.
fn sort_by_digit(from: &[(u32, u16)], to: &mut [(u32, u16)], shift: u32) {
    let digit = |key: u32| (key >> shift & 0x7ff) as usize;
    let mut places = [0u32; 1 << 11];
    from.iter().for_each(|(key, _)| places[digit(*key)] += 1);
    let mut sum = 0;
    for place in &mut places {
        sum += std::mem::replace(place, sum);
    }
    for entry in from {
        let place = &mut places[digit(entry.0)];
        to[*place as usize] = *entry;
        *place += 1;
    }
}

/// A whole number that sorts as the float does (IEEE 754: flip the sign of positives, all bits of negatives).
fn to_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & 0x7fff_ffff } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_finds_the_median_of_every_ascending_cube_of_zeros_and_ones() {
        let mut cubes = 0;
        // How many zeros stand before the ones in each of the nine columns: 4^9 cubes, of which those count that ascend.
        for code in 0..4u32.pow(9) {
            let zeros = |i: usize, j: usize| code / 4u32.pow((3 * i + j) as u32) % 4;
            let ascends = (0..3).all(|a| (0..2).all(|b| zeros(a, b) >= zeros(a, b + 1) && zeros(b, a) >= zeros(b + 1, a)));
            if ascends {
                let cells: [f32; 27] = std::array::from_fn(|cell| f32::from(u8::from(cell as u32 % 3 >= zeros(cell / 9, cell / 3 % 3))));
                let ones: f32 = cells.iter().sum();
                assert_eq!(median(cells.map(|cell| [cell])), [f32::from(u8::from(ones > 13.0))]);
                cubes += 1;
            }
        }
        assert_eq!(cubes, 980);
    }

    #[test]
    fn a_window_selects_by_rank() {
        let mut window = Window::default();
        for rank in [5u16, 70, 71, 4000, 65_535] {
            window.toggle(rank, 1);
        }
        for (wanted, rank) in [(2, 71), (4, 65_535), (0, 5), (3, 4000), (1, 70)] {
            assert_eq!(window.select(wanted), rank);
        }
        window.toggle(5, u32::MAX);
        assert_eq!(window.select(0), 70);
    }
}
