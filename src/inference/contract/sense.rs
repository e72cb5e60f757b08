//! What cannot be seen from one key of a contract alone.

use super::read::wrong;
use super::{Around, Channel, Contract, Intensity, Reduce, Size, Task};
use crate::error::Result;

impl Contract {
    /// What cannot be seen from one key alone.
    pub(super) fn check_sense(&self) -> Result<()> {
        let masked = self.inputs.iter().any(|input| input.channels.contains(&Channel::Mask));
        let crop = matches!(self.grid.size, Size::Crop { .. });
        match self.task {
            Task::Segment => {
                if self.inputs.len() != 1 || masked {
                    return Err(wrong("inputs", "one input whose channels are the volume's, since the task is segment"));
                }
                if self.mask.is_some() {
                    return Err(wrong("mask", "no such key, since the task is segment"));
                }
            }
            Task::Predict => {
                if !self.postprocess.is_empty() {
                    return Err(wrong("postprocess", "no such key, since the task is predict"));
                }
                if !self.believed_ml.is_empty() {
                    return Err(wrong("plausibility.labels_ml", "no such key, since the task is predict"));
                }
                if self.mask.is_none() && (masked || crop) {
                    return Err(wrong("mask", "an object, since the model takes a mask"));
                }
                if self.mask.is_some() && !masked && !crop {
                    return Err(wrong("mask", "no such key, since neither a channel nor the size rule uses a mask"));
                }
            }
        }
        self.check_looks()?;
        let mut names: Vec<&str> = self.inputs.iter().map(|input| input.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != self.inputs.len() {
            return Err(wrong("inputs", "names that differ"));
        }
        for (name, ..) in &self.believed_ml {
            if !self.output.labels.iter().any(|label| label.name == *name) {
                return Err(wrong("plausibility.labels_ml", "names that output.labels has"));
            }
        }
        Ok(())
    }

    /// Slices, lesions, passes and ensembles.
    fn check_looks(&self) -> Result<()> {
        let each = matches!(self.grid.size, Size::Crop { around: Around::Each { .. }, .. });
        let is_sliced_off = |channel: &Channel| matches!(channel, Channel::Volume { offset, .. } if *offset != 0);
        if !self.grid.is_slicewise && self.inputs.iter().flat_map(|input| &input.channels).any(is_sliced_off) {
            return Err(wrong("inputs", "volume@K only where grid.layout is one of slices, NCHW or NHWC"));
        }
        if self.grid.is_slicewise && matches!(self.grid.size, Size::Crop { .. }) {
            return Err(wrong("grid.size.rule", "another rule than crop, since the model looks at slices"));
        }
        if self.output.reduce != Reduce::Model && !each && !self.grid.is_slicewise {
            return Err(wrong("output.reduce", "no such key, since the model looks once at a study"));
        }
        if each && self.output.reduce == Reduce::Model {
            return Err(wrong("output.reduce", "max or mean, since the model looks at each component"));
        }
        if self.locate.is_none() && self.intensity.contains(&Intensity::ClipAsLocated) {
            return Err(wrong("locate", "an object, since a step clips as located"));
        }
        if self.locate.is_some() && self.task == Task::Predict {
            return Err(wrong("locate", "no such key, since the task is predict"));
        }
        Ok(())
    }
}
