//! Whether slices form one straight, evenly spaced stack, and what is wrong with one that does not.

use super::{Finding, Placed, Policy, Remedy, dot, length, minus, scaled};
use crate::error::{Error, Kind, Result};

/// Positions are compared to 1 % of the step but never finer than 0.01 mm, because scanners round Image Position (Patient) to 2 decimals
/// or more.
const STEP_TOLERANCE: f64 = 0.01;
pub(super) const POSITION_TOLERANCE_MM: f64 = 0.01;
/// Sideways drift per step beyond which a stack is sheared: 0.1 degrees, ten times what rounded cosines of 4 decimals make.
const TILT_TOLERANCE: f64 = 1.7e-3;
/// Gantries tilt by 30 degrees at most; beyond that the positions or the cosines are wrong.
const MOST_TILT: f64 = 35.0;

/// Missing slices in one gap, on average, that are made up when asked for.
const MOST_FILLED: usize = 3;

/// What the positions of a stack say.
pub(super) struct Stack {
    /// From slice to slice, if there were nothing in `findings` but a tilt.
    pub(super) step: [f64; 3],
    /// Where each slice lies, in steps of the grid from the first: whole numbers unless the steps are uneven.
    pub(super) heights: Vec<f64>,
    /// What keeps the slices from being a grid, and is remedied by resampling.
    pub(super) findings: Vec<Finding>,
}

/// Judges slices that are sorted along the normal, at least two.
pub(super) fn check(slices: &[Placed], normal: [f64; 3], policy: &Policy) -> Result<Stack> {
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else { return Err(Error::new(Kind::GeometryMissing, "no slice")) };
    let count = slices.len();
    let steps = steps(slices);
    let median = typical(&steps);
    let tolerance = tolerance(median);
    doubled(slices, &steps, normal, tolerance)?;
    // The step is taken over the whole stack: rounding of single positions averages out.
    let step = scaled(minus(last.position, first.position), 1.0 / (count - 1) as f64);
    let mut findings = Vec::new();
    findings.extend(tilt(step, normal, count, policy)?);
    let missing = gaps(&steps, median, tolerance);
    if !missing.is_empty() {
        refuse_gaps(&missing, policy)?;
        findings.push(Finding::Gaps { missing: missing.clone() });
    }
    // Steps over a gap count as so many of its parts.
    let mut parts: Vec<f64> = steps.clone();
    for (after, lost) in &missing {
        if let Some(step) = parts.get_mut(after - 1) {
            *step /= (lost + 1) as f64;
        }
    }
    let (least, most) = parts.iter().fold((f64::MAX, f64::MIN), |(least, most), step| (least.min(*step), most.max(*step)));
    // Two positions with an error of one tolerance each.
    let is_uneven = most - least > 2.0 * tolerance;
    if is_uneven {
        if policy.spacing == Remedy::Refuse {
            let detail = format!("steps between slices range from {least:.3} to {most:.3} mm");
            return Err(Error::new(Kind::GeometryInconsistent, detail)
                .with_hint("geometry.spacing = resample makes an even grid by interpolation between slices"));
        }
        findings.push(Finding::VariableSpacing { least_mm: least, most_mm: most });
    }
    let along = last.along - first.along;
    let slope = scaled(minus(last.position, first.position), 1.0 / along);
    for (k, slice) in slices.iter().enumerate() {
        // An even stack must also keep its pace; an uneven one must at least lie on one line.
        let place = match is_uneven || !missing.is_empty() {
            false => scaled(step, k as f64),
            true => scaled(slope, slice.along - first.along),
        };
        let off = length(minus(minus(slice.position, first.position), place));
        if off > tolerance {
            let detail = format!("slice {} ({}) lies {off:.3} mm off the line of the others", k + 1, slice.name);
            return Err(Error::new(Kind::GeometryInconsistent, detail));
        }
    }
    let heights = if is_uneven {
        let whole = along / (along / median).round().max(1.0);
        slices.iter().map(|slice| (slice.along - first.along) / whole).collect()
    } else {
        // Where steps differ by rounding alone, every slice is a slice of the grid.
        let lost = |slice: usize| missing.iter().filter(|(after, _)| *after <= slice).map(|(_, lost)| lost).sum::<usize>();
        (0..count).map(|slice| (slice + lost(slice)) as f64).collect()
    };
    Ok(Stack { step, heights, findings })
}

/// How many slices lie at each position, where every position has the same number of them and more than one. Slices are sorted along the normal.
pub(super) fn volumes(slices: &[Placed], normal: [f64; 3]) -> Option<usize> {
    let steps: Vec<f64> = steps(slices);
    let tolerance = tolerance(typical(&steps));
    let positions = 1 + steps.iter().filter(|step| **step > tolerance).count();
    let count = slices.len() / positions;
    if count < 2 || !slices.len().is_multiple_of(positions) {
        return None;
    }
    let is_shared = |slices: &[Placed]| {
        let first = slices.first()?;
        slices
            .iter()
            .all(|slice| {
                let apart = minus(slice.position, first.position);
                let sideways = length(minus(apart, scaled(normal, dot(apart, normal))));
                slice.along - first.along <= tolerance && sideways <= tolerance
            })
            .then_some(())
    };
    slices.chunks(count).all(|slices| is_shared(slices).is_some()).then_some(count)
}

