//! Cubic B-spline lattices over a regular grid, one axis at a time.
//!
//! ITK fits scattered points (Lee, Wolberg and Shin 1997): a voxel with residual r adds b³ r / Σb² to the numerator and b² to the
//! denominator of each of its 64 control points, where b = bx·by·bz. On a grid Σb² = Sx·Sy·Sz, so both sums are products of one factor per
//! axis, tabulated here once per level. A row is contracted by four dot products per span, rows along y and slices along z on what is left.
//!
//! A lattice of n control points has n - 3 spans, stretched from the first voxel's centre to the last one's.

/// Taps of a cubic B-spline.
pub(super) const TAPS: usize = 4;
/// The last voxel lies exactly on the end of the last span; ITK moves it this fraction of a voxel inwards (`BSplineEpsilon`).
const EPSILON: f64 = 1e-3;
/// Independent partial sums, so that the compiler can add side by side.
pub(super) const LANES: usize = 8;

/// A lattice of control points: x fastest, then y, then z.
#[derive(Clone, Debug, PartialEq)]
pub struct Lattice {
    size: [usize; 3],
    values: Vec<f64>,
}

impl Lattice {
    /// Zeros.
    pub(super) fn new(size: [usize; 3]) -> Lattice {
        Lattice { size, values: vec![0.0; size.iter().product()] }
    }

    /// Control points along x, y, z; each at least 4.
    pub fn size(&self) -> [usize; 3] {
        self.size
    }

    /// Control values, natural logarithms: x fastest, then y, then z.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Adds numerator / denominator. Control points that no voxel reaches stay: ITK takes a float sum within a tenth of its machine
    /// epsilon for zero.
    pub(super) fn add_quotient(&mut self, numerator: &[f64], denominator: &[f64]) {
        let least = 0.1 * f64::from(f32::EPSILON);
        for ((value, n), d) in self.values.iter_mut().zip(numerator).zip(denominator) {
            if *d > least {
                *value += n / d;
            }
        }
    }

    /// The same function with every span halved: n points become 2n - 3.
    pub(super) fn refined(&self) -> Lattice {
        let mut lattice = self.clone();
        for axis in 0..3 {
            lattice = lattice.refined_along(axis);
        }
        lattice
    }

    fn refined_along(&self, axis: usize) -> Lattice {
        let mut size = self.size;
        size[axis] = 2 * size[axis] - 3;
        let stride: usize = self.size[..axis].iter().product();
        let (len, new_len) = (self.size[axis], size[axis]);
        let mut out = Lattice::new(size);
        let blocks = self.values.chunks_exact(stride * len).zip(out.values.chunks_exact_mut(stride * new_len));
        for (from, to) in blocks {
            for index in 0..new_len {
                let half = index / 2;
                for inner in 0..stride {
                    let at = |offset: usize| from[(half + offset) * stride + inner];
                    to[index * stride + inner] =
                        if index.is_multiple_of(2) { 0.5 * (at(0) + at(1)) } else { 0.125 * (at(0) + 6.0 * at(1) + at(2)) };
                }
            }
        }
        out
    }

    /// The lattice at slice `z`: control points along x (fastest) and y.
    pub(super) fn plane(&self, axis: &Axis, z: usize) -> Vec<f64> {
        let area = self.size[0] * self.size[1];
        let tap = &axis.taps[z];
        let mut plane = vec![0.0; area];
        for (k, weight) in tap.basis.iter().enumerate() {
            let start = (tap.first + k) * area;
            for (value, control) in plane.iter_mut().zip(&self.values[start..start + area]) {
                *value += weight * control;
            }
        }
        plane
    }
}

/// A plane of control points at row `y`, as one cubic polynomial per span of x.
pub(super) fn row_cubics(plane: &[f64], axis: &Axis, y: usize, cubics: &mut Vec<[f32; TAPS]>) {
    let tap = &axis.taps[y];
    let width = plane.len() / axis.points();
    let at = |x: usize| -> f64 { (0..TAPS).map(|k| tap.basis[k] * plane[(tap.first + k) * width + x]).sum() };
    let mut q = [0.0, at(0), at(1), at(2)];
    cubics.clear();
    for x in 3..width {
        q = [q[1], q[2], q[3], at(x)];
        cubics.push(
            [
                (q[0] + 4.0 * q[1] + q[2]) / 6.0,
                (q[2] - q[0]) / 2.0,
                (q[0] - 2.0 * q[1] + q[2]) / 2.0,
                (q[3] - q[0] + 3.0 * (q[1] - q[2])) / 6.0,
            ]
            .map(|c| c as f32),
        );
    }
}

/// Values of a span's cubic at the places `local`, 0 to 1.
pub(super) fn evaluate(c: &[f32; TAPS], local: &[f32], out: &mut [f32]) {
    for (value, t) in out.iter_mut().zip(local) {
        *value = ((c[3] * t + c[2]) * t + c[1]) * t + c[0];
    }
}

/// Weights of one voxel along one axis.
pub(super) struct Tap {
    /// First of the four control points.
    pub first: usize,
    /// B-spline weights b.
    pub basis: [f64; TAPS],
    /// b³ / Σb²: weights of a residual.
    pub fit: [f64; TAPS],
    /// b²: weights of the denominator.
    pub square: [f64; TAPS],
}

/// Voxels of an axis that share their control points.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// First voxel.
    pub start: usize,
    /// One past the last voxel.
    pub end: usize,
    /// First control point.
    pub first: usize,
}

