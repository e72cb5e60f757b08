//! De-identified DICOM files: a released header, the pixels as they came, file meta information of our own (PS3.10 section 7.1).

use std::io::{self, Write};

use dicom_core::header::Header as _;
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::entries::EXPLICIT_VR_LITTLE_ENDIAN;

use super::ReleasedStudy;
use crate::dicom::writer;
use crate::error::{Error, Kind, Result, Stage};

/// Group of the pixel data; what comes after it in the order of tags is written after it.
const PIXELS: u16 = 0x7FE0;

/// A released instance as it was searched for what is left over: file meta information of an uncompressed file, and the data set.
pub(crate) struct Header {
    bytes: Vec<u8>,
    body: usize,
}

impl Header {
    /// `body`: where the data set begins.
    pub(super) fn new(bytes: Vec<u8>, body: usize) -> Header {
        Header { bytes, body }
    }

    fn data_set(&self) -> &[u8] {
        self.bytes.get(self.body..).unwrap_or_default()
    }
}

impl ReleasedStudy {
    /// Names of the study's files without an ending: the new SOP Instance UIDs, in the order of the volume. None unless the pixels were kept and the
    /// study was de-identified.
    pub fn file_names(&self) -> Vec<String> {
        let name = |(instance, _): (&super::Instance, _)| uid(&instance.meta.media_storage_sop_instance_uid).to_owned();
        self.instances.iter().zip(&self.pixels).map(name).collect()
    }

    /// Writes a file as a whole: header and pixels go straight to `out`.
    ///
    /// # Errors
    /// Those of `out`; an index without a file is invalid input.
    pub fn write_file(&self, index: usize, out: &mut dyn Write) -> io::Result<()> {
        let absent = || io::Error::new(io::ErrorKind::InvalidInput, "the study has no such file");
        let (header, pixels) = self.headers.get(index).zip(self.pixels.get(index)).ok_or_else(absent)?;
        let instance = self.instances.get(index).ok_or_else(absent)?;
        let meta = writer::file_meta(
            uid(&instance.meta.media_storage_sop_class_uid),
            uid(&instance.meta.media_storage_sop_instance_uid),
            pixels.transfer_syntax(),
        );
        let meta = meta.map_err(|error| io::Error::other(error.detail().to_owned()))?;
        let mut head = vec![0; 128];
        head.extend_from_slice(b"DICM");
        meta.write(&mut head).map_err(io::Error::other)?;
        out.write_all(&head)?;
        // The data set has no element of the pixels' group; nearly always nothing comes after it.
        if instance.dataset.iter().all(|element| element.tag().group() < PIXELS) {
            out.write_all(header.data_set())?;
            return pixels.write(out);
        }
        let part = |out: &mut dyn Write, is_wanted: &dyn Fn(u16) -> bool| -> io::Result<()> {
            let elements = instance.dataset.iter().filter(|element| is_wanted(element.tag().group()));
            let part = InMemDicomObject::from_element_iter(elements.cloned());
            part.write_dataset_with_ts(out, &EXPLICIT_VR_LITTLE_ENDIAN.erased()).map_err(io::Error::other)
        };
        part(out, &|group| group < PIXELS)?;
        pixels.write(out)?;
        part(out, &|group| group > PIXELS)
    }

    /// Checks that files can be written of the study.
    ///
    /// # Errors
    /// [`Kind::OutputUnsupported`] for a study that was released as it is, or whose pixels were not kept.
    pub fn check_files(&self) -> Result<()> {
        if self.pixels.len() == self.instances.len() && self.report.deidentified {
            return Ok(());
        }
        Err(Error::new(Kind::OutputUnsupported, "dicom files are written of de-identified studies only")
            .with_hint("add the operation anonymize, or take dicom out of output.formats")
            .at(Stage::Deidentification))
    }
}

fn uid(text: &str) -> &str {
    text.trim_end_matches(['\0', ' '])
}
