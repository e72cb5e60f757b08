//! De-identification, PS3.15 Annex E, edition 2026d: the one way from an identified study to a released one.
//!
//! The policy is default deny and the standard's tables are its data. `table` holds the tables, `rules` decides per element, `actions`
//! carries the decisions out at every depth, `quarantine` refuses what no rule can make safe, `attributes` writes what a released
//! instance must say about itself, and `residual` searches the serialized result for every identifier that was taken away. Pseudonyms,
//! UIDs and dates come from the project key alone, so nothing about a patient is kept between studies. The same input, options and
//! key give the same output, on any machine and any number of threads.
//!
//! **Invariant:** a [`ReleasedStudy`] was made by [`deidentify`], or by [`release_identified`], which says so in its report.
//!
//! Pixels are not looked at. Where `burned_in` says that text stands in them, the study is refused, or the loader has blacked out the regions that a rule of
//! devices names; the face that can be reconstructed from a head scan stays in it. `docs/de-identification.md` is the conformance statement.
//!
//! ```
//! use smp::deid::{BurnedIn, DateShift, Options};
//! let options = Options { options: vec!["retain_longitudinal_modified_dates".into()], ..Options::default() };
//! assert!(options.check().is_ok());
//! assert_eq!((options.date_shift, &options.burned_in), (DateShift::Patient, &BurnedIn::Quarantine));
//! ```

mod actions;
mod attributes;
mod burned_in;
mod dates;
mod device_rules;
mod file;
mod iod;
mod json;
mod lists;
mod mapping;
mod options;
mod private;
mod pseudonym;
mod quarantine;
mod report;
mod residual;
mod rules;
mod statement;
mod structured;
mod table;
#[cfg(test)]
mod tests;
mod uids;
mod value;
mod vocabulary;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;
use rayon::prelude::*;

use crate::control::Control;
pub use crate::dicom::geometry::{Finding, Frames};
pub use crate::dicom::{Channel, FrameOf, Geometry, Mark, Verdict};
use crate::dicom::{IdentifiedStudy, Instance, Region, StoredPixels};
use crate::error::{Error, Kind, Result, Stage};
use crate::secret::Secret;
use actions::{Study, Worker};
pub use burned_in::BurnedIn;
use dates::Shift;
pub use device_rules::DeviceRules;
use file::Header;
use iod::Attributes;
pub use mapping::Mapping;
use options::rules_in_order;
pub use options::{DateShift, Options, Strictness};
use pseudonym::Patient;
use report::Done;
pub use report::{Counts, Report};
use residual::{Harvest, Searcher};
use rules::{Place, Reason, Rules, Scheme};
pub use statement::conformance_statement;
use table::{Choice, tables};

/// A study that may leave this module: the only thing a [`crate::imaging::Volume`] can be made from.
pub struct ReleasedStudy {
    pub(crate) instances: Vec<Instance>,
    pub(crate) frames: Vec<FrameOf>,
    /// The data sets as they were searched, for files; none where no pixels were kept.
    headers: Vec<Header>,
    pub(crate) pixels: Vec<StoredPixels>,
    pub(crate) voxels: Arc<Vec<f32>>,
    pub(crate) channels: Vec<Channel>,
    pub(crate) geometry: Geometry,
    pub(crate) modality: String,
    /// Free text of the header, to be compared and never told.
    pub(crate) body_part: String,
    pub(crate) report: Report,
    pub(crate) mapping: Option<Mapping>,
}