/// Tables of one axis at one level.
pub(super) struct Axis {
    spans: usize,
    /// Per voxel.
    pub taps: Vec<Tap>,
    /// Runs of voxels with the same control points, in order; none is empty.
    pub runs: Vec<Span>,
    /// Place of each voxel within its span, 0 to 1.
    pub local: Vec<f32>,
    /// [`Tap::fit`] per tap, along the axis.
    pub fit: [Vec<f32>; TAPS],
    /// Running sums of [`Tap::square`] per tap: entry n is the sum over the voxels before n.
    pub square_sums: [Vec<f64>; TAPS],
}

impl Axis {
    /// Tables for `len` voxels (at least 2) under `points` control points (at least 4).
    pub fn new(len: usize, points: usize) -> Axis {
        let spans = points - (TAPS - 1);
        let step = spans as f64 / (len - 1) as f64;
        let mut axis = Axis {
            spans,
            taps: Vec::with_capacity(len),
            runs: Vec::new(),
            local: Vec::with_capacity(len),
            fit: Default::default(),
            square_sums: std::array::from_fn(|_| vec![0.0]),
        };
        for index in 0..len {
            let place = if index + 1 == len { spans as f64 - EPSILON * step } else { (spans * index) as f64 / (len - 1) as f64 };
            let first = (place as usize).min(spans - 1);
            let t = place - first as f64;
            let s = 1.0 - t;
            let basis = [
                s * s * s / 6.0,
                (3.0 * t * t * t - 6.0 * t * t + 4.0) / 6.0,
                (3.0 * s * s * s - 6.0 * s * s + 4.0) / 6.0,
                t * t * t / 6.0,
            ];
            let square = basis.map(|b| b * b);
            let total: f64 = square.iter().sum();
            let fit = basis.map(|b| b * b * b / total);
            for k in 0..TAPS {
                axis.fit[k].push(fit[k] as f32);
                let before = axis.square_sums[k][index];
                axis.square_sums[k].push(before + square[k]);
            }
            axis.local.push(t as f32);
            axis.taps.push(Tap { first, basis, fit, square });
            match axis.runs.last_mut() {
                Some(run) if run.first == first => run.end = index + 1,
                _ => axis.runs.push(Span { start: index, end: index + 1, first }),
            }
        }
        axis
    }

    /// Control points.
    pub fn points(&self) -> usize {
        self.spans + TAPS - 1
    }

    /// Calls `each` with the parts of the voxels `start..end` that share their control points.
    #[inline(always)]
    pub fn pieces(&self, start: usize, end: usize, mut each: impl FnMut(usize, usize, usize)) {
        let skip = self.taps.get(start).map_or(0, |tap| self.runs.partition_point(|run| run.first < tap.first));
        for run in &self.runs[skip..] {
            if run.start >= end {
                break;
            }
            each(run.start.max(start), run.end.min(end), run.first);
        }
    }

    /// Adds to a row of control points what the residuals of the voxels `start..` are worth to each.
    pub fn add_row(&self, start: usize, residuals: &[f32], row: &mut [f64]) {
        self.pieces(start, start + residuals.len(), |from, to, first| {
            let products = dots(&residuals[from - start..to - start], self.fit.each_ref().map(|weights| &weights[from..to]));
            for (sum, product) in row[first..first + TAPS].iter_mut().zip(products) {
                *sum += f64::from(product);
            }
        });
    }

    /// Adds to a row of control points the denominator of the voxels `start..end`.
    pub fn add_squares(&self, start: usize, end: usize, row: &mut [f64]) {
        self.pieces(start, end, |from, to, first| {
            for (sum, sums) in row[first..first + TAPS].iter_mut().zip(&self.square_sums) {
                *sum += sums[to] - sums[from];
            }
        });
    }
}

/// Adds a row (or plane) of control points to the four of the next axis that a voxel of it reaches.
pub(super) fn spread(row: &[f64], first: usize, weights: &[f64; TAPS], into: &mut [f64]) {
    let targets = into[first * row.len()..].chunks_exact_mut(row.len());
    for (weight, target) in weights.iter().zip(targets) {
        for (sum, value) in target.iter_mut().zip(row) {
            *sum += weight * value;
        }
    }
}

/// Dot products over at most a row of voxels, for which f32 partial sums are exact enough; their order is fixed. All four at once: none
/// waits for its own last addition, and values are read once.
fn dots(values: &[f32], weights: [&[f32]; TAPS]) -> [f32; TAPS] {
    let mut sums = [[0.0f32; LANES]; TAPS];
    let (values, value_rest) = values.as_chunks::<LANES>();
    let [a, b, c, d] = weights.map(|weights| weights.as_chunks::<LANES>().0);
    for ((((value, a), b), c), d) in values.iter().zip(a).zip(b).zip(c).zip(d) {
        for (sums, weights) in sums.iter_mut().zip([a, b, c, d]) {
            for lane in 0..LANES {
                sums[lane] += value[lane] * weights[lane];
            }
        }
    }
    for (sums, weights) in sums.iter_mut().zip(weights) {
        for ((sum, value), weight) in sums.iter_mut().zip(value_rest).zip(weights.as_chunks::<LANES>().1) {
            *sum += value * weight;
        }
    }
    sums.map(total)
}

/// Sum of the lanes, in pairs: a chain of eight would wait seven times for the one before.
pub(super) fn total(s: [f32; LANES]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}
