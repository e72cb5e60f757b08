//! Opening: from a path in a store to a package that proved genuine, with its list of files decrypted and its packs known to be there.

use sha2::{Digest, Sha256};

use super::chunked;
use super::derive::{self, Name, Role};
use super::header::{self, Header, ObjectRef};
use super::manifest::{self, FileEntry, Manifest};
use super::tree::{self, Hash};
use super::{Folder, Limits, PackageFacts, cms, digests_differ, over_limit, wrap};
use crate::control::Control;
use crate::error::{Error, Kind, Result, Stage};
use crate::keys::{KeyStore, hex};
use crate::secret::Secret;
use crate::transfer::{Client, FetchPlan, ObjectInfo};

/// What is known of a package once its header and manifest proved genuine.
pub(super) struct SealedPackage {
    pub(super) client: Client,
    pub(super) facts: PackageFacts,
    pub(super) id: Name,
    pub(super) key: Secret<[u8; 32]>,
    pub(super) manifest_object: Object,
    pub(super) packs: Vec<Object>,
    /// Leaf hashes of each pack.
    pub(super) leaves: Vec<Vec<Hash>>,
    pub(super) files: Vec<FileEntry>,
}

/// An encrypted object that is in the store with the size that the header says.
pub(super) struct Object {
    pub(super) role: Role,
    /// What errors call it: `manifest`, `pack 3 (84185d34..)`.
    pub(super) label: String,
    /// Full name in the store.
    pub(super) remote: String,
    /// The version that all reads must see.
    pub(super) version: String,
    pub(super) signed: ObjectRef,
}

impl PackageFacts {
    /// The facts of a sealed package, from its header (parsed, and as it lies in the store) and its manifest.
    pub(super) fn of(header: Header, sender_id: &str, manifest: &Manifest, bytes: &[u8]) -> PackageFacts {
        PackageFacts {
            id: hex(&header.package),
            sender: hex(&header.sender),
            sender_id: sender_id.to_owned(),
            created: header.created,
            purpose: header.purpose,
            files: manifest.files.len(),
            bytes: manifest.bytes(),
            header_sha256: hex(&Sha256::digest(bytes)),
            format: header::FORMAT,
        }
    }
}

impl SealedPackage {
    /// Facts of the package.
    pub(super) fn facts(&self) -> &PackageFacts {
        &self.facts
    }

    /// Every object for a report: kind, name, size, number of ranges.
    pub(super) fn objects(&self) -> Vec<(&'static str, String, u64, u64)> {
        let packs = self.packs.iter().map(|pack| ("pack", pack));
        let objects = [("manifest", &self.manifest_object)].into_iter().chain(packs);
        objects.map(|(kind, object)| (kind, hex(&object.signed.name), object.signed.size, tree::range_count(object.signed.size))).collect()
    }
}

/// What lies in a folder.
pub(super) enum Found {
    /// The header of a sealed package, as the store has it and its bytes.
    Header(ObjectInfo, Vec<u8>),
    /// The encrypted object of a study in CMS.
    Cms(ObjectInfo),
}

/// Opens header and manifest: signature, sender (pinned; `trusted` narrows to these key ids when not empty), recipient, manifest.
///
/// Also sees that every pack is there in its full length, so that an incomplete package fails before anything large is fetched.
pub(super) fn open_sealed(
    client: &Client,
    folder: &Folder,
    bytes: &[u8],
    keys: &KeyStore,
    trusted: &[String],
    limits: &Limits,
    control: &Control,
) -> Result<SealedPackage> {
    let (header, sender_id, key) = check_header(bytes, keys, trusted, limits)?;
    let manifest_object = Object::manifest(client, folder, &header, control)?;
    let manifest = read_manifest(client, &manifest_object, &header, &key, limits, control)?;
    let packs = header.packs.iter().enumerate();
    // By its number in the header and by what its name in the store begins with; names are random and tell nothing.
    let label = |number: usize, pack: &ObjectRef| format!("pack {number} ({}..)", hex(&pack.name[..4]));
    let packs = packs.map(|(number, pack)| Object::locate(client, folder, Role::Pack, label(number, pack), pack, control));
    let packs = packs.collect::<Result<Vec<Object>>>()?;
    let id = header.package;
    let facts = PackageFacts::of(header, &sender_id, &manifest, bytes);
    let (client, Manifest { leaves, files }) = (client.clone(), manifest);
    Ok(SealedPackage { client, facts, id, key, manifest_object, packs, leaves, files })
}

/// Proves a header genuine: the header, the key id of its sender, and the package key.
pub(super) fn check_header(
    bytes: &[u8],
    keys: &KeyStore,
    trusted: &[String],
    limits: &Limits,
) -> Result<(Header, String, Secret<[u8; 32]>)> {
    let signed = header::parse(bytes)?;
    // The digest of the sender only chooses the key that the signature is checked with; nothing else of the header counts before that.
    let sender = keys.sender(&signed.header.sender)?;
    if !sender.keys.verifies(signed.message, &signed.signature) {
        return Err(Error::new(Kind::SignatureInvalid, format!("sender {}", sender.id)));
    }
    let header = signed.header;
    sender.check_created(&header.created)?;
    let sender_id = sender.id;
    if !trusted.is_empty() && !trusted.contains(&sender_id) {
        let error = Error::new(Kind::UnknownSender, format!("key {sender_id} is not among trusted_senders"));
        return Err(error.with_hint("add the key id to trusted_senders if studies of this sender may be processed here"));
    }
    let total: u64 = header.packs.iter().map(|pack| pack.size).fold(0, u64::saturating_add);
    // Padding adds 12 percent at most, tags a tenth of a percent, and every pack an almost empty last chunk.
    if total > limits.study_bytes.saturating_add(limits.study_bytes / 8).saturating_add(1 << 20) {
        return Err(over_limit("study_bytes", limits.study_bytes));
    }
    let key = unwrap_key(&header, keys)?;
    Ok((header, sender_id, key))
}