/// How far positions may be from where they should be.
fn tolerance(step: f64) -> f64 {
    (STEP_TOLERANCE * step).max(POSITION_TOLERANCE_MM)
}

fn steps(slices: &[Placed]) -> Vec<f64> {
    slices.iter().zip(slices.iter().skip(1)).map(|(a, b)| b.along - a.along).collect()
}

/// A stack whose slices drift sideways, as those of a tilted gantry do.
fn tilt(step: [f64; 3], normal: [f64; 3], count: usize, policy: &Policy) -> Result<Option<Finding>> {
    let sideways = length(minus(step, scaled(normal, dot(step, normal))));
    let tilt = sideways.atan2(dot(step, normal));
    // The drift must also exceed what rounded positions make, or a short stack of thin slices would look tilted.
    if tilt <= TILT_TOLERANCE || sideways * (count - 1) as f64 <= 2.0 * POSITION_TOLERANCE_MM {
        return Ok(None);
    }
    let degrees = tilt.to_degrees();
    if policy.tilt == Remedy::Resample && degrees <= MOST_TILT {
        return Ok(Some(Finding::GantryTilt { degrees }));
    }
    let detail = format!("the stack is sheared: each slice lies {degrees:.1} degrees off the normal of the last (gantry tilt)");
    let error = Error::new(Kind::GeometryInconsistent, detail);
    Err(match degrees <= MOST_TILT {
        true => error.with_hint("geometry.tilt = resample makes an upright grid"),
        false => error,
    })
}

/// The lower median of the steps that are steps at all: with half of the slices lost or doubled it is still a real step.
fn typical(steps: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = steps.iter().copied().filter(|step| *step > POSITION_TOLERANCE_MM).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Refuses slices that share a position, and slices that share a plane.
fn doubled(slices: &[Placed], steps: &[f64], normal: [f64; 3], tolerance: f64) -> Result<()> {
    let pairs: Vec<(usize, &Placed, &Placed)> = steps
        .iter()
        .zip(slices.iter().zip(slices.iter().skip(1)))
        .enumerate()
        .filter(|(_, (step, _))| **step <= tolerance)
        .map(|(k, (_, (a, b)))| (k + 1, a, b))
        .collect();
    let Some((k, a, b)) = pairs.first() else { return Ok(()) };
    let apart = minus(b.position, a.position);
    let sideways = length(minus(apart, scaled(normal, dot(apart, normal))));
    let (total, both) = (slices.len(), a.name.and(b.name));
    if sideways > tolerance {
        let detail = format!("slices {k} and {} ({both}) lie in one plane, {sideways:.3} mm apart", k + 1);
        return Err(Error::new(Kind::GeometryInconsistent, detail));
    }
    let more = match pairs.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more pairs"),
    };
    let detail = format!("slices {k} and {} of {total} ({both}) lie at one position{more}", k + 1);
    // Every position taken the same number of times is several volumes in one series, or the series twice.
    let positions = total - pairs.len();
    let error = Error::new(Kind::SliceDoubled, detail);
    Err(match total.is_multiple_of(positions) {
        true if total / positions > 1 => error.with_hint(format!(
            "the series holds {} volumes, and no time, echo or b-value tells them apart; send one of them",
            total / positions
        )),
        _ => error,
    })
}

/// Steps that are whole multiples of the usual one: after which slice, counted from 1, how many are missing.
fn gaps(steps: &[f64], median: f64, tolerance: f64) -> Vec<(usize, usize)> {
    let mut missing = Vec::new();
    for (k, step) in steps.iter().enumerate() {
        let multiple = (step / median).round();
        if multiple >= 2.0 && (step - multiple * median).abs() <= tolerance * multiple {
            missing.push((k + 1, (multiple as usize).saturating_sub(1)));
        }
    }
    missing
}

fn refuse_gaps(missing: &[(usize, usize)], policy: &Policy) -> Result<()> {
    // Whoever asks for interpolation means a slice lost here and there, not a study of a few.
    let lost = missing.iter().fold(0usize, |sum, (_, lost)| sum.saturating_add(*lost));
    if policy.gaps == Remedy::Resample && lost <= missing.len().saturating_mul(MOST_FILLED) {
        return Ok(());
    }
    // A message stays one line.
    let places: Vec<String> = missing.iter().take(4).map(|(after, lost)| format!("{lost} after slice {after}")).collect();
    let more = missing.len().saturating_sub(4);
    let tail = if more > 0 { format!(", and {more} more gaps") } else { String::new() };
    Err(Error::new(Kind::SliceMissing, format!("{}{tail}", places.join(", "))))
}
