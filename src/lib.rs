//! Secure Media Processor: from a sealed imaging study in somebody's cloud bucket to de-identified, segmented and scored results,
//! in one process.
//!
//! The public Rust API is the [`pipeline`] with what it is configured by ([`config`], [`keys`]) and what it yields ([`pipeline::StudyResult`],
//! [`audit`], [`erase`]). The C API in `capi` is a thin layer over exactly this; the other modules are the rooms the data pass through,
//! in this order: [`transfer`], [`package`], [`dicom`], [`deid`], [`imaging`], [`inference`], [`report`].

pub mod audit;
#[allow(unsafe_code)]
pub mod capi;
pub mod config;
pub mod control;
pub mod deid;
pub mod dicom;
pub mod erase;
pub mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod imaging;
pub mod inference;
mod json;
pub mod keys;
mod memory;
pub mod package;
pub mod pipeline;
pub mod report;
pub mod secret;
pub mod transfer;

pub use error::{Error, Kind, Result, Stage};
