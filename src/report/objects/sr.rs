//! Numbers as a DICOM structured report: Comprehensive 3D SR (PS3.3 A.35.13) by the template Measurement Report (PS3.16 TID 1500).
//!
//! Each label of a mask is a group of measurements by TID 1411, with its volume in ml, that refers to its segment; what a model predicted is a group by TID
//! 1501. Both say which model, in which version, the numbers are from, and the report says that it is for research.

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, Tag, VR};

use super::seg::{self, SegKind};
use super::{Draft, Identity, Origin, SERIES, decimal, uid};
use crate::error::{Error, Kind, Result, Stage};
use crate::inference::{Label, ModelIdentity, PROBABILITY_LABEL, Segmentation};

const COMPREHENSIVE_3D_SR: &str = "1.2.840.10008.5.1.4.1.1.88.34";
/// Said in every report.
const STATEMENT: &str = "For research use only. Not a medical device: not to be used for diagnosis or treatment.";

/// A number that a model predicted.
pub struct Predicted {
    /// Name of the model.
    pub model: String,
    /// Its version; empty when it is not known.
    pub version: String,
    /// What the number stands for.
    pub label: String,
    /// The number; a probability from 0 to 1 where the label is `cancer_probability`.
    pub value: f64,
}

/// Makes a structured report, as the bytes of a file. `kind` is how the mask's own object is stored, to which the report refers.
///
/// # Errors
/// [`Kind::Absent`] without a mask and without a prediction.
pub fn structured_report(mask: Option<&Segmentation>, predicted: &[Predicted], origin: &Origin, kind: SegKind) -> Result<Vec<u8>> {
    if mask.is_none() && predicted.is_empty() {
        return Err(Error::new(Kind::Absent, "the study was neither segmented nor predicted").at(Stage::Report));
    }
    // Of each report its own: its content may have grown since the last one.
    let identity = Identity { series: origin.sr_series.clone(), instance: uid()? };
    let mut draft = origin.begin(COMPREHENSIVE_3D_SR, &identity, "SR", "Measurements, for research use only");
    draft.text(Tag(0x0020, 0x0011), VR::IS, "301");
    draft.items(Tag(0x0008, 0x1111), Vec::new());
    draft.items(Tag(0x0040, 0xA372), Vec::new());
    draft.text(Tag(0x0040, 0xA491), VR::CS, "COMPLETE");
    draft.text(Tag(0x0040, 0xA493), VR::CS, "UNVERIFIED");
    draft.items(Tag(0x0040, 0xA375), vec![evidence(mask.is_some(), origin, kind)]);
    container(&mut draft, ["126000", "DCM", "Imaging Measurement Report"]);
    draft.item(Tag(0x0040, 0xA504), |template| {
        template.text(Tag(0x0008, 0x0105), VR::CS, "DCMR");
        template.text(Tag(0x0040, 0xDB00), VR::CS, "1500");
    });
    let mut groups: Vec<Draft> = Vec::new();
    if let Some(mask) = mask {
        for (index, label) in mask.table().iter().enumerate() {
            groups.push(volume(mask, label, seg::number(index, label, kind), origin, kind)?);
        }
    }
    groups.extend(models(predicted).into_iter().map(|of_one| predictions(&of_one)).collect::<Result<Vec<_>>>()?);
    let mut measurements = content("CONTAINS", "CONTAINER", ["126010", "DCM", "Imaging Measurements"]);
    measurements.text(Tag(0x0040, 0xA050), VR::CS, "SEPARATE");
    measurements.items(Tag(0x0040, 0xA730), groups);
    let language = ["121049", "DCM", "Language of Content Item and Descendants"];
    let items = vec![
        code("HAS CONCEPT MOD", language, ["en-US", "RFC5646", "English (United States)"]),
        code("HAS OBS CONTEXT", ["121005", "DCM", "Observer Type"], ["121007", "DCM", "Device"]),
        uid_reference("HAS OBS CONTEXT", ["121012", "DCM", "Device Observer UID"], crate::dicom::writer::IMPLEMENTATION_CLASS_UID),
        text("HAS OBS CONTEXT", ["121013", "DCM", "Device Observer Name"], "Secure Media Processor"),
        text("HAS OBS CONTEXT", ["121015", "DCM", "Device Observer Model Name"], concat!("libsmp ", env!("CARGO_PKG_VERSION"))),
        code("HAS CONCEPT MOD", ["121058", "DCM", "Procedure reported"], ["363679005", "SCT", "Imaging procedure"]),
        measurements,
        text("CONTAINS", ["121106", "DCM", "Comment"], STATEMENT),
    ];
    draft.items(Tag(0x0040, 0xA730), items);
    let mut file = Vec::new();
    let failed = |_| Error::new(Kind::Internal, "a structured report cannot be written").at(Stage::Report);
    draft.write(COMPREHENSIVE_3D_SR, &identity.instance, &mut file).map_err(failed)?;
    Ok(file)
}

