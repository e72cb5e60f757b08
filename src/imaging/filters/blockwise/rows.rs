//! The arithmetic of blockwise non-local means on rows: every loop over voxels that takes time.
//!
//! The functions are not inlined: slices that are a function's arguments are known not to overlap, and loops over them are vectorised whole.
//! Formulas are those of the module above, after P. Coupé et al., IEEE TMI 27(4), 2008.

use super::super::exp2;
use super::{MEANS, NOTHING, VARIANCES};

/// What stands for no distance: above all that there are, and finite.
const FARTHEST: f32 = 1e38;

/// sums += weights * squares.
#[inline(never)]
pub(super) fn multiply(sums: &mut [f32], weights: &[f32], squares: &[f32]) {
    for ((sum, weight), square) in sums.iter_mut().zip(weights).zip(squares) {
        *sum += weight * square;
    }
}

/// Adds a row of estimates to those that there are.
#[inline(never)]
pub(super) fn finish(totals: &mut [f32], counts: &mut [f32], sums: &[f32], active: &[f32], bias: f32) {
    let count = totals.len();
    let (counts, sums, active) = (&mut counts[..count], &sums[..count], &active[..count]);
    for i in 0..count {
        let square = sums[i] - bias;
        let square = if square > 0.0 { square } else { 0.0 };
        totals[i] += square.sqrt() * active[i];
        counts[i] += active[i];
    }
}

/// out = (a - b)².
#[inline(never)]
pub(super) fn square_differences(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = (a - b) * (a - b);
    }
}

/// sum += row.
#[inline(never)]
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

/// sum[k] += row[2 k].
#[inline(never)]
pub(super) fn add_alternate(sum: &mut [f32], row: &[f32]) {
    let (last, sum) = sum.split_last_mut().map_or((None, &mut [][..]), |(last, sum)| (Some(last), sum));
    if let (Some(last), Some(value)) = (last, row.get(2 * sum.len())) {
        *last += value;
    }
    sum.iter_mut().zip(row.chunks_exact(2)).for_each(|(sum, pair)| *sum += pair[0]);
}

/// Mean and variance (n - 1) of 27 voxels, for a row without its ends.
#[inline(never)]
pub(super) fn moments(means: &mut [f64], variances: &mut [f64], around: [&[f32]; 9]) {
    let count = means.len();
    means.fill(0.0);
    variances.fill(0.0);
    for row in around {
        let (left, here, right) = (&row[..count], &row[1..count + 1], &row[2..count + 2]);
        for i in 0..count {
            means[i] += f64::from(left[i]) + f64::from(here[i]) + f64::from(right[i]);
        }
    }
    means.iter_mut().for_each(|mean| *mean /= 27.0);
    let (means, variances) = (&means[..count], &mut variances[..count]);
    for row in around {
        let (left, here, right) = (&row[..count], &row[1..count + 1], &row[2..count + 2]);
        for i in 0..count {
            let (a, b, c) = (f64::from(left[i]) - means[i], f64::from(here[i]) - means[i], f64::from(right[i]) - means[i]);
            variances[i] += a * a + b * b + c * c;
        }
    }
    variances.iter_mut().for_each(|variance| *variance /= 26.0);
}

/// least = the lesser of itself and the distance.
#[inline(never)]
pub(super) fn lessen(least: &mut [f32], distances: &[f32]) {
    least.iter_mut().zip(distances).for_each(|(least, distance)| *least = if *distance < *least { *distance } else { *least });
}

/// Makes weights of distances, relative to the nearest, so that weights too small for a float are in proportion too; totals += weights.
#[inline(never)]
pub(super) fn raise(weights: &mut [f32], totals: &mut [f32], nearest: &[f32], rate: f32) {
    let count = weights.len();
    let (totals, nearest) = (&mut totals[..count], &nearest[..count]);
    for i in 0..count {
        let distance = weights[i];
        let finite = if distance < FARTHEST { distance } else { FARTHEST };
        let weight = exp2((finite - nearest[i]) * rate);
        weights[i] = if distance < FARTHEST { weight } else { 0.0 };
        totals[i] += weights[i];
    }
}

/// a *= b.
#[inline(never)]
pub(super) fn multiply_by(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a *= b);
}

/// Makes infinite the distances between every second voxel, given means and variances here and there, where these are unlike.
///
/// Ratios are compared by products. Where one comes so near to its limit that rounding decides, the row is done again with the quotients that
/// dipy forms: voxels that are whole numbers meet a limit exactly.
#[inline(never)]
pub(super) fn refuse(distances: &mut [f32], statistics: [&[f64]; 4]) {
    const NEAR: f64 = 1e-12;
    let count = distances.len();
    let [mean, variance, other, spread] = statistics.map(|list| &list[..2 * count]);
    let nearer = |a: f64, b: f64| if a.abs() < b.abs() { a.abs() } else { b.abs() };
    let is_near = (0..count).fold(false, |is_near, k| {
        let (a, b, c, d) = (mean[2 * k], other[2 * k], variance[2 * k], spread[2 * k]);
        let by_mean = nearer(a - MEANS * b, b - MEANS * a) <= NEAR * b;
        let by_variance = nearer(c - VARIANCES * d, d - VARIANCES * c) <= NEAR * d;
        is_near | by_mean | by_variance
    });
    for k in 0..count {
        let (a, b, c, d) = (mean[2 * k], other[2 * k], variance[2 * k], spread[2 * k]);
        let is_like = if is_near {
            (MEANS..=1.0 / MEANS).contains(&(a / b)) & (VARIANCES..=1.0 / VARIANCES).contains(&(c / d))
        } else {
            (a >= MEANS * b) & (b >= MEANS * a) & (c >= VARIANCES * d) & (d >= VARIANCES * c)
        };
        // Without shortcuts, so that there is nothing to predict.
        distances[k] = if is_like & (b > NOTHING) & (d > NOTHING) { distances[k] } else { f32::INFINITY };
    }
}