/// De-identifies a study: headers by the profile and options, pixels by quarantine, everything checked for what is left over.
///
/// Errors: [`Kind::ConfigInvalidValue`] for the options, [`Kind::ProjectKeyMissing`] for a key of zeros,
/// [`Kind::SopClassQuarantined`] and [`Kind::BurnedInText`] for what is refused by its header, [`Kind::PatientIdMissing`] when (0010,0020)
/// is empty, [`Kind::ResidualIdentifier`] when an identifier of the input stands in the output. Nothing is released with an error.
pub fn deidentify(study: IdentifiedStudy, options: &Options, project_key: &Secret<[u8; 32]>, control: &Control) -> Result<ReleasedStudy> {
    let IdentifiedStudy { instances, frames, blacked_out, pixels, voxels, channels, geometry, modality, body_part, .. } = study;
    let rules = Rules { tables: tables()?, choices: options.choices()? };
    let key = project_key.expose();
    if key.iter().all(|byte| *byte == 0) {
        return Err(Error::new(Kind::ProjectKeyMissing, "the project key is all zeros"));
    }
    let device_rules = rules_in_order(options.device_rules.as_deref(), DeviceRules::built_in()?);
    let regions = |number: usize| blacked_out.get(number).map_or(&[][..], Vec::as_slice);
    // Of several refused instances the first is the error, whatever the threads do.
    let classes: Vec<Result<String>> = instances
        .par_iter()
        .enumerate()
        .map(|(number, instance)| quarantine::admit(number, instance, &options.burned_in, &device_rules, regions(number)))
        .collect();
    let classes = classes.into_iter().collect::<Result<Vec<String>>>()?;
    let defined = defined(&classes, options.strictness)?;
    let (issuer, id) = identity(&instances)?;
    let patient = Patient::new(&issuer, &id)?;
    let pseudonym = patient.pseudonym(key);
    let weeks = match options.date_shift {
        DateShift::Patient => patient.weeks(key),
        DateShift::Weeks(weeks) => weeks,
    };
    let names = names(&instances);
    let study = Study {
        rules: &rules,
        key,
        pseudonym: &pseudonym,
        shift: Shift::weeks(weeks),
        names: &names,
        keeps_mapping: options.keeps_mapping,
    };
    control.progress("anonymize", 0.0);
    // One worker takes several instances: those of a series lose the same values, which are then remembered once.
    let share = instances.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    let done: Vec<(Vec<Instance>, Worker<'_>)> = instances
        .into_par_iter()
        .zip(classes)
        .enumerate()
        .chunks(share)
        .map(|share| {
            let (mut worker, mut released) = (Worker::new(&study), Vec::with_capacity(share.len()));
            for (number, (instance, class)) in share {
                control.check()?;
                let object =
                    Object { class: &class, defined: defined.get(&class), blacked_out: regions(number), pixels: pixels.get(number) };
                released.push(release_instance(&mut worker, instance, &object)?);
            }
            Ok((released, worker))
        })
        .collect::<Result<_>>()?;
    control.progress("anonymize", 0.5);

    let (mut released, mut report, mut harvest) = (Vec::new(), Report::default(), Harvest::default());
    let mut mapping = options.keeps_mapping.then(Mapping::default);
    for (instances, worker) in done {
        released.extend(instances);
        report.add(&worker.report);
        harvest.merge(worker.harvest);
        if let (Some(mapping), Some(part)) = (&mut mapping, worker.mapping) {
            mapping.merge(part);
        }
    }
    if let Some(mapping) = &mut mapping {
        mapping.patient(&id, &pseudonym);
        if rules.choices.has(Choice::ModifiedDates) {
            mapping.days(&id, i64::from(weeks) * 7);
        }
    }
    // An instance that this library released before says so in these words.
    harvest.made(&attributes::method(&rules));
    let searcher = Searcher::new(&harvest)?;
    drop(harvest);
    let scrubbed: u64 = released.par_iter_mut().map(|instance| residual::scrub(&mut instance.dataset, &searcher)).sum();
    (0..scrubbed).for_each(|_| report.count(Done::Replaced, Reason::Residual));
    let keeps_headers = !pixels.is_empty();
    let headers: Vec<Option<Header>> = released
        .par_iter()
        .enumerate()
        .map(|(number, instance)| {
            control.check()?;
            let (bytes, body) = serialize(instance)?;
            searcher.check(number, &bytes)?;
            Ok(keeps_headers.then(|| Header::new(bytes, body)))
        })
        .collect::<Result<_>>()?;
    control.progress("anonymize", 1.0);

    report.deidentified = true;
    report.codes = attributes::codes(&rules, report.blacked_out > 0).iter().map(|code| code.value.clone()).collect();
    report.pseudonym = pseudonym;
    // The loader's word for the modality is a value of the header like any other.
    let modality = if value::is_valid(VR::CS, std::slice::from_ref(&modality)) { modality } else { "OT".to_owned() };
    let headers = headers.into_iter().flatten().collect();
    Ok(ReleasedStudy { instances: released, frames, headers, pixels, voxels, channels, geometry, modality, body_part, report, mapping })
}

/// The single function that honours `auto_anonymize = false`; what it returns says that it is not de-identified.
pub fn release_identified(study: IdentifiedStudy) -> ReleasedStudy {
    let IdentifiedStudy { instances, frames, voxels, channels, geometry, modality, body_part, .. } = study;
    // Files are written of de-identified studies only.
    let (headers, pixels, report) = (Vec::new(), Vec::new(), Report::default());
    ReleasedStudy { instances, frames, headers, pixels, voxels, channels, geometry, modality, body_part, report, mapping: None }
}

impl ReleasedStudy {
    /// Grid of the voxels.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }
    /// Modality (MR, CT, ...).
    pub fn modality(&self) -> &str {
        &self.modality
    }
    /// For each channel, then for each slice that came, the instance and frame in which it is stored.
    pub fn frames(&self) -> &[FrameOf] {
        &self.frames
    }
    /// What was done.
    pub fn report(&self) -> &Report {
        &self.report
    }
    /// Old and new identifiers, where they were asked for.
    pub fn mapping(&self) -> Option<&Mapping> {
        self.mapping.as_ref()
    }
    /// De-identified metadata in the DICOM JSON Model (PS3.18 Annex F), of the first instance.
    ///
    /// Of a study that was released as it is, only Patient Identity Removed (0012,0062) `NO`: this text may go anywhere.
    pub fn metadata_json(&self) -> Result<String> {
        if !self.report.deidentified {
            let no = DataElement::new(Tag(0x0012, 0x0062), VR::CS, PrimitiveValue::from("NO"));
            return Ok(json::dataset(&InMemDicomObject::from_element_iter([no])).to_string());
        }
        let first =
            self.instances.first().ok_or_else(|| Error::new(Kind::Absent, "the study has no instances").at(Stage::Deidentification))?;
        Ok(json::dataset(&first.dataset).to_string())
    }
}

/// What is known of an instance before its attributes are looked at.
struct Object<'a> {
    class: &'a str,
    defined: Option<&'a Attributes>,
    blacked_out: &'a [Region],
    pixels: Option<&'a StoredPixels>,
}