/// What the report is about: the images, and the object of the mask (PS3.3 table C.17-2).
fn evidence(has_mask: bool, origin: &Origin, kind: SegKind) -> Draft {
    let mut series = Vec::new();
    if has_mask {
        let mut of_mask = Draft::new();
        of_mask.text(SERIES, VR::UI, &origin.seg.series);
        of_mask.items(Tag(0x0008, 0x1199), vec![seg_reference(origin, kind)]);
        series.push(of_mask);
    }
    let mut images = Draft::new();
    images.text(SERIES, VR::UI, &origin.text(SERIES));
    images.items(Tag(0x0008, 0x1199), origin.references());
    series.push(images);
    let mut study = Draft::new();
    study.items(Tag(0x0008, 0x1115), series);
    study.text(Tag(0x0020, 0x000D), VR::UI, &origin.text(Tag(0x0020, 0x000D)));
    study
}

/// SOP class and instance of the mask's object.
fn seg_reference(origin: &Origin, kind: SegKind) -> Draft {
    let mut item = Draft::new();
    item.text(Tag(0x0008, 0x1150), VR::UI, seg::class(kind));
    item.text(Tag(0x0008, 0x1155), VR::UI, &origin.seg.instance);
    item
}

/// A group by TID 1411: a label with its segment and its volume.
fn volume(mask: &Segmentation, label: &Label, number: u16, origin: &Origin, kind: SegKind) -> Result<Draft> {
    let own = format!("label-{}", label.value);
    let finding = match &label.code {
        Some(code) => [code.value.as_str(), &code.scheme, &code.meaning],
        None => [own.as_str(), "99SMP", &label.name],
    };
    let mut segment = content("CONTAINS", "IMAGE", ["121191", "DCM", "Referenced Segment"]);
    let mut reference = seg_reference(origin, kind);
    // Readers that do not know label maps as segmentations refuse a segment's number there; the finding says which label it is.
    if kind == SegKind::Binary {
        reference.number(Tag(0x0062, 0x000B), number);
    }
    segment.items(Tag(0x0008, 0x1199), vec![reference]);
    group(
        &label.name,
        vec![
            code("CONTAINS", ["121071", "DCM", "Finding"], finding),
            segment,
            uid_reference("CONTAINS", ["121232", "DCM", "Source series for segmentation"], &origin.text(SERIES)),
            number_of(["118565006", "SCT", "Volume"], label.volume_ml, ["mL", "UCUM", "milliliter"], model(mask.model())),
        ],
    )
}

/// A group by TID 1501: what one model predicted.
fn predictions(of_one: &[&Predicted]) -> Result<Draft> {
    let numbers = of_one.iter().enumerate().map(|(index, predicted)| {
        let algorithm = algorithm(&predicted.model, &predicted.version);
        if predicted.label == PROBABILITY_LABEL {
            return number_of(["111047", "DCM", "Probability of cancer"], 100.0 * predicted.value, ["%", "UCUM", "Percent"], algorithm);
        }
        let own = format!("value-{}", index + 1);
        number_of([&own, "99SMP", &predicted.label], predicted.value, ["1", "UCUM", "no units"], algorithm)
    });
    let name = of_one.first().map(|predicted| predicted.model.as_str()).unwrap_or_default();
    group(name, numbers.collect())
}

