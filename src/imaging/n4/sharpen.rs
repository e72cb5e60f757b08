//! Sharpening: the histogram of the log image, deconvolved by Wiener's filter, and the expectation E(u|v) that follows from it.
//!
//! After Sled, Zijdenbos and Evans (1998), in ITK's form: triangular Parzen windows, padding to the power of two after the next, a Gaussian
//! bias histogram of given width, negative densities cut off. Voxels are filed by fixed-point numbers (bin and fraction in 23 bits), so the
//! histogram is a sum of integers: exact, and the same for any order of adding.

use std::f64::consts::{LN_2, PI};

/// Most bins. With fewer than 13 fraction bits per bin the fixed-point numbers would become coarse.
pub(super) const MOST_BINS: usize = 1024;
/// Bits of a fixed-point number: what the mantissa of a float near 2²³ holds.
const CODE_BITS: u32 = 23;
/// Adding this to a float between 0 and 2²³ rounds it to a whole number, which then stands in the mantissa.
const ROUND: f32 = 8_388_608.0;
/// Place of the count in a histogram cell; below it stands the sum of the fractions.
const COUNT_SHIFT: u32 = 42;
/// Voxels that a histogram's cell can take before the fractions reach the count.
const MOST_PENDING: usize = 1 << 18;
/// Values whose codes are made at a time.
const CHUNK: usize = 512;
/// Side-by-side histograms: neighbours often fall in the same bin, and adding to it twice in a row would wait for memory.
const COPIES: usize = 4;

/// Where values lie on the bins: from the smallest value to the largest.
#[derive(Clone, Copy)]
pub(super) struct Bins {
    low: f32,
    scale: f32,
    bins: usize,
    shift: u32,
    slope: f64,
}

impl Bins {
    /// `bins` (2 to [`MOST_BINS`]) from `low` to `high`; `None` unless `high` is above `low` by more than rounding.
    pub fn new(low: f32, high: f32, bins: usize) -> Option<Bins> {
        let range = f64::from(high) - f64::from(low);
        let slope = range / (bins - 1) as f64;
        let shift = CODE_BITS - bins.next_power_of_two().ilog2();
        let scale = (f64::from(1u32 << shift) / slope) as f32;
        (range > 0.0 && scale.is_finite()).then_some(Bins { low, scale, bins, shift, slope })
    }

    /// Fixed-point place of a value on the bins.
    #[inline(always)]
    fn code(&self, value: f32) -> u32 {
        ((value - self.low) * self.scale + ROUND).to_bits() & ((1 << CODE_BITS) - 1)
    }
}

/// Voxels by bin, with the sum of their fractions.
pub(super) struct Counts {
    bins: Vec<(u64, u64)>,
}

impl Counts {
    /// None yet.
    pub fn new(bins: &Bins) -> Counts {
        Counts { bins: vec![(0, 0); bins.bins] }
    }

    /// Both together.
    pub fn merge(mut self, other: Counts) -> Counts {
        for (sum, more) in self.bins.iter_mut().zip(other.bins) {
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
        self
    }

    /// Parzen density: each voxel shared between its bin and the next by its fraction.
    fn density(&self, bins: &Bins) -> Vec<f64> {
        let unit = 1.0 / f64::from(1u32 << bins.shift);
        let mut density = vec![0.0; bins.bins];
        for (bin, (count, fractions)) in self.bins.iter().enumerate() {
            let upper = *fractions as f64 * unit;
            density[bin] += *count as f64 - upper;
            // Past the last bin there is nothing: what rounding puts there belongs to the last one.
            density[(bin + 1).min(bins.bins - 1)] += upper;
        }
        density
    }
}

/// Counts under way: a cell holds a bin's count and, below it, the sum of its fractions, so that a voxel is filed by one addition.
pub(super) struct Histogram {
    bins: Bins,
    cells: Box<[[u64; MOST_BINS]; COPIES]>,
    pending: usize,
    counts: Counts,
}

impl Histogram {
    /// Empty.
    pub fn new(bins: Bins) -> Histogram {
        Histogram { bins, cells: Box::new([[0; MOST_BINS]; COPIES]), pending: 0, counts: Counts::new(&bins) }
    }

    /// Files values that lie within the bins' range.
    pub fn add(&mut self, values: &[f32]) {
        let (bins, shift, mask) = (self.bins, self.bins.shift, (1u32 << self.bins.shift) - 1);
        let mut codes = [0u32; CHUNK];
        for values in values.chunks(CHUNK) {
            if self.pending + values.len() > MOST_PENDING {
                self.flush();
            }
            self.pending += values.len();
            // Codes first, in a loop of their own: that part is vectorised, the filing cannot be.
            let codes = &mut codes[..values.len()];
            for (code, value) in codes.iter_mut().zip(values) {
                *code = bins.code(*value);
            }
            let mut file = |copy: usize, code: u32| {
                let cell = &mut self.cells[copy][(code >> shift) as usize & (MOST_BINS - 1)];
                *cell = cell.wrapping_add((1 << COUNT_SHIFT) | u64::from(code & mask));
            };
            let (fours, rest) = codes.as_chunks::<COPIES>();
            for four in fours {
                for (copy, code) in four.iter().enumerate() {
                    file(copy, *code);
                }
            }
            for code in rest {
                file(0, *code);
            }
        }
    }

    /// The counts of all that was filed.
    pub fn finish(mut self) -> Counts {
        self.flush();
        self.counts
    }