/// The attributes of each class's IOD, where nothing else may stay.
fn defined(classes: &[String], strictness: Strictness) -> Result<HashMap<String, Attributes>> {
    let mut defined = HashMap::new();
    for (number, class) in classes.iter().enumerate().filter(|_| strictness == Strictness::Strict) {
        if defined.contains_key(class) {
            continue;
        }
        let Some(attributes) = iod::attributes(class)? else {
            let why = format!("instance {number}: a SOP class whose attributes are not known, which deid.strictness asks for");
            return Err(Error::new(Kind::SopClassQuarantined, why));
        };
        defined.insert(class.clone(), attributes);
    }
    Ok(defined)
}

/// One instance by the rules, with file meta information of our own.
fn release_instance(worker: &mut Worker<'_>, instance: Instance, object: &Object<'_>) -> Result<Instance> {
    let Object { class, defined, blacked_out, pixels } = *object;
    let Instance { meta, dataset } = instance;
    let study = worker.study;
    let place = Place { iod: study.rules.tables.iod(class), top: true, bare: false, scheme: Scheme::None, defined, overlays: 0 };
    let mut dataset = worker.instance(dataset, place)?;
    // What named the file, its sender and its software in group 0002 is gone with the old file meta information.
    let Worker { report, harvest, mapping, .. } = worker;
    let titles = [&meta.source_application_entity_title, &meta.sending_application_entity_title, &meta.receiving_application_entity_title];
    for title in titles.into_iter().flatten() {
        harvest.lost(Tag(0x0002, 0x0016), VR::AE, std::slice::from_ref(title), false);
        report.count(Done::Removed, Reason::Structure);
    }
    let old = meta.media_storage_sop_instance_uid.trim_end_matches([' ', '\0']);
    let kept = study.rules.choices.has(Choice::Uids);
    let new = if kept { old.to_owned() } else { uids::remap(study.key, old) };
    if !kept {
        harvest.lost(Tag(0x0002, 0x0003), VR::UI, &[old.to_owned()], true);
        harvest.made(&new);
        if let Some(mapping) = mapping {
            mapping.uid(old, &new);
        }
    }
    // A file without its own SOP Instance UID gets the one of its file meta information; where they differ, the data set is right.
    let inner = dataset.get(Tag(0x0008, 0x0018)).and_then(|element| element.value().primitive()).map(value::texts);
    let uid = inner.and_then(|texts| texts.into_iter().next()).filter(|uid| !uid.is_empty()).unwrap_or(new);
    dataset.put(DataElement::new(Tag(0x0008, 0x0018), VR::UI, PrimitiveValue::from(uid.as_str())));
    dataset.put(DataElement::new(Tag(0x0008, 0x0016), VR::UI, PrimitiveValue::from(class)));
    attributes::declare(&mut dataset, study.rules, !blacked_out.is_empty());
    report.blacked_out += u64::from(!blacked_out.is_empty());
    if let Some(pixels) = pixels {
        pixels.describe(&mut dataset);
    }
    let meta = crate::dicom::writer::file_meta(class, &uid, EXPLICIT_VR_LITTLE_ENDIAN.uid())?;
    Ok(Instance { meta, dataset })
}