/// Predictions by model, in the order in which the models come.
fn models(predicted: &[Predicted]) -> Vec<Vec<&Predicted>> {
    let mut models: Vec<Vec<&Predicted>> = Vec::new();
    for one in predicted {
        let same = models.iter_mut().find(|others| others.iter().all(|other| (&other.model, &other.version) == (&one.model, &one.version)));
        match same {
            Some(others) => others.push(one),
            None => models.push(vec![one]),
        }
    }
    models
}

/// A group of measurements with an identity of its own.
fn group(name: &str, items: Vec<Draft>) -> Result<Draft> {
    let mut group = content("CONTAINS", "CONTAINER", ["125007", "DCM", "Measurement Group"]);
    group.text(Tag(0x0040, 0xA050), VR::CS, "SEPARATE");
    let tracked = [
        text("HAS OBS CONTEXT", ["112039", "DCM", "Tracking Identifier"], name),
        uid_reference("HAS OBS CONTEXT", ["112040", "DCM", "Tracking Unique Identifier"], &uid()?),
    ];
    group.items(Tag(0x0040, 0xA730), tracked.into_iter().chain(items).collect());
    Ok(group)
}

/// What made a number (TID 4019).
fn algorithm(name: &str, version: &str) -> Vec<Draft> {
    let version = if version.is_empty() { "not told" } else { version };
    vec![
        text("HAS CONCEPT MOD", ["111001", "DCM", "Algorithm Name"], name),
        text("HAS CONCEPT MOD", ["111003", "DCM", "Algorithm Version"], version),
    ]
}

fn model(identity: &ModelIdentity) -> Vec<Draft> {
    let mut items = algorithm(&identity.name, &identity.version);
    if !identity.sha256.is_empty() {
        items.push(text("HAS CONCEPT MOD", ["111002", "DCM", "Algorithm Parameters"], &format!("sha256 {}", identity.sha256)));
    }
    items
}

/// The type and the name of a container that is the report itself.
fn container(draft: &mut Draft, name: [&str; 3]) {
    draft.text(Tag(0x0040, 0xA040), VR::CS, "CONTAINER");
    draft.code(Tag(0x0040, 0xA043), name);
    draft.text(Tag(0x0040, 0xA050), VR::CS, "SEPARATE");
}

/// An item of content: how it relates to what it stands in, its type, its name.
fn content(relation: &str, kind: &str, name: [&str; 3]) -> Draft {
    let mut item = Draft::new();
    item.text(Tag(0x0040, 0xA010), VR::CS, relation);
    item.text(Tag(0x0040, 0xA040), VR::CS, kind);
    item.code(Tag(0x0040, 0xA043), name);
    item
}

fn code(relation: &str, name: [&str; 3], value: [&str; 3]) -> Draft {
    let mut item = content(relation, "CODE", name);
    item.code(Tag(0x0040, 0xA168), value);
    item
}

fn text(relation: &str, name: [&str; 3], value: &str) -> Draft {
    let mut item = content(relation, "TEXT", name);
    item.text(Tag(0x0040, 0xA160), VR::UT, &value.replace(char::is_control, " "));
    item
}

fn uid_reference(relation: &str, name: [&str; 3], value: &str) -> Draft {
    let mut item = content(relation, "UIDREF", name);
    item.text(Tag(0x0040, 0xA124), VR::UI, value);
    item
}

fn number_of(name: [&str; 3], value: f64, unit: [&str; 3], items: Vec<Draft>) -> Draft {
    let mut item = content("CONTAINS", "NUM", name);
    item.item(Tag(0x0040, 0xA300), |measured| {
        // Exact beside the decimal string, which may not be (PS3.3 table C.18.1-1).
        if decimal(value).parse() != Ok(value) {
            measured.0.put(DataElement::new(Tag(0x0040, 0xA161), VR::FD, PrimitiveValue::from(value)));
        }
        measured.decimals(Tag(0x0040, 0xA30A), &[value]);
        measured.code(Tag(0x0040, 0x08EA), unit);
    });
    item.items(Tag(0x0040, 0xA730), items);
    item
}
