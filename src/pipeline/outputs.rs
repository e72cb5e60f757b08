//! A study's files, all or none.
//!
//! Products are written into a hidden folder inside `output_path` and renamed into place once every one of them is complete. The folder is
//! made before the study is fetched, so an output that cannot be written is refused before any work is done.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::config;
use crate::control::Control;
use crate::deid::ReleasedStudy;
use crate::error::{Error, Kind, Result};
use crate::keys::KeyStore;
use crate::pipeline::mapping;
use crate::pipeline::result::StudyResult;
use crate::report;

/// The files of one study on their way to `output_path`. Dropping it unpublished removes all of them.
pub(super) struct Staging {
    folder: PathBuf,
    staged: PathBuf,
    /// Topmost folder that had to be made, to be taken away again when nothing is published.
    made: Option<PathBuf>,
    study_id: String,
    formats: Vec<String>,
    names: Vec<String>,
}

impl Staging {
    /// Makes the folders and checks the formats.
    pub(super) fn begin(output_path: &str, study_id: &str, formats: &[String]) -> Result<Staging> {
        for format in formats {
            if !matches!(format.as_str(), "json" | "npy" | "nifti" | "png" | "seg" | "sr" | "dicom") {
                return Err(Error::new(Kind::OutputUnsupported, "output.formats names an unknown format")
                    .with_hint("valid formats: json, npy, nifti, png, seg, sr, dicom"));
            }
        }
        let folder = config::expand(output_path)?;
        let made = topmost_missing(&folder);
        let mut nonce = [0_u8; 8];
        getrandom::fill(&mut nonce).map_err(|_| Error::new(Kind::Internal, "the system gives no random bytes"))?;
        let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
        let staged = folder.join(format!(".smp-{nonce}"));
        let staging = Staging { folder, staged, made, study_id: study_id.to_owned(), formats: formats.to_vec(), names: Vec::new() };
        // From here on a failure drops `staging`, which takes away what was made.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&staging.staged).map_err(unwritable)?;
        Ok(staging)
    }

    /// Writes every product into the hidden folder; the files of the series, where they are asked for, into a folder of their own in it.
    /// Old and new identifiers, where they were kept, are sealed for the identities of the key store.
    pub(super) fn write(mut self, result: &StudyResult, released: &ReleasedStudy, keys: &KeyStore, control: &Control) -> Result<Staging> {
        let mut products: Vec<(&str, String)> = Vec::new();
        for format in &self.formats {
            let id = &self.study_id;
            match format.as_str() {
                "json" => products.push(("summary", format!("{id}_summary.json"))),
                "npy" => {
                    products.push(("volume", format!("{id}_preprocessed.npy")));
                    if result.mask().is_some() {
                        products.push(("mask", format!("{id}_segmentation.npy")));
                    }
                }
                "nifti" if result.mask().is_some() => products.push(("mask", format!("{id}_segmentation.nii.gz"))),
                "seg" if result.mask().is_some() => products.push(("seg", format!("{id}_segmentation.dcm"))),
                "sr" if result.dicom_count() > 0 => products.push(("sr", format!("{id}_report.dcm"))),
                "png" => products.push(("preview", format!("{id}_preview.png"))),
                _ => {}
            }
        }
        for (what, name) in products {
            result.save(&self.staged.join(&name), what)?;
            self.names.push(name);
        }
        if self.formats.iter().any(|format| format == "dicom") {
            released.check_files()?;
            let names: Vec<String> = released.file_names().iter().map(|uid| format!("{}_dicom/{uid}.dcm", self.study_id)).collect();
            // Before the threads meet in it.
            let folder = self.staged.join(format!("{}_dicom", self.study_id));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(unwritable)?;
            names.par_iter().enumerate().try_for_each(|(index, name)| {
                control.check()?;
                report::write_atomically(&self.staged.join(name), &mut |out| released.write_file(index, out))
            })?;
            self.names.extend(names);
        }
        if let Some(mapping) = released.mapping() {
            let folder = format!("{}_mapping", self.study_id);
            mapping::seal(mapping, &self.staged, &folder, keys, control)?;
            for entry in fs::read_dir(self.staged.join(&folder)).map_err(unlisted)? {
                let name = entry.map_err(unlisted)?.file_name();
                self.names.push(format!(
                    "{folder}/{}",
                    name.to_str().ok_or_else(|| Error::new(Kind::Internal, "a sealed file has an odd name"))?
                ));
            }
        }
        Ok(self)
    }

    /// Renames the products into place. Returns how many there are.
    pub(super) fn publish(mut self) -> Result<usize> {
        let unwritable = |_| Error::new(Kind::OutputUnwritable, "a finished file cannot be moved into the output folder");
        // Folders first, so that nothing has moved when one cannot be made. Only the series has one; what somebody else has put there stays.
        let folders: BTreeSet<&Path> = self.names.iter().filter_map(|name| Path::new(name).parent()).collect();
        for folder in folders {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join(folder)).map_err(unwritable)?;
        }
        for name in &self.names {
            fs::rename(self.staged.join(name), self.folder.join(name)).map_err(unwritable)?;
        }
        self.made = None;
        // The names must survive a power cut as surely as the contents.
        if let Ok(folder) = fs::File::open(&self.folder) {
            let _ = folder.sync_all();
        }
        Ok(self.names.len())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.staged);
        if let Some(made) = &self.made {
            remove_empty(&self.folder, made);
        }
    }
}

fn unwritable(_: std::io::Error) -> Error {
    Error::new(Kind::OutputUnwritable, "the output folder cannot be made or written")
}

fn unlisted(_: std::io::Error) -> Error {
    Error::new(Kind::OutputUnwritable, "the folder of the sealed mapping cannot be read")
}

/// The topmost folder of a path that does not exist yet.
fn topmost_missing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).last().map(Path::to_path_buf)
}

/// Removes folders that are empty, from `folder` up to and including `top`.
fn remove_empty(folder: &Path, top: &Path) {
    for ancestor in folder.ancestors() {
        if fs::remove_dir(ancestor).is_err() || ancestor == top {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpublished_output_leaves_no_folder() -> Result<()> {
        let root = tempfile::tempdir().map_err(|_| Error::new(Kind::Internal, "no temporary folder"))?;
        let output = root.path().join("a/b/c");
        let staging = Staging::begin(output.to_str().unwrap(), "study", &["json".to_owned()])?;
        assert!(output.is_dir());
        drop(staging);
        assert!(!root.path().join("a").exists());
        Ok(())
    }

    #[test]
    fn a_folder_that_was_there_stays() -> Result<()> {
        let root = tempfile::tempdir().map_err(|_| Error::new(Kind::Internal, "no temporary folder"))?;
        drop(Staging::begin(root.path().to_str().unwrap(), "study", &[])?);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        Ok(())
    }

    #[test]
    fn an_output_below_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), b"x").unwrap();
        let output = root.path().join("file/results");
        let error = Staging::begin(output.to_str().unwrap(), "study", &[]).err().unwrap();
        assert_eq!(error.kind(), Kind::OutputUnwritable);
    }

    #[test]
    fn an_unknown_format_is_refused_before_anything_is_made() {
        let root = tempfile::tempdir().unwrap();
        let output = root.path().join("x");
        let error = Staging::begin(output.to_str().unwrap(), "study", &["docx".to_owned()]).err().unwrap();
        assert_eq!(error.kind(), Kind::OutputUnsupported);
        assert!(!output.exists());
    }
}