/// The header object, or a study in CMS. Without either the folder is empty or holds something unsealed, which is not the same mistake.
pub(super) fn find(client: &Client, folder: &Folder, limits: &Limits, control: &Control) -> Result<Found> {
    let limit = limits.header_bytes.min(header::MAX_BYTES);
    match client.read_object(&folder.object(header::OBJECT), limit, control) {
        Err(error) if error.kind() == Kind::ObjectNotFound => {
            let objects = match client.list(&folder.path, control) {
                // A folder on a web server: only what has a fixed name can be found.
                Err(error) if error.kind() == Kind::Unsupported => cms::look(client, folder, control)?,
                listed => listed?,
            };
            if objects.is_empty() {
                return Err(Error::new(Kind::ObjectNotFound, "the folder is empty or does not exist"));
            }
            match cms::find(folder, &objects)? {
                Some(object) => Ok(Found::Cms(object.clone())),
                None => Err(Error::new(Kind::NotSealed, format!("{} objects, no header.smp", objects.len()))),
            }
        }
        Err(error) if error.kind() == Kind::LimitExceeded => Err(over_limit("header_bytes", limit)),
        other => other.map(|(object, bytes)| Found::Header(object, bytes)),
    }
}

fn unwrap_key(header: &Header, keys: &KeyStore) -> Result<Secret<[u8; 32]>> {
    let digests: Vec<[u8; 32]> = header.recipients.iter().map(|recipient| recipient.digest).collect();
    let (position, public, private) = keys.opener(&digests)?;
    let recipient = header.recipients.get(position).ok_or_else(|| Error::new(Kind::NotARecipient, ""))?;
    let info = derive::wrapping_info(&header.package, &header.sender, &recipient.digest);
    wrap::unwrap(&*private, &public, &recipient.encapsulated, &recipient.wrapped, &info)
}

impl Object {
    /// Finds the manifest.
    pub(super) fn manifest(client: &Client, folder: &Folder, header: &Header, control: &Control) -> Result<Object> {
        Object::locate(client, folder, Role::Manifest, "manifest".to_owned(), &header.manifest, control)
    }

    /// Finds an object and holds its size against the signed one.
    fn locate(client: &Client, folder: &Folder, role: Role, label: String, signed: &ObjectRef, control: &Control) -> Result<Object> {
        let remote = folder.object(&signed.file_name(role));
        let found = client.head(&remote, control).map_err(|error| match error.kind() {
            Kind::ObjectNotFound => Error::new(Kind::PackageIncomplete, label.clone()),
            _ => error,
        })?;
        if found.size != signed.size {
            return Err(Error::new(Kind::IntegrityFailed, format!("{label}: expected {} bytes, found {}", signed.size, found.size)));
        }
        Ok(Object { role, label, remote, version: found.version, signed: signed.clone() })
    }
}

/// Fetches, checks and decrypts the manifest, whole: its leaves stand nowhere, only its root does.
pub(super) fn read_manifest(
    client: &Client,
    object: &Object,
    header: &Header,
    key: &Secret<[u8; 32]>,
    limits: &Limits,
    control: &Control,
) -> Result<Manifest> {
    let size = object.signed.size;
    let limit = manifest::max_bytes(limits);
    if size > chunked::sealed_len(limit) {
        let detail = format!("a manifest of {size} bytes, limits.package_files allows {limit}");
        return Err(Error::new(Kind::LimitExceeded, detail).at(Stage::Package));
    }
    let ranges = tree::ranges(size);
    let capacity = usize::try_from(size).map_err(|_| Error::new(Kind::OutOfMemory, "the manifest does not fit"))?;
    let mut sealed = Vec::with_capacity(capacity);
    let mut leaves = Vec::with_capacity(ranges.len());
    let plan = FetchPlan { name: &object.remote, version: &object.version, ranges: &ranges, spool_key: None };
    // A manifest of one range (8 MiB, tens of thousands of files) is checked as it arrives, so that a damaged transfer is repeated.
    let check = |_: usize, bytes: &[u8]| match (ranges.len(), tree::leaf(bytes)) {
        (1, leaf) if leaf != object.signed.root => Err(digests_differ("manifest range 0", &object.signed.root, &leaf)),
        _ => Ok(()),
    };
    let mut collect = |_: usize, bytes: Vec<u8>| {
        leaves.push(tree::leaf(&bytes));
        sealed.extend_from_slice(&bytes);
        Ok(())
    };
    client.fetch(&plan, &check, &mut collect, control)?;
    let root = tree::root(&leaves);
    if root != object.signed.root {
        return Err(digests_differ("manifest", &object.signed.root, &root));
    }
    let object_key = derive::object_key(key.expose(), &header.package, &object.signed.name)?;
    let context = derive::context(Role::Manifest, &header.package, &object.signed.name);
    let plain = chunked::open_message(object_key.expose(), &context, &sealed).map_err(|fault| fault.of(&object.label))?;
    Manifest::parse(&plain, header, limits)
}
