//! The arithmetic of non-local means on rows: every loop over voxels that takes time.
//!
//! Each function is compiled twice where the processor is x86-64, for the instructions that every such processor has and for AVX2, and
//! [`Rows`] picks once. Only additions, multiplications and comparisons are used, element by element and in the order in which they stand
//! here, and never a fused multiply-add: both copies yield the same bits, so a result does not hang on the machine it was computed on.
//!
//! The functions are not inlined. Slices that are a function's arguments are known not to overlap, and the compiler vectorises loops over
//! them whole; inlined into the loops over offsets it gives up on most.

/// Adding this to a float of small size rounds it to a whole number and leaves that number in the lowest bits (1.5 * 2^23).
const ROUNDER: f32 = 12_582_912.0;
/// 2^f for f in -0.5..=0.5, interpolated at Chebyshev's nodes: relative error below 3.6e-6. A mean hardly shows it,
/// because it divides by the weights again.
const EXP2: [f32; 5] = [1.0, 0.693_121, 0.240_223_5, 0.055_921_976, 0.009_666_368];
/// Logarithms below this yield a weight of 1e-18, which no sum of weights can tell from 0, as each contains a 1. Less would make denormal
/// products, and those take many times as long.
const LEAST: f32 = -60.0;

/// Chooses the instructions.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    has_avx2: bool,
}

impl Rows {
    /// Asks the processor.
    pub(super) fn detect() -> Rows {
        #[cfg(target_arch = "x86_64")]
        let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let has_avx2 = false;
        Rows { has_avx2 }
    }

    /// The instructions that every processor has.
    #[cfg(test)]
    pub(super) fn baseline() -> Rows {
        Rows { has_avx2: false }
    }
}

/// Declares a method of [`Rows`] that runs the function of the same name below, compiled for what the processor has.
macro_rules! method {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*)) => {
        impl Rows {
            $(#[$doc])*
            #[allow(unsafe_code, clippy::too_many_arguments)]
            pub(super) fn $name(self, $($argument: $type),*) {
                #[inline(never)]
                fn baseline($($argument: $type),*) {
                    $name($($argument),*);
                }
                #[cfg(target_arch = "x86_64")]
                if self.has_avx2 {
                    #[inline(never)]
                    #[target_feature(enable = "avx2")]
                    fn wide($($argument: $type),*) {
                        $name($($argument),*);
                    }
                    // SAFETY: `has_avx2` is set by `detect` alone, which has seen that this processor executes AVX2; `wide` asks nothing else.
                    return unsafe { wide($($argument),*) };
                }
                baseline($($argument),*);
            }
        }
    };
}

method! {
    /// out = (a - b)²; all of one length.
    squared_differences(out: &mut [f32], a: &[f32], b: &[f32])
}
method! {
    /// out += a; both of one length.
    add(out: &mut [f32], a: &[f32])
}
method! {
    /// Squared differences of one more row, and the sums that they complete: along y with those of the two rows before, then along z with the
    /// sums of the two planes before. Rows and planes stand oldest first; all of one length.
    next_of_three(new: &mut [f32], sum: &mut [f32], column: &mut [f32], first: &[f32], second: &[f32], before: &[f32], last: &[f32],
        a: &[f32], b: &[f32])
}
method! {
    /// Pairs of a row's voxels `a` and another's `b`. For each i, the weight is 2^(rate * s), where s is the sum of the differences i to
    /// i + 2; it is added to `total`, and the weight times b² - a² to `moved`. `differences` is longer by 2 than the others.
    side_of_three(total: &mut [f32], moved: &mut [f32], differences: &[f32], rate: f32, a: &[f32], b: &[f32])
}
method! {
    /// [`Rows::side_of_three`] for `a`, and for `b` with a and b in each other's place, with one computation of the weights.
    pairs_of_three(total: &mut [f32], moved: &mut [f32], other: &mut [f32], back: &mut [f32], differences: &[f32], rate: f32,
        a: &[f32], b: &[f32])
}
method! {
    /// Weights of pairs, and the weights times b² - a², for sums that are made already; all of one length.
    weights_of_sums(weights: &mut [f32], moves: &mut [f32], sums: &[f32], rate: f32, a: &[f32], b: &[f32])
}
method! {
    /// total += weights and moved += moves; all of one length.
    gather(total: &mut [f32], moved: &mut [f32], weights: &[f32], moves: &[f32])
}
method! {
    /// total += weights and moved -= moves, for the other voxel of each pair; all of one length.
    gather_back(total: &mut [f32], moved: &mut [f32], weights: &[f32], moves: &[f32])
}

#[inline(always)]
fn squared_differences(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        let difference = a - b;
        *out = difference * difference;
    }
}

