//! What every DICOM file says of who wrote it (PS3.10 section 7.1).

use dicom_object::{FileMetaTable, meta::FileMetaTableBuilder};

use crate::error::{Error, Kind, Result};

/// Implementation Class UID of this library (PS3.7 D.3.3.2): one UUID, drawn once.
pub(crate) const IMPLEMENTATION_CLASS_UID: &str = "2.25.263483661621705798745901097582723846215";
/// Implementation Version Name, at most 16 characters.
pub(crate) const IMPLEMENTATION_VERSION_NAME: &str = concat!("SMP_", env!("CARGO_PKG_VERSION"));

/// File meta information of our own.
///
/// # Errors
/// [`Kind::Internal`] for UIDs that are none.
pub(crate) fn file_meta(sop_class: &str, sop_instance: &str, transfer_syntax: &str) -> Result<FileMetaTable> {
    FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(sop_class)
        .media_storage_sop_instance_uid(sop_instance)
        .transfer_syntax(transfer_syntax)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME)
        .build()
        .map_err(|_| Error::new(Kind::Internal, "file meta information could not be built"))
}
