//! One model or several of one contract (folds), opened together and asked together.
//!
//! All members have the contract's inputs, grid and outputs. What is averaged is what the contract's activation leaves: outputs of windows
//! as they are blended, probabilities of predictors.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::inference::contract::Contract;
use crate::inference::model::Model;
use crate::inference::{ModelIdentity, RuntimeOptions, file};

/// Models with their weights; at least one.
pub(super) struct Ensemble {
    members: Vec<(Model, f64)>,
    identity: ModelIdentity,
}

impl Ensemble {
    /// Opens the model of a contract and the other members beside it.
    ///
    /// # Errors
    /// Those of [`Model::open`]; a member's error says which file it was by its place in `ensemble`.
    pub(super) fn open(file: file::ModelFile, path: &Path, contract: &Contract, options: &RuntimeOptions) -> Result<Ensemble> {
        let first = Model::open(file, contract, options)?;
        let mut identity = first.identity.clone();
        let mut members = vec![(first, contract.weight)];
        for (index, member) in contract.ensemble.iter().enumerate() {
            let named = |error: Error| Error::new(error.kind(), format!("ensemble[{index}]: {}", error.detail()));
            let file = file::read(&beside(path, &member.file), options).map_err(named)?;
            let own = Contract { sha256: member.sha256.clone(), ..contract.clone() };
            let model = Model::open(file, &own, options).map_err(named)?;
            if model.fixed_batch() != members[0].0.fixed_batch() {
                return Err(named(Error::new(Kind::ModelShape, "takes another number of windows at once than the first")));
            }
            let agree = |a: &i64, b: &i64| *a < 1 || *b < 1 || a == b;
            let shapes = members[0].0.output_shape().zip(model.output_shape());
            if shapes.is_some_and(|(a, b)| a.len() != b.len() || !a.iter().zip(b).all(|(a, b)| agree(a, b))) {
                return Err(named(Error::new(Kind::ModelShape, "gives another output than the first")));
            }
            identity.members.push(model.identity.sha256.clone());
            members.push((model, member.weight));
        }
        Ok(Ensemble { members, identity })
    }

    /// Who they are together; the device is that on which the first was opened.
    pub(super) fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// Adds the digest of another file that takes part.
    pub(super) fn add_part(&mut self, sha256: &str) {
        self.identity.members.push(sha256.to_owned());
    }

    /// [`Ensemble::identity`], with the device of now.
    pub(super) fn identity_now(&self) -> ModelIdentity {
        ModelIdentity { device: self.first().device_now(), ..self.identity.clone() }
    }

    /// The contract's own model.
    pub(super) fn first(&self) -> &Model {
        // `open` puts one in and nothing takes it out.
        &self.members[0].0
    }

    /// All members and their weights.
    pub(super) fn members(&self) -> &[(Model, f64)] {
        &self.members
    }

    /// Whether all members did what could fail for each.
    pub(super) fn each(&self, check: impl Fn(&Model) -> Result<()>) -> Result<()> {
        self.members.iter().try_for_each(|(model, _)| check(model))
    }

    /// Goes on on the CPU, where `device = auto` allows it; says whether that changed anything.
    ///
    /// # Errors
    /// Those of opening.
    pub(super) fn fall_back(&self) -> Result<bool> {
        let mut changed = false;
        for (model, _) in &self.members {
            changed |= model.fall_back()?;
        }
        Ok(changed)
    }
}

/// A file beside a model.
pub(super) fn beside(model: &Path, name: &str) -> PathBuf {
    model.parent().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}
