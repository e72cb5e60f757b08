//! The arithmetic of non-local means on rows: every loop over voxels that takes time.
//!
//! Each function is compiled twice where the processor is x86-64, for the instructions that every such processor has and for AVX2 with FMA,
//! and [`Rows`] picks once. Every operation is one of IEEE 754, element by element and in the order in which it stands here, fused
//! multiply-adds among them; a processor without those gets the same bits by [`fused`]'s arithmetic in float64. So a result does not
//! hang on the machine it was computed on, only the time does: what lacks FMA (x86-64 from before 2013) takes some ten times as long.
//!
//! Rows have one constant length in memory, of which the first registers are used: so the compiler knows every distance between rows and
//! needs neither checks nor a pointer for each. Arithmetic is written register by register, as arrays of eight, which it turns into vectors.
//! The functions are not inlined, because arguments are known not to overlap.

/// Floats of a register.
pub(super) const LANES: usize = 8;
/// Most voxels of a tile's row.
pub(super) const WIDEST: usize = 256;
/// Floats from a row's beginning to the next one's: the widest tile, and 16 voxels on each side.
pub(super) const STRIDE: usize = WIDEST + 32;
const REGISTERS: usize = STRIDE / LANES;
/// Rows that are worked on together.
pub(super) const STRIP: usize = 4;
/// Most offsets that are gathered at a time.
pub(super) const MOST_OFFSETS: usize = 5;

/// What a register of AVX2 holds.
type Lanes = [f32; LANES];
/// A row in memory.
pub(super) type Row = [Lanes; REGISTERS];
/// A row, and a register of what follows it: for reading from within.
pub(super) type Longer = [f32; STRIDE + LANES];
/// The rows of a strip, and a register of what follows them.
pub(super) type Columns = [f32; STRIP * STRIDE + LANES];
/// Weights of some offsets, a strip's rows for each.
pub(super) type Weights = [f32; MOST_OFFSETS * STRIP * STRIDE];

/// The first rows of an array; `None` where it is too short.
#[inline(always)]
pub(super) fn first_rows<const N: usize>(floats: &[f32]) -> Option<&[Row; N]> {
    floats.as_chunks::<LANES>().0.as_chunks::<REGISTERS>().0.first_chunk::<N>()
}

/// The first rows of an array; `None` where it is too short.
#[inline(always)]
pub(super) fn first_rows_mut<const N: usize>(floats: &mut [f32]) -> Option<&mut [Row; N]> {
    floats.as_chunks_mut::<LANES>().0.as_chunks_mut::<REGISTERS>().0.first_chunk_mut::<N>()
}

/// Adding this to a float of small size rounds it to a whole number and leaves that number in the lowest bits (1.5 * 2^23).
const ROUNDER: f32 = 12_582_912.0;
/// 2^f for f in -0.5..=0.5, interpolated at Chebyshev's nodes: relative error below 3.6e-6. A mean hardly shows it,
/// because it divides by the weights again.
const EXP2: [f32; 5] = [1.0, 0.693_121, 0.240_223_5, 0.055_921_976, 0.009_666_368];
/// Logarithms below this yield a weight of 1e-18, which no sum of weights can tell from 0, as each contains a 1. Less would make denormal
/// products, and those take many times as long.
const LEAST: f32 = -60.0;

/// Whether multiply-adds are instructions of every processor of this kind.
const IS_FUSED: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Chooses the instructions.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    is_wide: bool,
}

impl Rows {
    /// Asks the processor.
    pub(super) fn detect() -> Rows {
        #[cfg(target_arch = "x86_64")]
        let is_wide = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        #[cfg(not(target_arch = "x86_64"))]
        let is_wide = false;
        Rows { is_wide }
    }

    /// The instructions that every processor has.
    #[cfg(test)]
    pub(super) fn baseline() -> Rows {
        Rows { is_wide: false }
    }
}

