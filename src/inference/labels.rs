//! From a model's numbers to labels: activation, decision, clean-up, volumes.
//!
//! The rules are the contract's ("Outputs" and "Postprocessing" in docs/model-contract.md). Ties go to the lowest channel, so that a result
//! does not depend on the order of anything.

use rayon::prelude::*;

use crate::error::{Error, Kind, Result};
use crate::imaging::Geometry;
use crate::imaging::components;
use crate::imaging::grid::voxel_volume_mm3;
use crate::inference::Label;
use crate::inference::contract::{Activation, Calibration, Contract, Output, OutputLabel, Postprocess};

/// Voxels per piece of parallel work.
const BLOCK: usize = 1 << 14;
/// Channels that are activated without touching the heap.
const FEW: usize = 32;

/// Activates the values of one voxel or study in place.
pub(super) fn activate(values: &mut [f32], activation: Activation) {
    match activation {
        Activation::None | Activation::Argmax => {}
        Activation::Sigmoid => values.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp())),
        Activation::Softmax => {
            // The largest is taken off first, so that no exponential overflows.
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for value in values.iter_mut() {
                *value = (*value - largest).exp();
                sum += *value;
            }
            values.iter_mut().for_each(|value| *value /= sum);
        }
    }
}

/// Calibrates a probability by points between which straight lines run; beyond the first and last their value holds.
pub(super) fn calibrated(probability: f64, points: &[[f64; 2]]) -> f64 {
    let after = points.partition_point(|point| point[0] <= probability);
    match (after.checked_sub(1).and_then(|before| points.get(before)), points.get(after)) {
        (Some(low), Some(high)) => low[1] + (high[1] - low[1]) * (probability - low[0]) / (high[0] - low[0]),
        (Some(point), None) | (None, Some(point)) => point[1],
        (None, None) => probability,
    }
}

/// A predictor's numbers as the contract wants them: divided by the temperature, activated, calibrated.
pub(super) fn finish(values: &mut [f32], output: &Output) {
    if let Some(Calibration::Temperature(temperature)) = output.calibration {
        values.iter_mut().for_each(|value| *value = (f64::from(*value) / temperature) as f32);
    }
    activate(values, output.activation);
    if let Some(Calibration::Isotonic(points)) = &output.calibration {
        values.iter_mut().for_each(|value| *value = calibrated(f64::from(*value), points) as f32);
    }
}

/// Activates whole maps: `count` voxels by channels, channel first or last.
pub(super) fn activate_maps(values: &mut [f32], channels: usize, channels_first: bool, activation: Activation) {
    let count = values.len() / channels.max(1);
    let mut one = vec![0.0f32; channels];
    for voxel in 0..count {
        let place = |channel: usize| if channels_first { channel * count + voxel } else { voxel * channels + channel };
        one.iter_mut().enumerate().for_each(|(channel, value)| *value = values[place(channel)]);
        activate(&mut one, activation);
        one.iter().enumerate().for_each(|(channel, value)| values[place(channel)] = *value);
    }
}

/// Decides the labels of voxels from their maps, channel first. `activated` says that the values are probabilities already.
pub(super) fn decide(maps: &[f32], channels: usize, output: &Output, activated: bool, labels: &mut [u8]) {
    let count = labels.len();
    let activation = if activated { Activation::None } else { output.activation };
    // Softmax keeps the order of the channels, so without a threshold it need not be computed.
    let activation = if activation == Activation::Softmax && output.threshold.is_none() { Activation::Argmax } else { activation };
    labels.par_chunks_mut(BLOCK).enumerate().for_each(|(block, labels)| {
        let mut few = [0.0f32; FEW];
        let mut many = if channels > FEW { vec![0.0f32; channels] } else { Vec::new() };
        let values = if channels > FEW { many.as_mut_slice() } else { &mut few[..channels] };
        for (offset, label) in labels.iter_mut().enumerate() {
            let voxel = block * BLOCK + offset;
            values.iter_mut().enumerate().for_each(|(channel, value)| *value = maps[channel * count + voxel]);
            activate(values, activation);
            *label = choose(values, output);
        }
    });
}

