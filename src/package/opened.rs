//! A package that proved genuine, of either form: sealed by this library, or encrypted by a hospital with OpenSSL.
//!
//! Callers see one type and need not know the form. The differences that remain are told in the facts: a study in CMS has no signed time and no
//! purpose, and how many files it holds is known after reading.

use super::cms::{self, Files, Import};
use super::header::MAX_PACK;
use super::manifest::FileEntry;
use super::open::{self, Found, SealedPackage};
use super::{Folder, Limits, PackageFacts, PlainFile};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::KeyStore;
use crate::secret::Plain;
use crate::transfer::Client;

/// What is known of a study once its origin is proved.
pub struct Package {
    pub(super) form: Form,
}

pub(super) enum Form {
    Sealed(Box<SealedPackage>),
    Cms(Box<Import>),
}

/// Opens what lies at a path, a sealed package or a study in CMS.
///
/// Of a sealed package header and manifest are proved: signature, sender (pinned; `trusted` narrows to these key ids when not empty), recipient,
/// manifest; and every pack is seen to be there in its full length, so that an incomplete package fails before anything large is fetched.
/// A study in CMS has one tag at its end, so all of it is fetched and authenticated here, and again by [`Package::read`].
pub fn open(
    client: &Client,
    remote_path: &str,
    keys: &KeyStore,
    trusted: &[String],
    limits: &Limits,
    control: &Control,
) -> Result<Package> {
    let folder = Folder::new(remote_path);
    let form = match open::find(client, &folder, limits, control)? {
        Found::Header(_, bytes) => Form::Sealed(Box::new(open::open_sealed(client, &folder, &bytes, keys, trusted, limits, control)?)),
        Found::Cms(object) => Form::Cms(Box::new(Import::open(client, &folder, &object, keys, trusted, limits, control)?)),
    };
    Ok(Package { form })
}

impl Package {
    /// Facts of the package. Of a study in CMS `files` and `bytes` are 0 here: see [`Package::is_counted`].
    pub fn facts(&self) -> &PackageFacts {
        match &self.form {
            Form::Sealed(package) => package.facts(),
            Form::Cms(import) => import.facts(),
        }
    }

    /// Whether number and size of the files are known before reading.
    pub fn is_counted(&self) -> bool {
        matches!(self.form, Form::Sealed(_))
    }

    /// Decrypts every file, each whole, in the order of manifest or archive. Returns the facts, complete in either form.
    ///
    /// Callers must throw away what they were given if this returns an error.
    pub fn read(&self, control: &Control, deliver: &mut dyn FnMut(PlainFile) -> Result<()>) -> Result<PackageFacts> {
        match &self.form {
            Form::Sealed(package) => package.read(control, deliver).map(|()| package.facts().clone()),
            Form::Cms(import) => import.read(control, &mut Whole { file: None, deliver }),
        }
    }

    /// Decrypts every file to somebody who takes it in parts, so that no file of an archive has to fit into memory.
    pub(super) fn stream(&self, control: &Control, files: &mut dyn Files) -> Result<PackageFacts> {
        match &self.form {
            Form::Sealed(package) => {
                package.read(control, &mut |file| {
                    let entry: &FileEntry = package.files.get(file.index).ok_or_else(|| defect("a file too many"))?;
                    files.begin(file.index, &entry.path, entry.size)?;
                    files.bytes(&file.bytes)?;
                    files.end()
                })?;
                Ok(package.facts().clone())
            }
            Form::Cms(import) => import.read(control, files),
        }
    }

    /// What a report calls the form.
    pub(super) fn objects(&self) -> Vec<(&'static str, String, u64, u64)> {
        match &self.form {
            Form::Sealed(package) => package.objects(),
            Form::Cms(import) => {
                let (digest, size, ranges) = import.object();
                vec![(cms::FORMAT, digest, size, ranges)]
            }
        }
    }
}

/// Puts the files of an archive together in memory.
struct Whole<'a> {
    file: Option<PlainFile>,
    deliver: &'a mut dyn FnMut(PlainFile) -> Result<()>,
}

impl Files for Whole<'_> {
    fn begin(&mut self, index: usize, _path: &str, size: u64) -> Result<()> {
        // The same bound as in a sealed package, where no file is larger than a pack.
        if size > MAX_PACK {
            let error =
                Error::new(Kind::LimitExceeded, format!("a file of {size} bytes, at most 1 GiB is held in memory")).at(Stage::Package);
            return Err(error.with_hint("unseal the study and process its files from a folder"));
        }
        // One allocation of the whole size: a buffer that grows leaves copies of plaintext behind. The content was seen to be as long.
        let mut bytes = Plain::default();
        let reserved = usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok());
        reserved.ok_or_else(|| Error::new(Kind::OutOfMemory, format!("a file of {size} bytes")).at(Stage::Package))?;
        self.file = Some(PlainFile { index, bytes });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| defect("bytes of no file"))?;
        file.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let file = self.file.take().ok_or_else(|| defect("the end of no file"))?;
        (self.deliver)(file)
    }
}

fn defect(detail: &'static str) -> Error {
    Error::new(Kind::Internal, detail).at(Stage::Package)
}