/// Declares a method of [`Rows`] that works on the first `count` registers of rows and runs the function of the same name below, compiled for what the processor has.
macro_rules! method {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*)) => {
        impl Rows {
            $(#[$doc])*
            #[allow(unsafe_code, clippy::too_many_arguments)]
            pub(super) fn $name(self, $($argument: $type),*) {
                #[inline(never)]
                fn baseline($($argument: $type),*) {
                    $name::<IS_FUSED>($($argument),*);
                }
                #[cfg(target_arch = "x86_64")]
                if self.is_wide {
                    #[inline(never)]
                    #[target_feature(enable = "avx2,fma")]
                    fn wide($($argument: $type),*) {
                        $name::<true>($($argument),*);
                    }
                    // SAFETY: `is_wide` is set by `detect` alone, which has seen that this processor executes AVX2 and FMA; `wide` asks nothing else.
                    return unsafe { wide($($argument),*) };
                }
                baseline($($argument),*);
            }
        }
    };
}

method! {
    /// out += (a - b)².
    add_squared_differences(out: &mut Row, a: &Row, b: &Row, count: usize)
}
method! {
    /// out += a.
    add(out: &mut Row, a: &Row, count: usize)
}
method! {
    /// Sums of squared differences for four neighbouring rows of a plane. Of the six rows of `a` and of `b` around them, the squared differences
    /// are added up along y into `sums`, and with those of the two planes before along z into `columns`. Planes stand oldest first.
    box_of_four(sums: &mut [Row; 4], columns: &mut [Row; 4], before: &[Row; 4], last: &[Row; 4], a: &[Row; 6], b: &[Row; 6], count: usize)
}
method! {
    /// [`Rows::box_of_four`] for one row.
    box_of_one(sums: &mut [Row; 1], columns: &mut [Row; 1], before: &[Row; 1], last: &[Row; 1], a: &[Row; 3], b: &[Row; 3], count: usize)
}
method! {
    /// Weights of pairs: 2^(rate * s), where s is the sum of the differences i to i + 2. Four rows.
    weights_of_four(weights: &mut [Row; STRIP], differences: &Columns, rate: f32, count: usize)
}
method! {
    /// [`Rows::weights_of_four`] for the first row.
    weights_of_one(weights: &mut [Row; 1], differences: &Columns, rate: f32, count: usize)
}
method! {
    /// Weights of pairs for sums that are made already.
    weights_of_sums(weights: &mut Row, sums: &Row, rate: f32, count: usize)
}
method! {
    /// The first voxels of pairs with one, two, three or five offsets along the row: total += weight and moved += weight * (other² - own²).
    /// `others` begins at the first offset's voxel, `weights` at its weight; the next offset's stand one voxel and one strip on.
    gather(total: &mut Row, moved: &mut Row, own: &Row, weights: &Weights, others: &Longer, offsets: usize, count: usize)
}
method! {
    /// [`Rows::gather`] for the second voxels: `others` begins at the last offset's voxel, `weights` at the first one's weight; the next
    /// offset's weight stands one strip on, less one voxel.
    gather_back(total: &mut Row, moved: &mut Row, own: &Row, weights: &Weights, others: &Longer, offsets: usize, count: usize)
}

/// A register's worth of something.
#[inline(always)]
fn each(of: impl Fn(usize) -> f32) -> Lanes {
    std::array::from_fn(of)
}

/// a * b + c, rounded once.
#[inline(always)]
fn fused<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED {
        return a.mul_add(b, c);
    }
    // The product is exact in float64. The sum is rounded to odd there, so that rounding it again does no harm (Boldo and Melquiond 2008).
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let part = sum - product;
    let rest = (product - (sum - part)) + (c - part);
    let bits = sum.to_bits();
    let odd = if rest == 0.0 || bits & 1 == 1 {
        bits
    } else if (rest > 0.0) == (sum > 0.0) {
        bits + 1
    } else {
        bits - 1
    };
    f64::from_bits(odd) as f32
}

