//! The attributes that the standard defines for an object, by its SOP class: what may stay where only those may (`deid.strictness = strict`).
//!
//! The lists (`tables/iod-attributes.json`) are facts of PS3.3: the modules and functional group macros of each IOD whose objects have pixels, and for each of
//! them the attributes at the top level and those anywhere beneath it. Writers add attributes of other IODs (a Standard Extended SOP Class, PS3.2 section 7.3);
//! those are what is dropped. [`EVERYWHERE`] are spared: without them stored values or places would mean something else.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use dicom_core::Tag;
use serde::Deserialize;

use super::table::tag_of;
use crate::error::{Error, Kind, Result};

/// What one IOD defines.
#[derive(Default)]
pub(crate) struct Attributes {
    top: HashSet<Tag>,
    nested: HashSet<Tag>,
}

/// Attributes that stay in any object: they say what stored values and places of frames are, wherever a writer puts them. None can name anybody.
pub(crate) const EVERYWHERE: &[(u16, u16)] = &[
    (0x0018, 0x0050), // Slice Thickness
    (0x0018, 0x0088), // Spacing Between Slices
    (0x0018, 0x9087), // Diffusion b-value, in the MR Image of several vendors
    (0x0018, 0x9089), // Diffusion Gradient Orientation
    (0x0020, 0x0032), // Image Position (Patient)
    (0x0020, 0x0037), // Image Orientation (Patient)
    (0x0028, 0x0008), // Number of Frames
    (0x0028, 0x0030), // Pixel Spacing
    (0x0028, 0x1052), // Rescale Intercept: PS3.3 has it in MR only since it was found everywhere
    (0x0028, 0x1053), // Rescale Slope
    (0x0028, 0x1054), // Rescale Type
];

impl Attributes {
    /// Whether the IOD has an attribute, at the top level or beneath it. Overlays have a rule of their own.
    pub(crate) fn has(&self, tag: Tag, is_top: bool) -> bool {
        let known = if is_top { &self.top } else { &self.nested };
        known.contains(&tag) || EVERYWHERE.contains(&(tag.0, tag.1)) || matches!(tag.group(), 0x6000..=0x60FF)
    }
}

#[derive(Deserialize)]
struct Lists {
    sop_classes: Vec<(String, String)>,
    modules: Vec<(String, String, String)>,
    iods: Vec<(String, String)>,
}

/// The lists, by the names of modules and IODs.
struct Parsed {
    sop_classes: HashMap<String, String>,
    modules: HashMap<String, (String, String)>,
    iods: HashMap<String, String>,
}

fn lists() -> Result<&'static Parsed> {
    static LISTS: OnceLock<Option<Parsed>> = OnceLock::new();
    let parse = || {
        let lists: Lists = serde_json::from_str(include_str!("tables/iod-attributes.json")).ok()?;
        let modules = lists.modules.into_iter().map(|(name, top, nested)| (name, (top, nested))).collect();
        Some(Parsed { sop_classes: lists.sop_classes.into_iter().collect(), modules, iods: lists.iods.into_iter().collect() })
    };
    LISTS.get_or_init(parse).as_ref().ok_or_else(|| Error::new(Kind::Internal, "the attributes of IODs do not parse"))
}

/// What the IOD of a SOP class defines, `None` where that is not known here.
pub(crate) fn attributes(sop_class: &str) -> Result<Option<Attributes>> {
    let Parsed { sop_classes, modules, iods } = lists()?;
    let Some(names) = sop_classes.get(sop_class).and_then(|iod| iods.get(iod)) else { return Ok(None) };
    let lost = || Error::new(Kind::Internal, "the attributes of an IOD are lost");
    let mut attributes = Attributes::default();
    for name in names.split_ascii_whitespace() {
        let (top, nested) = modules.get(name).ok_or_else(lost)?;
        for (list, set) in [(top, &mut attributes.top), (nested, &mut attributes.nested)] {
            for id in list.split_ascii_whitespace() {
                set.insert(tag_of(id).ok_or_else(lost)?);
            }
        }
    }
    Ok(Some(attributes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MR: &str = "1.2.840.10008.5.1.4.1.1.4";

    #[test]
    fn every_listed_class_has_what_every_image_has() {
        let Parsed { sop_classes, .. } = lists().unwrap();
        assert!(sop_classes.len() > 60, "{}", sop_classes.len());
        for class in sop_classes.keys() {
            let found = attributes(class).unwrap().unwrap();
            // PS3.3 sections C.7.1.1, C.7.2.1, C.7.3.1, C.12.1: patient, study, series, SOP common.
            for tag in [Tag(0x0010, 0x0010), Tag(0x0020, 0x000D), Tag(0x0020, 0x000E), Tag(0x0008, 0x0018), Tag(0x0008, 0x0060)] {
                assert!(found.has(tag, true), "{class} {tag}");
            }
            assert!(found.has(Tag(0x0008, 0x0100), false), "{class}: codes");
        }
        assert!(attributes("1.2.840.10008.5.1.4.1.1.88.11").unwrap().is_none());
    }

    /// PS3.3 Table A.4-1: an MR Image has an echo time and no kVp; Table A.3-1: a CT Image the other way round.
    #[test]
    fn attributes_of_another_iod_are_none_of_an_object() {
        let (mr, ct) = (attributes(MR).unwrap().unwrap(), attributes("1.2.840.10008.5.1.4.1.1.2").unwrap().unwrap());
        let (echo, kvp) = (Tag(0x0018, 0x0081), Tag(0x0018, 0x0060));
        assert!(mr.has(echo, true) && !mr.has(kvp, true) && ct.has(kvp, true) && !ct.has(echo, true));
        // Enhanced MR has its echo time in a functional group (Table C.8-98), not at the top.
        let enhanced = attributes("1.2.840.10008.5.1.4.1.1.4.1").unwrap().unwrap();
        assert!(!enhanced.has(Tag(0x0018, 0x9082), true) && enhanced.has(Tag(0x0018, 0x9082), false));
        assert!(mr.has(Tag(0x0028, 0x1053), true) && mr.has(Tag(0x6000, 0x3000), true));
    }
}
