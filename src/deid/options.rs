//! How a study is de-identified: what `deid.*` says, checked.

use std::sync::Arc;

use dicom_core::Tag;

use super::burned_in::{self, BurnedIn};
use super::device_rules::DeviceRules;
use super::rules::Choices;
use super::table::Choice;
use super::value;
use crate::dicom::RegionsOf;
use crate::error::{Error, Kind, Result};

/// How a study is de-identified. The pipeline fills it from `deid.*`. The default is the Basic Profile alone.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// PS3.15 options by the table's names (`retain_uids`, ...). Empty = Basic Profile alone.
    pub options: Vec<String>,
    /// How dates move when `retain_longitudinal_modified_dates` is among the options; without it no date is kept at all.
    pub date_shift: DateShift,
    /// What happens to images whose pixels may carry text.
    pub burned_in: BurnedIn,
    /// Whether attributes that the object's IOD does not define go, too.
    pub strictness: Strictness,
    /// Whether old and new identifiers are kept for whoever may know both.
    pub keeps_mapping: bool,
    /// Rules of devices that come before the built-in ones.
    pub device_rules: Option<Arc<DeviceRules>>,
}

/// Which attributes outside Table E.1-1 may stay (`deid.strictness`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Those of the public dictionary that cannot carry text or an identity.
    #[default]
    Standard,
    /// Of those the ones that PS3.3 defines for the object's IOD.
    Strict,
}

/// How dates move (`deid.date_shift`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateShift {
    /// Every patient by a number of weeks of their own, 52 to 520, that follows from the project key.
    #[default]
    Patient,
    /// All patients of the project by the same number of weeks, at least one.
    Weeks(u16),
}

impl Options {
    /// Names of the options, in the order of the table.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Choice::ALL.into_iter().map(Choice::name)
    }

    /// Fails with [`Kind::ConfigInvalidValue`] when a name is unknown or two options contradict each other.
    pub fn check(&self) -> Result<()> {
        self.choices().map(|_| ())
    }

    /// Which regions of an image a [`crate::dicom::Loader`] is to overwrite, where `burned_in` asks for it.
    pub fn regions_of(&self) -> Result<Option<RegionsOf>> {
        if self.burned_in != BurnedIn::BlackOut {
            return Ok(None);
        }
        let (own, built_in) = (self.device_rules.clone(), DeviceRules::built_in()?);
        Ok(Some(Arc::new(move |dataset| {
            let class = dataset.get(Tag(0x0008, 0x0016)).and_then(|element| element.value().primitive()).map(value::texts);
            let class = class.and_then(|texts| texts.into_iter().next()).unwrap_or_default();
            burned_in::regions(&rules_in_order(own.as_deref(), built_in), class.trim(), dataset).unwrap_or_default()
        })))
    }

    pub(super) fn choices(&self) -> Result<Choices> {
        let invalid = |detail: String| Error::new(Kind::ConfigInvalidValue, detail);
        let mut choices = Choices::default();
        for (index, name) in self.options.iter().enumerate() {
            let choice = Choice::from_name(name.trim()).ok_or_else(|| {
                let names: Vec<_> = Options::names().collect();
                invalid(format!("item {} of deid.options is no option of the profile", index + 1))
                    .with_hint(format!("the options are {}", names.join(", ")))
            })?;
            choices = choices.with(choice);
        }
        if choices.has(Choice::FullDates) && choices.has(Choice::ModifiedDates) {
            // PS3.15 E.3.6: an instance carries either its dates or modified ones.
            return Err(invalid("deid.options asks for full dates and for modified dates".to_owned()).with_hint("keep one of the two"));
        }
        if self.date_shift == DateShift::Weeks(0) {
            return Err(invalid("deid.date_shift is zero weeks".to_owned()).with_hint("use patient, or weeks:N with N of at least 1"));
        }
        Ok(choices)
    }
}

/// A user's rules of devices before those of the library.
pub(super) fn rules_in_order<'a>(own: Option<&'a DeviceRules>, built_in: &'a DeviceRules) -> Vec<&'a DeviceRules> {
    own.into_iter().chain([built_in]).collect()
}

impl Strictness {
    /// Reads `standard` or `strict`.
    pub fn from_name(name: &str) -> Result<Strictness> {
        match name {
            "standard" => Ok(Strictness::Standard),
            "strict" => Ok(Strictness::Strict),
            _ => Err(Error::new(Kind::ConfigInvalidValue, "deid.strictness").with_hint("use standard or strict")),
        }
    }

    /// The name in configuration and audit log.
    pub fn name(self) -> &'static str {
        match self {
            Strictness::Standard => "standard",
            Strictness::Strict => "strict",
        }
    }
}

impl DateShift {
    /// Reads `patient` or `weeks:N`.
    pub fn from_name(name: &str) -> Result<DateShift> {
        let weeks = name.strip_prefix("weeks:").and_then(|number| number.parse().ok()).filter(|weeks| *weeks > 0);
        match (name, weeks) {
            ("patient", _) => Ok(DateShift::Patient),
            (_, Some(weeks)) => Ok(DateShift::Weeks(weeks)),
            _ => Err(Error::new(Kind::ConfigInvalidValue, "deid.date_shift").with_hint("use patient, or weeks:N with N of at least 1")),
        }
    }
}