#[inline(always)]
fn add_squared_differences<const FUSED: bool>(out: &mut Row, a: &Row, b: &Row, count: usize) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b).take(count) {
        let difference = each(|l| a[l] - b[l]);
        *out = each(|l| out[l] + difference[l] * difference[l]);
    }
}

#[inline(always)]
fn add<const FUSED: bool>(out: &mut Row, a: &Row, count: usize) {
    for (out, a) in out.iter_mut().zip(a).take(count) {
        *out = each(|l| out[l] + a[l]);
    }
}

#[inline(always)]
fn box_of_four<const FUSED: bool>(
    sums: &mut [Row; 4],
    columns: &mut [Row; 4],
    before: &[Row; 4],
    last: &[Row; 4],
    a: &[Row; 6],
    b: &[Row; 6],
    count: usize,
) {
    box_of(sums, columns, before, last, a, b, count);
}

#[inline(always)]
fn box_of_one<const FUSED: bool>(
    sums: &mut [Row; 1],
    columns: &mut [Row; 1],
    before: &[Row; 1],
    last: &[Row; 1],
    a: &[Row; 3],
    b: &[Row; 3],
    count: usize,
) {
    box_of(sums, columns, before, last, a, b, count);
}

/// `M` is `N` + 2.
#[inline(always)]
fn box_of<const N: usize, const M: usize>(
    sums: &mut [Row; N],
    columns: &mut [Row; N],
    before: &[Row; N],
    last: &[Row; N],
    a: &[Row; M],
    b: &[Row; M],
    count: usize,
) {
    for i in 0..count.min(REGISTERS) {
        let square = |n: usize| -> Lanes {
            let difference = each(|l| a[n][i][l] - b[n][i][l]);
            each(|l| difference[l] * difference[l])
        };
        let (mut first, mut second) = (square(0), square(1));
        for n in 0..N {
            let third = square(n + 2);
            let sum = each(|l| first[l] + second[l] + third[l]);
            columns[n][i] = each(|l| before[n][i][l] + last[n][i][l] + sum[l]);
            sums[n][i] = sum;
            (first, second) = (second, third);
        }
    }
}

#[inline(always)]
fn weights_of_four<const FUSED: bool>(weights: &mut [Row; STRIP], differences: &Columns, rate: f32, count: usize) {
    let (first, second) = weights.split_at_mut(2);
    let later = differences.get(2 * STRIDE..).unwrap_or_default();
    if let (Some(first), Some(second)) = (first.first_chunk_mut(), second.first_chunk_mut()) {
        weights_of::<FUSED, 2>(first, differences, rate, count);
        weights_of::<FUSED, 2>(second, later, rate, count);
    }
}

#[inline(always)]
fn weights_of_one<const FUSED: bool>(weights: &mut [Row; 1], differences: &Columns, rate: f32, count: usize) {
    weights_of::<FUSED, 1>(weights, differences, rate, count);
}

/// Two rows at once: a chain of operations that wait for each other is too long for the processor to look past its end.
#[inline(always)]
fn weights_of<const FUSED: bool, const N: usize>(weights: &mut [Row; N], differences: &[f32], rate: f32, count: usize) {
    let weights = weights.as_flattened_mut().as_flattened_mut();
    let last = (N - 1) * STRIDE + count.min(REGISTERS) * LANES;
    // Three slices, not three places in one: else the compiler shuffles what it has loaded rather than to load it again, which takes longer.
    let (first, second, third) = (&differences[..last], &differences[1..last + 1], &differences[2..last + 2]);
    for i in 0..count.min(REGISTERS) * LANES {
        let exponents: [f32; N] = std::array::from_fn(|n| {
            let place = n * STRIDE + i;
            (first[place] + second[place] + third[place]) * rate
        });
        let powers = exp2::<FUSED, N>(exponents);
        for n in 0..N {
            weights[n * STRIDE + i] = powers[n];
        }
    }
}

