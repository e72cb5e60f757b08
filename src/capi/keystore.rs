//! Key store: a folder of one's own identities and of the peers whose keys were confirmed.
//!
//! An identity is two P-384 key pairs, one to agree on secrets and one to sign. A peer's key is used only after its fingerprint has
//! been compared out of band and confirmed.

use std::ffi::c_char;
use std::path::Path;

use super::guard::{enter, leave};
use super::handle::Noun;
use super::slice;
use super::text::{self, Held};
use crate::error::{Error, Kind};
use crate::pipeline::RecordedKeyStore;
use crate::secret::Secret;

/// Type of a key pair: ECDH and ECDSA over the curve P-384.
pub const SMP_KEY_ECDH_P384: i32 = 1;

/// A folder of identities and confirmed peers.
///
/// Lives from `smp_keystore_open` until `smp_keystore_free`. Threads may share it. Handles to one folder share one store, and a pipeline
/// over the same folder uses it too, so the passphrase is given once. Every change is recorded in the audit log: in that of a pipeline that is
/// open with the same store, else in that of the default configuration when it names one or the store is the default one, else in the
/// folder `audit` of the store. A change that cannot be recorded is refused with `SMP_ERR_AUDIT_UNWRITABLE`.
pub struct smp_keystore {
    _opaque: [u8; 0],
}

pub(super) static KEYSTORES: Noun<smp_keystore, Held<RecordedKeyStore>> = Noun::new("keystore");

/// Opens a key store; makes it when the folder is missing or empty.
///
/// Blocks for about a second when there is a passphrase, which is what makes guessing it slow.
///
/// @param directory   Folder of the store, mode 0700; NULL is `~/.smp/keys`.
/// @param passphrase  Passphrase; NULL uses the key file in the folder, which is made on first use.
/// @return The key store, or NULL, for example with `SMP_ERR_WRONG_PASSPHRASE`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_open(directory: *const c_char, passphrase: *const c_char) -> *mut smp_keystore {
    enter(|| {
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let directory = unsafe { text::optional(directory, "directory") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let passphrase = unsafe { text::optional(passphrase, "passphrase") }?;
        let directory = directory.as_ref().map(|directory| Path::new(directory.as_str()));
        let keys = RecordedKeyStore::open(directory, passphrase.as_ref().map(|passphrase| passphrase.as_str()))?;
        KEYSTORES.add(Held::new(keys))
    })
}

/// Ends a key store handle and the strings it gave out. The keys stay in the folder.
///
/// @param keystore  Key store to end; NULL and dead handles are allowed.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_free(keystore: *mut smp_keystore) {
    leave(|| KEYSTORES.free(keystore))
}

/// Makes an identity of one's own.
///
/// @param keystore  Key store to keep it in.
/// @param key_type  `SMP_KEY_ECDH_P384`.
/// @param purpose   What it is for, in one's own words, such as `hospital-data-transfer`.
/// @return Key id, alive until the key store is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_generate(keystore: *mut smp_keystore, key_type: i32, purpose: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let purpose = unsafe { text::required(purpose, "purpose") }?;
        if key_type != SMP_KEY_ECDH_P384 {
            return Err(Error::new(Kind::InvalidArgument, format!("key type {key_type}")).with_hint("the key type is SMP_KEY_ECDH_P384"));
        }
        Ok(keystore.texts.give(&keystore.value.generate(&purpose)?))
    })
}

/// Makes an identity inside a hardware token; its private keys never leave the token.
///
/// Blocks while the token works. The PIN is kept in the key store, encrypted like a private key.
///
/// @param keystore     Key store that keeps the public keys and where the private ones are.
/// @param module_path  Absolute path of the token's PKCS #11 module, which is loaded into the process.
/// @param token_label  Label of the token.
/// @param pin          PIN of the token's user.
/// @param purpose      What the identity is for, in one's own words.
/// @return Key id, alive until the key store is freed; or NULL: `SMP_ERR_WRONG_PASSPHRASE` for a wrong PIN, `SMP_ERR_KEY_STORE_UNAVAILABLE` without
///         module or token, `SMP_ERR_UNSUPPORTED` in a build without the feature `pkcs11`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_generate_on_token(
    keystore: *mut smp_keystore,
    module_path: *const c_char,
    token_label: *const c_char,
    pin: *const c_char,
    purpose: *const c_char,
) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let module_path = unsafe { text::path(module_path, "module_path") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let token_label = unsafe { text::required(token_label, "token_label") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let pin = unsafe { text::required(pin, "pin") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let purpose = unsafe { text::required(purpose, "purpose") }?;
        let pin = Secret::new(pin.as_str().to_owned());
        Ok(keystore.texts.give(&keystore.value.generate_on_token(&module_path, &token_label, &pin, &purpose)?))
    })
}

/// Imports the public keys of a peer. The peer is not trusted before `smp_keystore_confirm`.
///
/// @param keystore  Key store to keep them in.
/// @param label     Name for the peer, in one's own words; with a key card an empty text takes the peer's own.
/// @param pem       What the peer exported: PEM or a key card, from which the expiry is taken as well.
/// @return Key id of the peer, alive until the key store is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_import(keystore: *mut smp_keystore, label: *const c_char, pem: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let label = unsafe { text::required(label, "label") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let pem = unsafe { text::required(pem, "pem") }?;
        Ok(keystore.texts.give(&keystore.value.import(&label, &pem)?))
    })
}

