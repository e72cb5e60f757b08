//! Package: a study sealed by its sender for its recipients. The store that keeps it learns nothing but sizes.

use std::ffi::c_char;

use super::config::{CONFIGS, smp_config};
use super::guard::enter;
use super::keystore::{KEYSTORES, smp_keystore};
use super::request::{REQUESTS, smp_request};
use super::text;
use crate::error::{Error, Kind, Result};
use crate::pipeline;

/// Seals the files of a folder and uploads them, for the recipients alone to open.
///
/// Blocks. The package's header is written last, so a package that can be found is complete. The upload is recorded in the audit log.
/// After an interruption (the network, a killed process) the same call goes on behind the packs that were uploaded; a file that changed
/// meanwhile makes it start anew.
///
/// @param config            Store to upload to (`cloud.*`), `protocol`, `workspace` and `audit_log_path`.
/// @param keystore          Key store that holds the sender's identity and the confirmed recipients.
/// @param sender_id         Key id of the sender.
/// @param recipient_ids     Key ids of the recipients, separated by commas.
/// @param source_directory  Folder whose files are sealed, with all folders below it.
/// @param remote_path       Folder of the store to make.
/// @return `SMP_OK`, or for example `SMP_ERR_KEY_UNCONFIRMED` or `SMP_ERR_PACKAGE_EXISTS`.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_seal_study(
    config: *mut smp_config,
    keystore: *mut smp_keystore,
    sender_id: *const c_char,
    recipient_ids: *const c_char,
    source_directory: *const c_char,
    remote_path: *const c_char,
) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?.value.snapshot();
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let sender_id = unsafe { text::required(sender_id, "sender_id") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let recipient_ids = unsafe { text::required(recipient_ids, "recipient_ids") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let source_directory = unsafe { text::path(source_directory, "source_directory") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::required(remote_path, "remote_path") }?;
        let recipients = listed(&recipient_ids)?;
        pipeline::seal_study(&config, &keystore.value, &sender_id, &recipients, &source_directory, &remote_path)
    })
}

/// Seals instances that are in memory and uploads them, as `smp_seal_study` seals a folder.
///
/// Blocks. In the package the instances are called `instance-000001.dcm` and so on, in the order in which they were added.
///
/// @param config         Store to upload to (`cloud.*`), `protocol`, `workspace` and `audit_log_path`.
/// @param keystore       Key store that holds the sender's identity and the confirmed recipients.
/// @param sender_id      Key id of the sender.
/// @param recipient_ids  Key ids of the recipients, separated by commas.
/// @param request        Request that holds the instances (`smp_request_add_instance`); nothing else of it counts.
/// @param remote_path    Folder of the store to make.
/// @return `SMP_OK`, or for example `SMP_ERR_NOTHING_TO_SEAL` when the request holds no instances.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_seal_instances(
    config: *mut smp_config,
    keystore: *mut smp_keystore,
    sender_id: *const c_char,
    recipient_ids: *const c_char,
    request: *mut smp_request,
    remote_path: *const c_char,
) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?.value.snapshot();
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let sender_id = unsafe { text::required(sender_id, "sender_id") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let recipient_ids = unsafe { text::required(recipient_ids, "recipient_ids") }?;
        let request = REQUESTS.get(request, "request")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::required(remote_path, "remote_path") }?;
        let recipients = listed(&recipient_ids)?;
        pipeline::seal_instances(&config, &keystore.value, &sender_id, &recipients, &request.share(), &remote_path)
    })
}

/// Adds recipients to a package that an identity of this key store sealed. The data are not touched.
///
/// Blocks. Works when the sender is among the recipients of its own package, because only who can open a package can pass its key on.
/// Recipients that the package has already are left as they are. A grant cannot be taken back. It is recorded in the audit log.
///
/// @param config         Store that holds the package (`cloud.*`), and `audit_log_path`.
/// @param keystore       Key store that holds the sender's identity and the confirmed recipients.
/// @param recipient_ids  Key ids of the new recipients, separated by commas.
/// @param remote_path    Folder of the package in the store.
/// @return `SMP_OK`, or for example `SMP_ERR_NOT_A_RECIPIENT` when the package was not sealed for the sender too, or
///         `SMP_ERR_OBJECT_CHANGED` when somebody else changed the header at the same time.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_grant_study(
    config: *mut smp_config,
    keystore: *mut smp_keystore,
    recipient_ids: *const c_char,
    remote_path: *const c_char,
) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?.value.snapshot();
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let recipient_ids = unsafe { text::required(recipient_ids, "recipient_ids") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::required(remote_path, "remote_path") }?;
        pipeline::grant_study(&config, &keystore.value, &listed(&recipient_ids)?, &remote_path)
    })
}

/// Checks a package, or a study that a hospital encrypted with OpenSSL: the sender's signature and every byte. Nothing is kept.
///
/// Blocks while the package is fetched.
///
/// @param config       Store to read from (`cloud.*`), `trusted_senders` and `audit_log_path`.
/// @param keystore     Key store that holds a recipient's identity and the confirmed sender.
/// @param remote_path  Folder of the package in the store.
/// @return JSON report, alive until the configuration is freed; NULL when the package is not genuine and complete.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_verify_package(
    config: *mut smp_config,
    keystore: *mut smp_keystore,
    remote_path: *const c_char,
) -> *const c_char {
    enter(|| {
        let config = CONFIGS.get(config, "config")?;
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::required(remote_path, "remote_path") }?;
        let report = pipeline::verify_package(&config.value.snapshot(), &keystore.value, &remote_path)?;
        Ok(config.texts.give(&report))
    })
}

/// Writes the files of a package to a folder in the clear, identified as they were sealed.
///
/// Blocks. This is the one explicit way to plaintext on a disk; it is recorded in the audit log. To process a study, use a pipeline, which
/// writes no plaintext.
///
/// @param config       Store to read from (`cloud.*`), `trusted_senders` and `audit_log_path`.
/// @param keystore     Key store that holds a recipient's identity and the confirmed sender.
/// @param remote_path  Folder of the package in the store.
/// @param directory    Folder to make.
/// @return `SMP_OK`, or the status of what was wrong; then no file is left.
/// @since 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smp_unseal_study(
    config: *mut smp_config,
    keystore: *mut smp_keystore,
    remote_path: *const c_char,
    directory: *const c_char,
) -> i32 {
    enter(|| {
        let config = CONFIGS.get(config, "config")?.value.snapshot();
        let keystore = KEYSTORES.get(keystore, "keystore")?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let remote_path = unsafe { text::required(remote_path, "remote_path") }?;
        // SAFETY: the C caller passes NULL or a NUL-terminated text.
        let directory = unsafe { text::path(directory, "directory") }?;
        pipeline::unseal_study(&config, &keystore.value, &remote_path, &directory)
    })
}

/// The ids of a list separated by commas.
fn listed(ids: &str) -> Result<Vec<&str>> {
    let ids: Vec<&str> = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    if ids.is_empty() { Err(Error::new(Kind::InvalidArgument, "recipient_ids names nobody")) } else { Ok(ids) }
}