    fn flush(&mut self) {
        for copy in self.cells.iter_mut() {
            for (sum, cell) in self.counts.bins.iter_mut().zip(copy) {
                *sum = (sum.0 + (*cell >> COUNT_SHIFT), sum.1 + (*cell & ((1 << COUNT_SHIFT) - 1)));
                *cell = 0;
            }
        }
        self.pending = 0;
    }
}

/// Residual of a value: what lies between it and its expectation, by a straight line within each bin.
pub(super) struct Residual {
    bins: Bins,
    lines: Box<[[f32; 2]; MOST_BINS]>,
}

impl Residual {
    /// From the counts in these bins, the Wiener filter's noise and the full width at half maximum of the bias histogram.
    pub fn new(bins: Bins, counts: &Counts, noise: f64, fwhm: f64) -> Residual {
        let expected = expectation(&counts.density(&bins), f64::from(bins.low), bins.slope, noise, fwhm);
        let unit = 1.0 / f64::from(1u32 << bins.shift);
        let mut lines = Box::new([[0.0; 2]; MOST_BINS]);
        for (bin, line) in lines.iter_mut().enumerate().take(bins.bins) {
            let here = expected[bin];
            let next = expected.get(bin + 1);
            let rise = next.map_or(0.0, |next| bins.slope - (next - here));
            *line = [(f64::from(bins.low) + bin as f64 * bins.slope - here) as f32, (rise * unit) as f32];
        }
        Residual { bins, lines }
    }

    /// Residuals of values that lie within the bins' range.
    pub fn of(&self, values: &[f32], residuals: &mut [f32]) {
        let (shift, mask) = (self.bins.shift, (1u32 << self.bins.shift) - 1);
        let mut places = [0u32; CHUNK];
        for (residuals, values) in residuals.chunks_mut(CHUNK).zip(values.chunks(CHUNK)) {
            for ((residual, place), value) in residuals.iter_mut().zip(&mut places).zip(values) {
                let code = self.bins.code(*value);
                *place = code >> shift;
                *residual = (code & mask).cast_signed() as f32;
            }
            for (residual, place) in residuals.iter_mut().zip(&places) {
                let [start, rise] = self.lines[*place as usize & (MOST_BINS - 1)];
                *residual = start + rise * *residual;
            }
        }
    }
}

/// E(u|v) at each bin of a density whose first bin stands for `low` and whose bins are `slope` apart.
fn expectation(density: &[f64], low: f64, slope: f64, noise: f64, fwhm: f64) -> Vec<f64> {
    let size = 2 * density.len().next_power_of_two();
    let offset = (size - density.len()) / 2;
    let fft = Fft::new(size);

    // The bias histogram: a Gaussian, centred on 0 and wrapped round. It is even, so its transform is real.
    let width = fwhm / slope;
    let (factor, height) = (4.0 * LN_2 / (width * width), 2.0 * (LN_2 / PI).sqrt() / width);
    let mut gaussian: Vec<[f64; 2]> =
        (0..size).map(|n| (n.min(size - n) as f64).powi(2)).map(|square| [height * (-square * factor).exp(), 0.0]).collect();
    fft.transform(&mut gaussian, false);

    let mut sharp = vec![[0.0; 2]; size];
    for (value, density) in sharp[offset..].iter_mut().zip(density) {
        value[0] = *density;
    }
    fft.transform(&mut sharp, false);
    for (value, [g, _]) in sharp.iter_mut().zip(&gaussian) {
        let wiener = g / (g * g + noise);
        *value = value.map(|part| part * wiener);
    }
    fft.transform(&mut sharp, true);

    // Both sides of the quotient are real: numerator and denominator travel as the two parts of one number.
    for (n, value) in sharp.iter_mut().enumerate() {
        let density = value[0].max(0.0);
        *value = [(low + (n as f64 - offset as f64) * slope) * density, density];
    }
    fft.transform(&mut sharp, false);
    for (value, [g, _]) in sharp.iter_mut().zip(&gaussian) {
        *value = value.map(|part| part * g);
    }
    fft.transform(&mut sharp, true);
    sharp[offset..offset + density.len()].iter().map(|[n, d]| if *d == 0.0 { 0.0 } else { n / d }).collect()
}

/// A Fourier transform of a power of two, unscaled both ways: every use here is a quotient or is compared with 0.
struct Fft {
    turns: Vec<[f64; 2]>,
}

impl Fft {
    fn new(size: usize) -> Fft {
        let turn = |n: usize| {
            let (sin, cos) = (2.0 * PI * n as f64 / size as f64).sin_cos();
            [cos, -sin]
        };
        Fft { turns: (0..size / 2).map(turn).collect() }
    }

    /// Radix 2, decimation in time.
    fn transform(&self, data: &mut [[f64; 2]], backward: bool) {
        let size = data.len();
        let unused = usize::BITS - size.ilog2();
        for n in 0..size {
            let mirrored = n.reverse_bits() >> unused;
            if n < mirrored {
                data.swap(n, mirrored);
            }
        }
        let sign = if backward { -1.0 } else { 1.0 };
        let mut half = 1;
        while half < size {
            let stride = size / (2 * half);
            for block in data.chunks_exact_mut(2 * half) {
                let (evens, odds) = block.split_at_mut(half);
                for ((even, odd), [c, s]) in evens.iter_mut().zip(odds).zip(self.turns.iter().step_by(stride)) {
                    let s = s * sign;
                    let turned = [odd[0] * c - odd[1] * s, odd[0] * s + odd[1] * c];
                    *odd = [even[0] - turned[0], even[1] - turned[1]];
                    *even = [even[0] + turned[0], even[1] + turned[1]];
                }
            }
            half *= 2;
        }
    }
}