#[inline(always)]
fn weights_of_sums<const FUSED: bool>(weights: &mut Row, sums: &Row, rate: f32, count: usize) {
    for (weight, sum) in weights.as_flattened_mut().iter_mut().zip(sums.as_flattened()).take(count * LANES) {
        [*weight] = exp2::<FUSED, 1>([sum * rate]);
    }
}

#[inline(always)]
fn gather<const FUSED: bool>(
    total: &mut Row,
    moved: &mut Row,
    own: &Row,
    weights: &Weights,
    others: &Longer,
    offsets: usize,
    count: usize,
) {
    match offsets {
        5 => gather_of::<FUSED, 5>(total, moved, own, weights, others, count, |n| (n * STRIP * STRIDE, n)),
        3 => gather_of::<FUSED, 3>(total, moved, own, weights, others, count, |n| (n * STRIP * STRIDE, n)),
        2 => gather_of::<FUSED, 2>(total, moved, own, weights, others, count, |n| (n * STRIP * STRIDE, n)),
        _ => gather_of::<FUSED, 1>(total, moved, own, weights, others, count, |n| (n * STRIP * STRIDE, n)),
    }
}

#[inline(always)]
fn gather_back<const FUSED: bool>(
    total: &mut Row,
    moved: &mut Row,
    own: &Row,
    weights: &Weights,
    others: &Longer,
    offsets: usize,
    count: usize,
) {
    match offsets {
        5 => gather_of::<FUSED, 5>(total, moved, own, weights, others, count, |n| (n * (STRIP * STRIDE - 1), 4 - n)),
        3 => gather_of::<FUSED, 3>(total, moved, own, weights, others, count, |n| (n * (STRIP * STRIDE - 1), 2 - n)),
        2 => gather_of::<FUSED, 2>(total, moved, own, weights, others, count, |n| (n * (STRIP * STRIDE - 1), 1 - n)),
        _ => gather_of::<FUSED, 1>(total, moved, own, weights, others, count, |n| (n * (STRIP * STRIDE - 1), n)),
    }
}

/// `places` tells where an offset's weights and voxels begin.
#[inline(always)]
fn gather_of<const FUSED: bool, const N: usize>(
    total: &mut Row,
    moved: &mut Row,
    own: &Row,
    weights: &Weights,
    others: &Longer,
    count: usize,
    places: impl Fn(usize) -> (usize, usize),
) {
    let (total, moved, own) = (total.as_flattened_mut(), moved.as_flattened_mut(), own.as_flattened());
    for i in 0..count.min(WIDEST / LANES) * LANES {
        let square = own[i] * own[i];
        let (mut sum, mut by) = (total[i], moved[i]);
        for n in 0..N {
            let (weight, other) = places(n);
            let (weight, other) = (weights[weight + i], others[other + i]);
            sum += weight;
            by = fused::<FUSED>(weight, other * other - square, by);
        }
        total[i] = sum;
        moved[i] = by;
    }
}