/// Exports the public keys of an entry, to be sent to a peer.
///
/// @param keystore  Key store to ask.
/// @param id        Key id.
/// @return PEM (SubjectPublicKeyInfo), first the key to agree with, then the key to verify with; alive until the key store is freed. Or
///         NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_export_public(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.export_public(&id)?))
    })
}

/// Exports a key card: public keys, label and dates of an identity as three lines of text, signed by the identity, to be sent by mail.
///
/// @param keystore  Key store to ask.
/// @param id        Key id of an identity.
/// @return Key card, alive until the key store is freed; or NULL, with `SMP_ERR_PRIVATE_KEY_MISSING` for a peer.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_export_card(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.export_card(&id)?))
    })
}

/// Exports the certificates of an identity, for a hospital that seals with `openssl cms -encrypt`.
///
/// @param keystore  Key store to ask.
/// @param id        Key id of an identity.
/// @return PEM, first the certificate of the key to agree with, issued by the key to verify with, then the latter's own, self-signed; alive until
///         the key store is freed. Or NULL, with `SMP_ERR_KEY_EXPIRED` for an identity that was replaced or has expired.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_export_certificate(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.export_certificate(&id)?))
    })
}

/// Tells the fingerprint of an entry, for reading over the telephone.
///
/// @param keystore  Key store to ask.
/// @param id        Key id.
/// @return SHA-256 in groups of four hexadecimal digits, alive until the key store is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_fingerprint(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.fingerprint(&id)?))
    })
}

/// Confirms a peer: says that its owner read out this fingerprint.
///
/// @param keystore     Key store that holds the peer.
/// @param id           Key id of the peer.
/// @param fingerprint  What the owner read out; spaces, colons and upper case do not matter.
/// @return `SMP_OK` or `SMP_ERR_FINGERPRINT_MISMATCH`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_confirm(keystore: *mut smp_keystore, id: *const c_char, fingerprint: *const c_char) -> i32 {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let fingerprint = unsafe { text::required(fingerprint, "fingerprint") }?;
        keystore.value.confirm(&id, &fingerprint)
    })
}

/// Sets the last second in which the keys of an entry are good, or takes the expiry away.
///
/// From the next second on nothing is sealed for them and an identity signs nothing. What was sealed for an expired identity still opens, and
/// so does what a peer sealed before it expired.
///
/// @param keystore  Key store that holds the entry.
/// @param id        Key id.
/// @param time      Moment in UTC, such as `2031-12-31T23:59:59Z`; NULL or an empty text for no expiry.
/// @return `SMP_OK`, or `SMP_ERR_INVALID_ARGUMENT` for any other spelling and for a moment before the identity was made.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_set_expiry(keystore: *mut smp_keystore, id: *const c_char, time: *const c_char) -> i32 {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let time = unsafe { text::optional(time, "time") }?;
        keystore.value.set_expiry(&id, time.as_ref().map(|time| time.as_str()).filter(|time| !time.is_empty()))
    })
}

/// Tells the last second in which the keys of an entry are good.
///
/// @param keystore  Key store to ask.
/// @param id        Key id.
/// @return Moment in UTC, such as `2031-12-31T23:59:59Z`, empty when the keys do not expire; alive until the key store is freed. Or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_expires(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.expires(&id)?.unwrap_or_default()))
    })
}

/// Tells when an entry was made in this store.
///
/// @param keystore  Key store to ask.
/// @param id        Key id.
/// @return Moment in UTC, such as `2024-02-29T12:00:00Z`; alive until the key store is freed. Or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_created(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.created(&id)?))
    })
}

/// Counts the entries, identities and peers together.
///
/// @param keystore  Key store to ask.
/// @return Number of entries, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_count(keystore: *mut smp_keystore) -> i64 {
    enter(|| slice::count(KEYSTORES.get(keystore, "keystore")?.value.ids()?.len()))
}

/// Tells the key id of an entry.
///
/// @param keystore  Key store to ask.
/// @param index     0 to `smp_keystore_count` - 1; entries are sorted by id.
/// @return Key id, alive until the key store is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_key_id(keystore: *mut smp_keystore, index: i64) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        Ok(keystore.texts.give(slice::at(&keystore.value.ids()?, index, "entry")?))
    })
}

/// Tells whether an entry is an identity of one's own.
///
/// @param keystore  Key store to ask.
/// @param id        Key id.
/// @return 1 when the store holds the private keys, 0 for a peer, or a negative status.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_has_private(keystore: *mut smp_keystore, id: *const c_char) -> i32 {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        keystore.value.has_private(&id)
    })
}

/// Makes an identity that takes the place of an older one. The older one still opens what was sealed for it.
///
/// @param keystore  Key store that holds the identity.
/// @param id        Key id of the older identity.
/// @return Key id of the new identity, alive until the key store is freed; or NULL.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_rotate(keystore: *mut smp_keystore, id: *const c_char) -> *const c_char {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        Ok(keystore.texts.give(&keystore.value.rotate(&id)?))
    })
}

/// Removes an entry. What was sealed for an identity cannot be opened without it.
///
/// @param keystore  Key store that holds the entry.
/// @param id        Key id.
/// @return `SMP_OK` or `SMP_ERR_KEY_NOT_FOUND`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_keystore_remove(keystore: *mut smp_keystore, id: *const c_char) -> i32 {
    enter(|| {
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let id = unsafe { text::required(id, "id") }?;
        keystore.value.remove(&id)
    })
}