#[inline(always)]
fn add(out: &mut [f32], a: &[f32]) {
    for (out, a) in out.iter_mut().zip(a) {
        *out += a;
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn next_of_three(
    new: &mut [f32],
    sum: &mut [f32],
    column: &mut [f32],
    first: &[f32],
    second: &[f32],
    before: &[f32],
    last: &[f32],
    a: &[f32],
    b: &[f32],
) {
    let count = new.len();
    let (sum, column, first, second) = (&mut sum[..count], &mut column[..count], &first[..count], &second[..count]);
    let (before, last, a, b) = (&before[..count], &last[..count], &a[..count], &b[..count]);
    for i in 0..count {
        let difference = a[i] - b[i];
        new[i] = difference * difference;
        sum[i] = first[i] + second[i] + new[i];
        column[i] = before[i] + last[i] + sum[i];
    }
}

#[inline(always)]
fn side_of_three(total: &mut [f32], moved: &mut [f32], differences: &[f32], rate: f32, a: &[f32], b: &[f32]) {
    let count = total.len();
    let (first, second, third) = (&differences[..count], &differences[1..count + 1], &differences[2..count + 2]);
    let (moved, a, b) = (&mut moved[..count], &a[..count], &b[..count]);
    for i in 0..count {
        let weight = exp2((first[i] + second[i] + third[i]) * rate);
        total[i] += weight;
        moved[i] += weight * ((b[i] - a[i]) * (b[i] + a[i]));
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pairs_of_three(
    total: &mut [f32],
    moved: &mut [f32],
    other: &mut [f32],
    back: &mut [f32],
    differences: &[f32],
    rate: f32,
    a: &[f32],
    b: &[f32],
) {
    let count = total.len();
    let (first, second, third) = (&differences[..count], &differences[1..count + 1], &differences[2..count + 2]);
    let (moved, other, back, a, b) = (&mut moved[..count], &mut other[..count], &mut back[..count], &a[..count], &b[..count]);
    for i in 0..count {
        let weight = exp2((first[i] + second[i] + third[i]) * rate);
        let by = weight * ((b[i] - a[i]) * (b[i] + a[i]));
        total[i] += weight;
        moved[i] += by;
        other[i] += weight;
        back[i] -= by;
    }
}

#[inline(always)]
fn weights_of_sums(weights: &mut [f32], moves: &mut [f32], sums: &[f32], rate: f32, a: &[f32], b: &[f32]) {
    let count = weights.len();
    let (moves, sums, a, b) = (&mut moves[..count], &sums[..count], &a[..count], &b[..count]);
    for i in 0..count {
        let weight = exp2(sums[i] * rate);
        weights[i] = weight;
        moves[i] = weight * ((b[i] - a[i]) * (b[i] + a[i]));
    }
}

#[inline(always)]
fn gather(total: &mut [f32], moved: &mut [f32], weights: &[f32], moves: &[f32]) {
    for (((total, moved), weight), by) in total.iter_mut().zip(moved).zip(weights).zip(moves) {
        *total += weight;
        *moved += by;
    }
}

#[inline(always)]
fn gather_back(total: &mut [f32], moved: &mut [f32], weights: &[f32], moves: &[f32]) {
    for (((total, moved), weight), by) in total.iter_mut().zip(moved).zip(weights).zip(moves) {
        *total += weight;
        *moved -= by;
    }
}

/// 2^y for y up to 0.
#[inline(always)]
fn exp2(y: f32) -> f32 {
    // A comparison rather than f32::max, whose rule for NaN costs two instructions; there is no NaN here.
    let y = if y < LEAST { LEAST } else { y };
    let shifted = y + ROUNDER;
    let f = y - (shifted - ROUNDER);
    // In two halves (Estrin): half as long a chain of operations that wait for each other as Horner's.
    let square = f * f;
    let power = (EXP2[0] + f * EXP2[1]) + square * ((EXP2[2] + f * EXP2[3]) + square * EXP2[4]);
    // The whole part, shifted into the place of the exponent, whose bias is 127.
    power * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of all sizes between -1 and 1, from an integer hash.
    fn values(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn powers_of_two_are_right_to_a_few_millionths() {
        for step in 0..=60_000 {
            let y = -(step as f32) / 1000.0;
            let exact = f64::from(y).exp2();
            assert!((f64::from(exp2(y)) / exact - 1.0).abs() < 4e-6, "{y}");
        }
        assert!(exp2(f32::NEG_INFINITY) < 1e-18 && exp2(-1e30) < 1e-18);
    }

    #[test]
    fn every_instruction_set_yields_the_same_bits() {
        let [a, b, sums] = [1, 2, 3].map(|seed| values(203, seed));
        let run = |rows: Rows| {
            let mut out = vec![vec![0.0f32; 203]; 9];
            let [d, s, w, m, w3, m3, g, p, q] = out.as_mut_slice() else { unreachable!() };
            rows.squared_differences(d, &a, &b);
            rows.next_of_three(d, s, g, &sums, &b, &a, &sums, &a, &b);
            rows.weights_of_sums(w, m, d, -7.5, &a, &b);
            rows.side_of_three(&mut w3[..201], &mut m3[..201], d, -1.5, &a[..201], &b[..201]);
            rows.add(g, &a);
            rows.gather(s, g, w, m);
            rows.gather_back(g, s, w3, m3);
            rows.pairs_of_three(&mut w[..201], &mut m[..201], &mut p[..201], &mut q[..201], d, -1.5, &a[..201], &b[..201]);
            out.concat().into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert_eq!(run(Rows::detect()), run(Rows::baseline()));
    }
}