/// 2^y for y up to 0.
#[inline(always)]
fn exp2<const FUSED: bool, const N: usize>(y: [f32; N]) -> [f32; N] {
    // A comparison rather than f32::max, whose rule for NaN costs two instructions; there is no NaN here.
    let y = y.map(|y| if y < LEAST { LEAST } else { y });
    let shifted = y.map(|y| y + ROUNDER);
    let f: [f32; N] = std::array::from_fn(|n| y[n] - (shifted[n] - ROUNDER));
    // In two halves (Estrin): half as long a chain of operations that wait for each other as Horner's.
    let square = f.map(|f| f * f);
    let low = f.map(|f| fused::<FUSED>(f, EXP2[1], EXP2[0]));
    let middle = f.map(|f| fused::<FUSED>(f, EXP2[3], EXP2[2]));
    let high: [f32; N] = std::array::from_fn(|n| fused::<FUSED>(square[n], EXP2[4], middle[n]));
    let power: [f32; N] = std::array::from_fn(|n| fused::<FUSED>(square[n], high[n], low[n]));
    // The whole part, shifted into the place of the exponent, is added to the power's own.
    std::array::from_fn(|n| f32::from_bits(power[n].to_bits().wrapping_add(shifted[n].to_bits() << 23)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of all sizes between -1 and 1, from an integer hash.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn power(y: f32) -> f64 {
        let [fused, other] = [exp2::<true, 1>([y])[0], exp2::<false, 1>([y])[0]];
        assert_eq!(fused.to_bits(), other.to_bits());
        f64::from(fused)
    }

    #[test]
    fn powers_of_two_are_right_to_a_few_millionths() {
        for step in 0..=60_000 {
            let y = -(step as f32) / 1000.0;
            assert!((power(y) / f64::from(y).exp2() - 1.0).abs() < 4e-6, "{y}");
        }
        assert_eq!(power(0.0), 1.0);
        assert!(power(f32::NEG_INFINITY) < 1e-18 && power(-1e30) < 1e-18);
    }

    #[test]
    fn multiply_adds_are_rounded_once() {
        let of = |seed: u32| values(200_000, seed);
        for ((a, b), c) in of(1).into_iter().zip(of(77)).zip(of(999)) {
            // Sums of all sizes, and sums that almost vanish.
            for c in [c, c * 1e-7, c * 1e7, -a * b, f32::from_bits((-a * b).to_bits() ^ 1), 0.0] {
                assert_eq!(fused::<false>(a, b, c).to_bits(), a.mul_add(b, c).to_bits(), "{a} {b} {c}");
            }
        }
    }

    #[test]
    fn every_instruction_set_yields_the_same_bits() {
        let input: Vec<Vec<f32>> = (0..6).map(|seed| values(MOST_OFFSETS * STRIP * STRIDE, seed * 7)).collect();
        let run = |rows: Rows| {
            let mut out = vec![0.0f32; 16 * STRIDE];
            let [s0, s1, s2, s3, c0, c1, c2, c3, w0, w1, d, t0, m0, t1, m1, s] = first_rows_mut::<16>(&mut out).unwrap();
            let [a, b, c] = [0, 1, 2].map(|n| first_rows::<6>(&input[n]).unwrap());
            let [before, last] = [3, 4].map(|n| first_rows::<4>(&input[n]).unwrap());
            let longer = input[5].first_chunk().unwrap();
            let weights = input[3].first_chunk().unwrap();
            let (mut sums, mut columns) = ([*s0, *s1, *s2, *s3], [*c0, *c1, *c2, *c3]);
            rows.box_of_four(&mut sums, &mut columns, before, last, a, b, 36);
            ([*s0, *s1, *s2, *s3], [*c0, *c1, *c2, *c3]) = (sums, columns);
            let (mut sums, mut columns) = ([*s], [*c0]);
            rows.box_of_one(&mut sums, &mut columns, &[before[0]], &[last[1]], &[a[0], b[1], c[2]], &[b[3], a[1], c[0]], 33);
            ([*s], [*c0]) = (sums, columns);
            rows.add_squared_differences(d, &a[0], &c[1], 35);
            rows.add(d, &b[2], 35);
            rows.weights_of_sums(w0, &columns[0], -7.5, 36);
            let mut weights_of_strip = [*w0; STRIP];
            rows.weights_of_four(&mut weights_of_strip, input[5].first_chunk().unwrap(), -1.5, 36);
            let mut weights_of_row = [*w1];
            rows.weights_of_one(&mut weights_of_row, input[5].first_chunk().unwrap(), -1.5, 36);
            (*w0, *w1) = (weights_of_strip[3], weights_of_row[0]);
            assert_eq!(weights_of_strip[0], weights_of_row[0]);
            for offsets in [1, 2, 3, 5] {
                rows.gather(t0, m0, &a[0], weights, longer, offsets, 32);
                rows.gather_back(t1, m1, &a[0], weights, longer, offsets, 32);
            }
            out.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert_eq!(run(Rows::detect()), run(Rows::baseline()));
    }
}