fn choose(values: &[f32], output: &Output) -> u8 {
    // No window saw the voxel: the contract calls such places background.
    if values.first().is_none_or(|value| value.is_nan()) {
        return 0;
    }
    match output.threshold {
        Some(threshold) if output.last_wins => {
            let above = |label: &&OutputLabel| values.get(label.channel).is_some_and(|value| *value > threshold);
            output.labels.iter().rev().find(above).map_or(0, |label| label.value)
        }
        None => {
            let mut best = 0;
            for (channel, value) in values.iter().enumerate() {
                if *value > values[best] {
                    best = channel;
                }
            }
            output.labels.iter().find(|label| label.channel == best).map_or(0, |label| label.value)
        }
        Some(threshold) => {
            let mut best: Option<(f32, usize, u8)> = None;
            for label in &output.labels {
                let value = values.get(label.channel).copied().unwrap_or(f32::NEG_INFINITY);
                let wins = best.is_none_or(|(most, channel, _)| value > most || (value == most && label.channel < channel));
                if value > threshold && wins {
                    best = Some((value, label.channel, label.value));
                }
            }
            best.map_or(0, |(_, _, label)| label)
        }
    }
}

/// Runs the contract's clean-up on labels.
pub(super) fn postprocess(labels: &mut [u8], geometry: &Geometry, contract: &Contract) -> Result<()> {
    let dims = geometry.dims;
    for step in &contract.postprocess {
        for label in &contract.output.labels {
            match step {
                Postprocess::LargestComponent(connectivity) => components::keep_largest(labels, dims, label.value, *connectivity)?,
                Postprocess::FillHoles => components::fill_holes(labels, dims, label.value)?,
                Postprocess::MinSize { ml, connectivity } => {
                    // The smallest whole number of voxels that is not less than the volume; the cast saturates.
                    let least = (ml * 1000.0 / voxel_volume_mm3(geometry)).ceil() as u64;
                    components::remove_small(labels, dims, label.value, *connectivity, least)?;
                }
            }
        }
    }
    Ok(())
}

/// Counts every label of the contract, those without a voxel too.
pub(super) fn table(labels: &[u8], geometry: &Geometry, output: &Output) -> Vec<Label> {
    let counts = counts(labels);
    output.labels.iter().map(|label| Label { code: label.code.clone(), ..row(label.value, &label.name, &counts, geometry) }).collect()
}

/// Counts every label that has a name or a voxel; one without a name is called by its number.
pub(super) fn table_of(labels: &[u8], geometry: &Geometry, names: &[Option<String>; 256]) -> Vec<Label> {
    let counts = counts(labels);
    let known = (1..=u8::MAX).zip(names.iter().zip(&counts).skip(1));
    known
        .filter(|(_, (name, voxels))| name.is_some() || **voxels > 0)
        .map(|(value, (name, _))| match name {
            Some(name) => row(value, name, &counts, geometry),
            None => row(value, &format!("label {value}"), &counts, geometry),
        })
        .collect()
}

/// Voxels of each label.
fn counts(labels: &[u8]) -> [u64; 256] {
    let of_block = |block: &[u8]| {
        let mut counts = [0u64; 256];
        block.iter().for_each(|label| counts[usize::from(*label)] += 1);
        counts
    };
    labels.par_chunks(BLOCK).map(of_block).reduce(|| [0; 256], |a, b| std::array::from_fn(|value| a[value] + b[value]))
}

fn row(value: u8, name: &str, counts: &[u64; 256], geometry: &Geometry) -> Label {
    let voxels = counts[usize::from(value)];
    Label { value, name: name.to_owned(), volume_ml: voxels as f64 * voxel_volume_mm3(geometry) / 1000.0, voxels, code: None }
}

/// Checks volumes against what the contract believes.
///
/// # Errors
/// [`Kind::InputImplausible`].
pub(super) fn check_volumes(table: &[Label], contract: &Contract) -> Result<()> {
    for (name, least, most) in &contract.believed_ml {
        let ml = table.iter().find(|label| label.name == *name).map_or(0.0, |label| label.volume_ml);
        if !(*least..=*most).contains(&ml) {
            return Err(Error::new(Kind::InputImplausible, format!("label {name}: {ml:.3} ml, believed from {least} to {most}")));
        }
    }
    Ok(())
}