/// Issuer and id of the study's patient: the same in every instance.
fn identity(instances: &[Instance]) -> Result<(String, String)> {
    let text = |instance: &Instance, tag| {
        let value = instance.dataset.get(tag).and_then(|element| element.value().primitive());
        value.and_then(|value| value::texts(value).into_iter().next()).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    let mut identities = instances.iter().map(|instance| (text(instance, Tag(0x0010, 0x0021)), text(instance, Tag(0x0010, 0x0020))));
    let first = identities.next().ok_or_else(|| Error::new(Kind::NoDicomFiles, "").at(Stage::Deidentification))?;
    match identities.position(|other| other != first) {
        // One with and one without an id is the same case: whose instance that is cannot be known.
        Some(index) => {
            Err(Error::new(Kind::DicomMalformed, format!("instances 0 and {} name different patients", index + 1))
                .at(Stage::Deidentification))
        }
        None => Ok(first),
    }
}

/// Lower-case words of every name in the study, at any depth.
fn names(instances: &[Instance]) -> HashSet<String> {
    fn collect(item: &InMemDicomObject, depth: usize, names: &mut HashSet<String>) {
        for element in item {
            if let (Some(items), true) = (element.items(), depth > 0) {
                items.iter().for_each(|item| collect(item, depth - 1, names));
            } else if let (VR::PN, Some(value)) = (element.vr(), element.value().primitive()) {
                for text in value::texts(value) {
                    names.extend(
                        text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase),
                    );
                }
            }
        }
    }
    let of = |instance: &Instance| {
        let mut names = HashSet::new();
        collect(&instance.dataset, 64, &mut names);
        names
    };
    let united = |mut one: HashSet<String>, other: HashSet<String>| {
        one.extend(other);
        one
    };
    instances.par_iter().map(of).reduce(HashSet::new, united)
}

/// An instance as a file (PS3.10 7.1), in explicit VR, little endian, with an empty preamble; and where its data set begins.
fn serialize(instance: &Instance) -> Result<(Vec<u8>, usize)> {
    let failed = || Error::new(Kind::Internal, "a released instance cannot be written").at(Stage::Deidentification);
    let mut bytes = vec![0; 128];
    bytes.write_all(b"DICM").map_err(|_| failed())?;
    instance.meta.write(&mut bytes).map_err(|_| failed())?;
    let body = bytes.len();
    instance.dataset.write_dataset_with_ts(&mut bytes, &EXPLICIT_VR_LITTLE_ENDIAN.erased()).map_err(|_| failed())?;
    Ok((bytes, body))
}
