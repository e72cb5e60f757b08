/*
 * smp: a sealed medical imaging study in, a de-identified, segmented and scored result out, in one process.
 *
 * # Conventions
 *
 * 1. **Names.** `smp_<noun>_<verb>`; a noun's function takes the noun first. `new` makes, `open` and `load` read, `free` ends.
 * 2. **Outcome.** A status is an `int32_t`: `SMP_OK` is 0, a positive one is not an error (`SMP_PENDING`, `SMP_PARTIAL`), a negative
 *    one is an `SMP_ERR_*`. A number is never given to another meaning. Functions that make something answer a handle or NULL,
 *    those that count answer a negative status on failure, those that measure answer NaN, those that name something answer NULL.
 * 3. **Why.** `smp_last_error` and its sisters speak of the last failed call of the thread that asks. A call that succeeds leaves
 *    them alone. No message ever holds patient data.
 * 4. **Handles** are checked keys and not addresses. A freed, foreign, doubled or invented handle is answered with
 *    `SMP_ERR_INVALID_HANDLE`. `free` takes NULL and dead handles in silence, in any order, on any thread. An object that is freed
 *    while another thread is in a call with it ends when that call returns.
 * 5. **Strings in** are NUL-terminated UTF-8, at most 16 MiB, copied, and erased when the call ends. In paths `~` and `$VAR` are
 *    expanded. **Strings out** are borrowed and never freed by the caller; they live until their handle is freed (the error's text:
 *    until the next failed call of the thread; the library's own: for ever).
 * 6. **Arrays out** go to the caller's memory: ask for the size, allocate, copy. Nothing is written unless everything fits.
 *    Capacities count elements. Voxels come column fastest, then row, then slice, so that MATLAB and Julia see
 *    `(columns, rows, slices)` with no permutation.
 * 7. **Out parameters** are pointers to scalars, come last, and are written on success only (`smp_audit_verify` says where it
 *    differs). An index counts from 0.
 * 8. **Threads.** Any function, any thread, any time. Functions whose text says "Blocks" wait for a network, a disk or long
 *    arithmetic; no others do.
 * 9. **Types.** C99: only `int32_t`, `int64_t`, `uint8_t`, `float`, `double`, `char`, pointers to these and to opaque structs, so that
 *    MATLAB's `loadlibrary` and every foreign function interface read this header as it is.
 * 10. **ABI.** Names, signatures, constants and configuration keys are the promise. `SMP_ABI_VERSION` rises when one of them
 *     changes or goes, never when one is added, and it is the number in the shared library's name (`libsmp.so.1`).
 *
 * The header is generated from the library's source: change that instead.
 */

#ifndef SMP_H
#define SMP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Types: all are opaque, and are handles.
 */

/**
 * Settings by dotted key.
 *
 * Lives from `smp_config_new`, `smp_config_load` or `smp_config_clone` until `smp_config_free`. Threads may share it. Whatever is made
 * from a configuration copies it, so it may be changed or freed at once.
 */
typedef struct smp_config smp_config;

/**
 * A folder of identities and confirmed peers.
 *
 * Lives from `smp_keystore_open` until `smp_keystore_free`. Threads may share it. Handles to one folder share one store, and a pipeline
 * over the same folder uses it too, so the passphrase is given once. Every change is recorded in the audit log: in that of a pipeline that is
 * open with the same store, else in that of the default configuration when it names one or the store is the default one, else in the
 * folder `audit` of the store. A change that cannot be recorded is refused with `SMP_ERR_AUDIT_UNWRITABLE`.
 */
typedef struct smp_keystore smp_keystore;

/**
 * One study to process.
 *
 * Lives from `smp_request_new` until `smp_request_free`. Threads may share it, and it may be processed more than once; while it is being
 * processed it cannot be changed.
 */
typedef struct smp_request smp_request;

/**
 * What processes studies.
 *
 * Lives from `smp_pipeline_new` until `smp_pipeline_free`. Threads may share it and process several studies at once. Results outlive it.
 */
typedef struct smp_pipeline smp_pipeline;

/**
 * What processing one study yielded.
 *
 * Lives from `smp_pipeline_process_study` until `smp_result_free`, also when pipeline and request are freed first. Threads may share it.
 */
typedef struct smp_result smp_result;

/**
 * An audit log, or a folder of them, as it was when it was opened.
 *
 * Lives from `smp_audit_open` until `smp_audit_free`. Threads may share it.
 */
typedef struct smp_audit smp_audit;

/*
 * Status: the outcomes of calls.
 *
 * -1.. the call itself, -100.. configuration, -200.. keys and packages, -300.. transfer, -400.. DICOM, -500.. de-identification, -600..
 * imaging, -700.. inference, -800.. audit, -900.. erasure, -1000.. results.
 */

/**
 * It worked.
 */
#define SMP_OK 0

/**
 * The work is not finished yet. Not an error.
 */
#define SMP_PENDING 1

/**
 * It worked, with a reservation that the function describes. Not an error.
 */
#define SMP_PARTIAL 2

/**
 * An argument is outside its range.
 */
#define SMP_ERR_INVALID_ARGUMENT -1

/**
 * A required argument is NULL.
 */
#define SMP_ERR_NULL_ARGUMENT -2

/**
 * The handle is not live: freed, foreign or of another type.
 */
#define SMP_ERR_INVALID_HANDLE -3

/**
 * The text is not valid UTF-8.
 */
#define SMP_ERR_INVALID_TEXT -4

/**
 * The buffer is too small; nothing was written.
 */
#define SMP_ERR_BUFFER_TOO_SMALL -5

/**
 * Not supported by this build.
 */
#define SMP_ERR_UNSUPPORTED -6

/**
 * Cancelled by the caller.
 */
#define SMP_ERR_CANCELLED -7

/**
 * Internal error: a defect of the library.
 */
#define SMP_ERR_INTERNAL -8

/**
 * A configured limit was exceeded.
 */
#define SMP_ERR_LIMIT_EXCEEDED -9

/**
 * The index is past the end.
 */
#define SMP_ERR_OUT_OF_RANGE -10

/**
 * The value is absent.
 */
#define SMP_ERR_ABSENT -11

/**
 * Not enough memory.
 */
#define SMP_ERR_OUT_OF_MEMORY -12

/**
 * A local file cannot be read.
 */
#define SMP_ERR_FILE_UNREADABLE -13

/**
 * Unknown configuration key.
 */
#define SMP_ERR_CONFIG_UNKNOWN_KEY -100

/**
 * A configuration value is not valid.
 */
#define SMP_ERR_CONFIG_INVALID_VALUE -101

/**
 * The configuration file cannot be read.
 */
#define SMP_ERR_CONFIG_UNREADABLE -102

/**
 * A file that holds secrets is readable by others.
 */
#define SMP_ERR_CONFIG_PERMISSIONS -103

/**
 * The key store cannot be used.
 */
#define SMP_ERR_KEY_STORE_UNAVAILABLE -200

/**
 * The passphrase or wrapping key does not open the key store.
 */
#define SMP_ERR_WRONG_PASSPHRASE -201

/**
 * No such key.
 */
#define SMP_ERR_KEY_NOT_FOUND -202

/**
 * The key is malformed, off the curve or of another type.
 */
#define SMP_ERR_KEY_INVALID -203

/**
 * The fingerprint does not match the key.
 */
#define SMP_ERR_FINGERPRINT_MISMATCH -204

/**
 * The peer's key has not been confirmed.
 */
#define SMP_ERR_KEY_UNCONFIRMED -205

/**
 * The key has expired.
 */
#define SMP_ERR_KEY_EXPIRED -206

/**
 * The store holds no private key for this id.
 */
#define SMP_ERR_PRIVATE_KEY_MISSING -207

/**
 * The key is already in the store.
 */
#define SMP_ERR_KEY_EXISTS -208

/**
 * The package is malformed.
 */
#define SMP_ERR_PACKAGE_MALFORMED -220

/**
 * The package was signed by an unknown sender.
 */
#define SMP_ERR_UNKNOWN_SENDER -221

/**
 * The package is not sealed for any key of this store.
 */
#define SMP_ERR_NOT_A_RECIPIENT -222

/**
 * The sender's signature does not verify.
 */
#define SMP_ERR_SIGNATURE_INVALID -223

/**
 * Integrity verification failed.
 */
#define SMP_ERR_INTEGRITY_FAILED -224

/**
 * An object of the package is missing.
 */
#define SMP_ERR_PACKAGE_INCOMPLETE -225

/**
 * No sealed package at this path, and zero_knowledge refuses anything unsealed.
 */
#define SMP_ERR_NOT_SEALED -226

/**
 * A file name is not safe to use.
 */
#define SMP_ERR_UNSAFE_PATH -227

/**
 * A source file changed while it was sealed.
 */
#define SMP_ERR_SOURCE_CHANGED -228

/**
 * There is already a package at this path.
 */
#define SMP_ERR_PACKAGE_EXISTS -229

/**
 * The source folder holds no files.
 */
#define SMP_ERR_NOTHING_TO_SEAL -230

/**
 * The study is encrypted in a way that is not accepted.
 */
#define SMP_ERR_CRYPTOGRAPHY_REFUSED -231

/**
 * Connection refused.
 */
#define SMP_ERR_CONNECTION_REFUSED -300

/**
 * No usable credentials were found.
 */
#define SMP_ERR_CREDENTIALS_MISSING -301

/**
 * The store denied access.
 */
#define SMP_ERR_ACCESS_DENIED -302

/**
 * No such object, folder or bucket in the store.
 */
#define SMP_ERR_OBJECT_NOT_FOUND -303

/**
 * The store did not answer in time.
 */
#define SMP_ERR_TRANSFER_TIMEOUT -304

/**
 * The TLS connection was refused.
 */
#define SMP_ERR_TLS_FAILED -305

/**
 * The store reported a failure of its own.
 */
#define SMP_ERR_SERVER_FAILED -306

/**
 * The object changed while it was read.
 */
#define SMP_ERR_OBJECT_CHANGED -307

/**
 * The store sent less than it announced.
 */
#define SMP_ERR_TRANSFER_INTERRUPTED -308

/**
 * The object exists already.
 */
#define SMP_ERR_OBJECT_EXISTS -309

/**
 * The store cannot be written.
 */
#define SMP_ERR_STORE_UNWRITABLE -310

/**
 * The workspace cannot be written.
 */
#define SMP_ERR_SPOOL_UNWRITABLE -311

/**
 * No DICOM files found.
 */
#define SMP_ERR_NO_DICOM_FILES -400

/**
 * A DICOM file is malformed.
 */
#define SMP_ERR_DICOM_MALFORMED -401

/**
 * A DICOM file exceeds the limits for its structure.
 */
#define SMP_ERR_DICOM_HOSTILE -402

/**
 * There is no decoder for the transfer syntax.
 */
#define SMP_ERR_TRANSFER_SYNTAX_UNSUPPORTED -403

/**
 * The pixel format is not supported.
 */
#define SMP_ERR_PIXELS_UNSUPPORTED -404

/**
 * The pixel data cannot be decoded.
 */
#define SMP_ERR_PIXELS_UNDECODABLE -405

/**
 * Slices are missing from the series.
 */
#define SMP_ERR_SLICE_MISSING -406

/**
 * Two slices lie at the same position.
 */
#define SMP_ERR_SLICE_DOUBLED -407

/**
 * The slices do not form one regular grid.
 */
#define SMP_ERR_GEOMETRY_INCONSISTENT -408

/**
 * Position, orientation or spacing is missing.
 */
#define SMP_ERR_GEOMETRY_MISSING -409

/**
 * The study has no such series.
 */
#define SMP_ERR_SERIES_NOT_FOUND -410

/**
 * The patient id is missing, so no consistent pseudonym can be made.
 */
#define SMP_ERR_PATIENT_ID_MISSING -500

/**
 * An object of this SOP class cannot be de-identified.
 */
#define SMP_ERR_SOP_CLASS_QUARANTINED -501

/**
 * The pixels may carry burned-in identifiers.
 */
#define SMP_ERR_BURNED_IN_TEXT -502

/**
 * An identifier of the input was found in the output; nothing was released.
 */
#define SMP_ERR_RESIDUAL_IDENTIFIER -503

/**
 * The project key is not available.
 */
#define SMP_ERR_PROJECT_KEY_MISSING -504

/**
 * The volume holds NaN or infinite voxels, or none.
 */
#define SMP_ERR_VOLUME_INVALID -600

/**
 * All voxels are equal, so the volume cannot be normalized.
 */
#define SMP_ERR_VOLUME_CONSTANT -601

/**
 * The mask is empty.
 */
#define SMP_ERR_MASK_EMPTY -602

/**
 * No model is configured for this operation.
 */
#define SMP_ERR_MODEL_MISSING -700

/**
 * The model cannot be read.
 */
#define SMP_ERR_MODEL_UNREADABLE -701

/**
 * The model's contract is missing or not valid.
 */
#define SMP_ERR_MODEL_CONTRACT -702

/**
 * The model differs from the one its contract describes.
 */
#define SMP_ERR_MODEL_DIGEST -703

/**
 * The model's runtime was not found.
 */
#define SMP_ERR_RUNTIME_MISSING -704

/**
 * The model's runtime failed.
 */
#define SMP_ERR_RUNTIME_FAILED -705

/**
 * The requested device is not available.
 */
#define SMP_ERR_DEVICE_UNAVAILABLE -706

/**
 * CUDA out of memory.
 */
#define SMP_ERR_DEVICE_OUT_OF_MEMORY -707

/**
 * The model's inputs or outputs do not fit its contract.
 */
#define SMP_ERR_MODEL_SHAPE -708

/**
 * A pickled model is refused: loading it would execute its code.
 */
#define SMP_ERR_MODEL_PICKLE -709

/**
 * The study is outside what the model is for.
 */
#define SMP_ERR_INPUT_IMPLAUSIBLE -710

/**
 * The audit log cannot be written, so nothing was processed.
 */
#define SMP_ERR_AUDIT_UNWRITABLE -800

/**
 * The audit log does not verify.
 */
#define SMP_ERR_AUDIT_TAMPERED -801

/**
 * There is no audit log at this path.
 */
#define SMP_ERR_AUDIT_UNREADABLE -802

/**
 * Not everything could be erased.
 */
#define SMP_ERR_ERASE_FAILED -900

/**
 * The path must not be erased.
 */
#define SMP_ERR_ERASE_REFUSED -901

/**
 * The output cannot be written.
 */
#define SMP_ERR_OUTPUT_UNWRITABLE -1000

/**
 * No such output format.
 */
#define SMP_ERR_OUTPUT_UNSUPPORTED -1001

/*
 * Library: its version, what it can do, and what it asks of the process that hosts it.
 */

/**
 * Version of the ABI that this header describes; compare it with `smp_abi_version`.
 */
#define SMP_ABI_VERSION 1

/**
 * Writes no log.
 */
#define SMP_LOG_OFF 0

/**
 * Logs failures that end a piece of work.
 */
#define SMP_LOG_ERROR 1

/**
 * Logs failed calls too.
 */
#define SMP_LOG_WARN 2

/**
 * Logs what begins and ends too.
 */
#define SMP_LOG_INFO 3

/**
 * Logs the steps of each piece of work too.
 */
#define SMP_LOG_DEBUG 4

/**
 * Logs everything.
 */
#define SMP_LOG_TRACE 5

/**
 * No debugger of the same user may attach, and the memory is in no core dump (`PR_SET_DUMPABLE` 0).
 */
#define SMP_HARDEN_NO_DUMP 1

/**
 * A crash writes no core file, and no child process can allow one again (`RLIMIT_CORE` 0).
 */
#define SMP_HARDEN_NO_CORE 2

/**
 * No page of the process goes to swap (`mlockall`). Needs `CAP_IPC_LOCK` or an unlimited `RLIMIT_MEMLOCK`.
 */
#define SMP_HARDEN_LOCK_MEMORY 4

/**
 * Tells the version of the library.
 *
 * @return `major.minor.patch`; lives for ever, never NULL.
 * @since 0.1
 */
const char *smp_version(void);

/**
 * Tells the version of the ABI that the loaded library keeps.
 *
 * @return The library's `SMP_ABI_VERSION`. If it differs from the header's, the two do not belong together.
 * @since 0.1
 */
int32_t smp_abi_version(void);

/**
 * Tells what this build can do on this machine.
 *
 * Looks for ONNX Runtime and for devices each time, so it may be asked again after one was installed.
 *
 * @return JSON object: features, providers, decoders, devices, ONNX Runtime's version or why it is absent. Lives for ever.
 * @since 0.1
 */
const char *smp_capabilities(void);

/**
 * Tells the name of a status, as this header spells it.
 *
 * @param status  Any number.
 * @return Such as `SMP_ERR_KEY_NOT_FOUND`; `unknown` for a number that is no status. Lives for ever, never NULL.
 * @since 0.1
 */
const char *smp_status_name(int32_t status);

/**
 * Tells what a status means, in one sentence.
 *
 * @param status  Any number.
 * @return The sentence; `unknown status` for a number that is no status. Lives for ever, never NULL.
 * @since 0.1
 */
const char *smp_status_text(int32_t status);

/**
 * Counts the handles that have not been freed, of all types and threads. For tests of what owns them.
 *
 * @return Number of live handles.
 * @since 0.1
 */
int64_t smp_live_handles(void);

/**
 * Writes the library's log to a file, from now on, for the whole process.
 *
 * One line per event: time (UTC), level, part of the library, message. The lines hold kinds, sizes, numbers and status names;
 * never patient data, file names or secrets, and nothing that the libraries underneath would log. The file is made with mode
 * 0600, lines are appended, and a symbolic link is refused. A second call changes file and level; `SMP_LOG_OFF` stops.
 *
 * @param path   File to append to; may be NULL with `SMP_LOG_OFF`.
 * @param level  `SMP_LOG_OFF` to `SMP_LOG_TRACE`.
 * @return `SMP_OK`, `SMP_ERR_INVALID_ARGUMENT` for another level, or `SMP_ERR_OUTPUT_UNWRITABLE`.
 * @since 0.1
 */
int32_t smp_log_to_file(const char *path, int32_t level);

/**
 * Asks the system to keep this process's memory from other eyes. It concerns the whole host application and cannot be undone.
 *
 * The library locks and erases its keys without it. What it adds: decrypted voxels cannot be read out of a core dump, by a debugger,
 * or from a swap partition. Call it first, before any study is in memory.
 *
 * @param flags  Sum of `SMP_HARDEN_*`.
 * @return `SMP_OK` when all that was asked for is in force; `SMP_ERR_UNSUPPORTED` when the system refused, with the reason in the
 *         message; `SMP_ERR_INVALID_ARGUMENT` for an unknown flag, and then nothing was done.
 * @since 0.1
 */
int32_t smp_harden_process(int32_t flags);

/*
 * Errors: why the last failed call of this thread failed.
 *
 * These functions never fail and change nothing. Their texts live until the next failed call of the same thread.
 */

/**
 * Tells the status of the last failed call of this thread.
 *
 * @return A negative status; `SMP_OK` when no call of this thread has failed.
 * @since 0.1
 */
int32_t smp_last_error(void);

/**
 * Tells what went wrong in the last failed call of this thread, in one line without patient data.
 *
 * @return The message; empty when no call has failed. Never NULL.
 * @since 0.1
 */
const char *smp_last_error_message(void);

/**
 * Tells what a person can do about the last failure of this thread.
 *
 * @return The hint; empty when there is none. Never NULL.
 * @since 0.1
 */
const char *smp_last_error_hint(void);

/**
 * Tells which part of the library the last failure of this thread arose in.
 *
 * @return Such as `transfer` or `dicom`; empty when no call has failed. Never NULL.
 * @since 0.1
 */
const char *smp_last_error_stage(void);

/**
 * Tells whether the call that failed last on this thread may succeed later, unchanged.
 *
 * @return 1 for failures that pass (a network, a busy server), otherwise 0.
 * @since 0.1
 */
int32_t smp_last_error_retryable(void);

/*
 * Configuration: settings by dotted key, from a file, the environment and the program.
 *
 * The later of these wins: default, file, environment (`SMP_*` and the provider's own), `smp_config_set`, the request of one study.
 * An unknown key is an error whose hint names the nearest known one.
 */

/**
 * Makes a configuration of defaults and environment.
 *
 * @return The configuration, or NULL.
 * @since 0.1
 */
smp_config *smp_config_new(void);

/**
 * Reads a configuration from a JSON file, over defaults and environment.
 *
 * A file that holds a secret must have mode 0600.
 *
 * @param path  File to read; NULL reads `~/.smp/config.json`.
 * @return The configuration, or NULL.
 * @since 0.1
 */
smp_config *smp_config_load(const char *path);

/**
 * Copies a configuration.
 *
 * @param config  Configuration to copy.
 * @return A configuration of its own, or NULL.
 * @since 0.1
 */
smp_config *smp_config_clone(smp_config *config);

/**
 * Ends a configuration and the strings it gave out.
 *
 * @param config  Configuration to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_config_free(smp_config *config);

/**
 * Sets a key from text.
 *
 * @param config  Configuration to change.
 * @param key     Dotted name, such as `cloud.bucket`.
 * @param value   Value as text: `true`, `0.5`, `a,b,c`; an empty text unsets a text, a path or a list.
 * @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
 * @since 0.1
 */
int32_t smp_config_set(smp_config *config, const char *key, const char *value);

/**
 * Sets a key to a whole number.
 *
 * @param config  Configuration to change.
 * @param key     Dotted name, such as `transfer.parallel`.
 * @param value   Value.
 * @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
 * @since 0.1
 */
int32_t smp_config_set_int(smp_config *config, const char *key, int64_t value);

/**
 * Sets a key to a real number.
 *
 * @param config  Configuration to change.
 * @param key     Dotted name, such as `threshold`.
 * @param value   Value; NaN and infinities are refused.
 * @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
 * @since 0.1
 */
int32_t smp_config_set_real(smp_config *config, const char *key, double value);

/**
 * Sets every key that a JSON object names, nested (`{"cloud": {"bucket": "b"}}`) or dotted (`{"cloud.bucket": "b"}`).
 *
 * @param config  Configuration to change.
 * @param json    JSON object.
 * @return `SMP_OK`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
 * @since 0.1
 */
int32_t smp_config_merge_json(smp_config *config, const char *json);

/**
 * Tells the value that a key has now, whichever source it came from.
 *
 * @param config  Configuration to ask.
 * @param key     Dotted name.
 * @return The value as text, alive until the configuration is freed; NULL with `SMP_ERR_ABSENT` when the key is unset or holds a secret,
 *         NULL with `SMP_ERR_CONFIG_UNKNOWN_KEY` when there is no such key.
 * @since 0.1
 */
const char *smp_config_get(smp_config *config, const char *key);

/**
 * Checks all values against each other, before anything is made from them.
 *
 * @param config  Configuration to check.
 * @return `SMP_OK`, or the status of the first contradiction, which the message names.
 * @since 0.1
 */
int32_t smp_config_check(smp_config *config);

/**
 * Counts the configuration keys that there are.
 *
 * @return Number of keys.
 * @since 0.1
 */
int64_t smp_config_key_count(void);

/**
 * Tells the name of a configuration key.
 *
 * @param index  0 to `smp_config_key_count` - 1.
 * @return Dotted name; lives for ever. NULL past the end.
 * @since 0.1
 */
const char *smp_config_key_name(int64_t index);

/**
 * Tells what a configuration key is for.
 *
 * @param index  0 to `smp_config_key_count` - 1.
 * @return One sentence; lives for ever. NULL past the end.
 * @since 0.1
 */
const char *smp_config_key_help(int64_t index);

/**
 * Tells the value that a configuration key has when nobody sets it.
 *
 * @param index  0 to `smp_config_key_count` - 1.
 * @return Default as text, empty when the key is unset by default; lives for ever. NULL past the end.
 * @since 0.1
 */
const char *smp_config_key_default(int64_t index);

/*
 * Key store: a folder of one's own identities and of the peers whose keys were confirmed.
 *
 * An identity is two P-384 key pairs, one to agree on secrets and one to sign. A peer's key is used only after its fingerprint has
 * been compared out of band and confirmed.
 */

/**
 * Type of a key pair: ECDH and ECDSA over the curve P-384.
 */
#define SMP_KEY_ECDH_P384 1

/**
 * Opens a key store; makes it when the folder is missing or empty.
 *
 * Blocks for about a second when there is a passphrase, which is what makes guessing it slow.
 *
 * @param directory   Folder of the store, mode 0700; NULL is `~/.smp/keys`.
 * @param passphrase  Passphrase; NULL uses the key file in the folder, which is made on first use.
 * @return The key store, or NULL, for example with `SMP_ERR_WRONG_PASSPHRASE`.
 * @since 0.1
 */
smp_keystore *smp_keystore_open(const char *directory, const char *passphrase);

/**
 * Ends a key store handle and the strings it gave out. The keys stay in the folder.
 *
 * @param keystore  Key store to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_keystore_free(smp_keystore *keystore);

/**
 * Makes an identity of one's own.
 *
 * @param keystore  Key store to keep it in.
 * @param key_type  `SMP_KEY_ECDH_P384`.
 * @param purpose   What it is for, in one's own words, such as `hospital-data-transfer`.
 * @return Key id, alive until the key store is freed; or NULL.
 * @since 0.1
 */
const char *smp_keystore_generate(smp_keystore *keystore, int32_t key_type, const char *purpose);

/**
 * Makes an identity inside a hardware token; its private keys never leave the token.
 *
 * Blocks while the token works. The PIN is kept in the key store, encrypted like a private key.
 *
 * @param keystore     Key store that keeps the public keys and where the private ones are.
 * @param module_path  Absolute path of the token's PKCS #11 module, which is loaded into the process.
 * @param token_label  Label of the token.
 * @param pin          PIN of the token's user.
 * @param purpose      What the identity is for, in one's own words.
 * @return Key id, alive until the key store is freed; or NULL: `SMP_ERR_WRONG_PASSPHRASE` for a wrong PIN, `SMP_ERR_KEY_STORE_UNAVAILABLE` without
 *         module or token, `SMP_ERR_UNSUPPORTED` in a build without the feature `pkcs11`.
 * @since 0.1
 */
const char *smp_keystore_generate_on_token(smp_keystore *keystore,
                                           const char *module_path,
                                           const char *token_label,
                                           const char *pin,
                                           const char *purpose);

/**
 * Imports the public keys of a peer. The peer is not trusted before `smp_keystore_confirm`.
 *
 * @param keystore  Key store to keep them in.
 * @param label     Name for the peer, in one's own words; with a key card an empty text takes the peer's own.
 * @param pem       What the peer exported: PEM or a key card, from which the expiry is taken as well.
 * @return Key id of the peer, alive until the key store is freed; or NULL.
 * @since 0.1
 */
const char *smp_keystore_import(smp_keystore *keystore, const char *label, const char *pem);

/**
 * Exports the public keys of an entry, to be sent to a peer.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id.
 * @return PEM (SubjectPublicKeyInfo), first the key to agree with, then the key to verify with; alive until the key store is freed. Or
 *         NULL.
 * @since 0.1
 */
const char *smp_keystore_export_public(smp_keystore *keystore, const char *id);

/**
 * Exports a key card: public keys, label and dates of an identity as three lines of text, signed by the identity, to be sent by mail.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id of an identity.
 * @return Key card, alive until the key store is freed; or NULL, with `SMP_ERR_PRIVATE_KEY_MISSING` for a peer.
 * @since 0.1
 */
const char *smp_keystore_export_card(smp_keystore *keystore, const char *id);

/**
 * Exports the certificates of an identity, for a hospital that seals with `openssl cms -encrypt`.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id of an identity.
 * @return PEM, first the certificate of the key to agree with, issued by the key to verify with, then the latter's own, self-signed; alive until
 *         the key store is freed. Or NULL, with `SMP_ERR_KEY_EXPIRED` for an identity that was replaced or has expired.
 * @since 0.1
 */
const char *smp_keystore_export_certificate(smp_keystore *keystore, const char *id);

/**
 * Tells the fingerprint of an entry, for reading over the telephone.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id.
 * @return SHA-256 in groups of four hexadecimal digits, alive until the key store is freed; or NULL.
 * @since 0.1
 */
const char *smp_keystore_fingerprint(smp_keystore *keystore, const char *id);

/**
 * Confirms a peer: says that its owner read out this fingerprint.
 *
 * @param keystore     Key store that holds the peer.
 * @param id           Key id of the peer.
 * @param fingerprint  What the owner read out; spaces, colons and upper case do not matter.
 * @return `SMP_OK` or `SMP_ERR_FINGERPRINT_MISMATCH`.
 * @since 0.1
 */
int32_t smp_keystore_confirm(smp_keystore *keystore, const char *id, const char *fingerprint);

/**
 * Sets the last second in which the keys of an entry are good, or takes the expiry away.
 *
 * From the next second on nothing is sealed for them and an identity signs nothing. What was sealed for an expired identity still opens, and
 * so does what a peer sealed before it expired.
 *
 * @param keystore  Key store that holds the entry.
 * @param id        Key id.
 * @param time      Moment in UTC, such as `2031-12-31T23:59:59Z`; NULL or an empty text for no expiry.
 * @return `SMP_OK`, or `SMP_ERR_INVALID_ARGUMENT` for any other spelling and for a moment before the identity was made.
 * @since 0.1
 */
int32_t smp_keystore_set_expiry(smp_keystore *keystore, const char *id, const char *time);

/**
 * Tells the last second in which the keys of an entry are good.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id.
 * @return Moment in UTC, such as `2031-12-31T23:59:59Z`, empty when the keys do not expire; alive until the key store is freed. Or NULL.
 * @since 0.1
 */
const char *smp_keystore_expires(smp_keystore *keystore, const char *id);

/**
 * Tells when an entry was made in this store.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id.
 * @return Moment in UTC, such as `2024-02-29T12:00:00Z`; alive until the key store is freed. Or NULL.
 * @since 0.1
 */
const char *smp_keystore_created(smp_keystore *keystore, const char *id);

/**
 * Counts the entries, identities and peers together.
 *
 * @param keystore  Key store to ask.
 * @return Number of entries, or a negative status.
 * @since 0.1
 */
int64_t smp_keystore_count(smp_keystore *keystore);

/**
 * Tells the key id of an entry.
 *
 * @param keystore  Key store to ask.
 * @param index     0 to `smp_keystore_count` - 1; entries are sorted by id.
 * @return Key id, alive until the key store is freed; or NULL.
 * @since 0.1
 */
const char *smp_keystore_key_id(smp_keystore *keystore, int64_t index);

/**
 * Tells whether an entry is an identity of one's own.
 *
 * @param keystore  Key store to ask.
 * @param id        Key id.
 * @return 1 when the store holds the private keys, 0 for a peer, or a negative status.
 * @since 0.1
 */
int32_t smp_keystore_has_private(smp_keystore *keystore, const char *id);

/**
 * Makes an identity that takes the place of an older one. The older one still opens what was sealed for it.
 *
 * @param keystore  Key store that holds the identity.
 * @param id        Key id of the older identity.
 * @return Key id of the new identity, alive until the key store is freed; or NULL.
 * @since 0.1
 */
const char *smp_keystore_rotate(smp_keystore *keystore, const char *id);

/**
 * Removes an entry. What was sealed for an identity cannot be opened without it.
 *
 * @param keystore  Key store that holds the entry.
 * @param id        Key id.
 * @return `SMP_OK` or `SMP_ERR_KEY_NOT_FOUND`.
 * @since 0.1
 */
int32_t smp_keystore_remove(smp_keystore *keystore, const char *id);

/*
 * Package: a study sealed by its sender for its recipients. The store that keeps it learns nothing but sizes.
 */

/**
 * Seals the files of a folder and uploads them, for the recipients alone to open.
 *
 * Blocks. The package's header is written last, so a package that can be found is complete. The upload is recorded in the audit log.
 * After an interruption (the network, a killed process) the same call goes on behind the packs that were uploaded; a file that changed
 * meanwhile makes it start anew.
 *
 * @param config            Store to upload to (`cloud.*`), `protocol`, `workspace` and `audit_log_path`.
 * @param keystore          Key store that holds the sender's identity and the confirmed recipients.
 * @param sender_id         Key id of the sender.
 * @param recipient_ids     Key ids of the recipients, separated by commas.
 * @param source_directory  Folder whose files are sealed, with all folders below it.
 * @param remote_path       Folder of the store to make.
 * @return `SMP_OK`, or for example `SMP_ERR_KEY_UNCONFIRMED` or `SMP_ERR_PACKAGE_EXISTS`.
 * @since 0.1
 */
int32_t smp_seal_study(smp_config *config,
                       smp_keystore *keystore,
                       const char *sender_id,
                       const char *recipient_ids,
                       const char *source_directory,
                       const char *remote_path);

/**
 * Seals instances that are in memory and uploads them, as `smp_seal_study` seals a folder.
 *
 * Blocks. In the package the instances are called `instance-000001.dcm` and so on, in the order in which they were added.
 *
 * @param config         Store to upload to (`cloud.*`), `protocol`, `workspace` and `audit_log_path`.
 * @param keystore       Key store that holds the sender's identity and the confirmed recipients.
 * @param sender_id      Key id of the sender.
 * @param recipient_ids  Key ids of the recipients, separated by commas.
 * @param request        Request that holds the instances (`smp_request_add_instance`); nothing else of it counts.
 * @param remote_path    Folder of the store to make.
 * @return `SMP_OK`, or for example `SMP_ERR_NOTHING_TO_SEAL` when the request holds no instances.
 * @since 0.1
 */
int32_t smp_seal_instances(smp_config *config,
                           smp_keystore *keystore,
                           const char *sender_id,
                           const char *recipient_ids,
                           smp_request *request,
                           const char *remote_path);

/**
 * Adds recipients to a package that an identity of this key store sealed. The data are not touched.
 *
 * Blocks. Works when the sender is among the recipients of its own package, because only who can open a package can pass its key on.
 * Recipients that the package has already are left as they are. A grant cannot be taken back. It is recorded in the audit log.
 *
 * @param config         Store that holds the package (`cloud.*`), and `audit_log_path`.
 * @param keystore       Key store that holds the sender's identity and the confirmed recipients.
 * @param recipient_ids  Key ids of the new recipients, separated by commas.
 * @param remote_path    Folder of the package in the store.
 * @return `SMP_OK`, or for example `SMP_ERR_NOT_A_RECIPIENT` when the package was not sealed for the sender too, or
 *         `SMP_ERR_OBJECT_CHANGED` when somebody else changed the header at the same time.
 * @since 0.1
 */
int32_t smp_grant_study(smp_config *config, smp_keystore *keystore, const char *recipient_ids, const char *remote_path);

/**
 * Checks a package, or a study that a hospital encrypted with OpenSSL: the sender's signature and every byte. Nothing is kept.
 *
 * Blocks while the package is fetched.
 *
 * @param config       Store to read from (`cloud.*`), `trusted_senders` and `audit_log_path`.
 * @param keystore     Key store that holds a recipient's identity and the confirmed sender.
 * @param remote_path  Folder of the package in the store.
 * @return JSON report, alive until the configuration is freed; NULL when the package is not genuine and complete.
 * @since 0.1
 */
const char *smp_verify_package(smp_config *config, smp_keystore *keystore, const char *remote_path);

/**
 * Writes the files of a package to a folder in the clear, identified as they were sealed.
 *
 * Blocks. This is the one explicit way to plaintext on a disk; it is recorded in the audit log. To process a study, use a pipeline, which
 * writes no plaintext.
 *
 * @param config       Store to read from (`cloud.*`), `trusted_senders` and `audit_log_path`.
 * @param keystore     Key store that holds a recipient's identity and the confirmed sender.
 * @param remote_path  Folder of the package in the store.
 * @param directory    Folder to make.
 * @return `SMP_OK`, or the status of what was wrong; then no file is left.
 * @since 0.1
 */
int32_t smp_unseal_study(smp_config *config, smp_keystore *keystore, const char *remote_path, const char *directory);

/*
 * Request: which study to process, and how it differs from what the pipeline does by default.
 */

/**
 * Makes a request for a study.
 *
 * @param remote_path  Folder of the study in the store; NULL when its files are added by `smp_request_add_instance`.
 * @return The request, or NULL.
 * @since 0.1
 */
smp_request *smp_request_new(const char *remote_path);

/**
 * Ends a request.
 *
 * @param request  Request to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_request_free(smp_request *request);

/**
 * Sets something for this study from text.
 *
 * The keys are `study_id` (default `study-` and 8 hexadecimal digits), `operations` (of `load,anonymize,preprocess,segment,predict`;
 * default all), `download_mode` (`zero_knowledge`, the default, or `standard`), `output_path` (default: no files), `series_uid` and
 * `series_description` (which series of several), and the configuration keys that can differ from study to study, such as `threshold`.
 *
 * @param request  Request to change.
 * @param key      Name.
 * @param value    Value as text.
 * @return `SMP_OK`, `SMP_ERR_INVALID_ARGUMENT`, `SMP_ERR_CONFIG_UNKNOWN_KEY` or `SMP_ERR_CONFIG_INVALID_VALUE`.
 * @since 0.1
 */
int32_t smp_request_set(smp_request *request, const char *key, const char *value);

/**
 * Sets something for this study to a whole number; see `smp_request_set`.
 *
 * @param request  Request to change.
 * @param key      Name.
 * @param value    Value.
 * @return As `smp_request_set`.
 * @since 0.1
 */
int32_t smp_request_set_int(smp_request *request, const char *key, int64_t value);

/**
 * Sets something for this study to a real number; see `smp_request_set`.
 *
 * @param request  Request to change.
 * @param key      Name.
 * @param value    Value; NaN and infinities are refused.
 * @return As `smp_request_set`.
 * @since 0.1
 */
int32_t smp_request_set_real(smp_request *request, const char *key, double value);

/**
 * Adds a DICOM file that is in memory already, as in a PACS plug-in; then nothing is fetched.
 *
 * The bytes are copied, and the copy is erased with the request.
 *
 * @param request  Request to add to, made with a NULL path.
 * @param bytes    The file, preamble and all.
 * @param length   Number of bytes.
 * @return `SMP_OK` or `SMP_ERR_INVALID_ARGUMENT`.
 * @since 0.1
 */
int32_t smp_request_add_instance(smp_request *request, const uint8_t *bytes, int64_t length);

/*
 * Pipeline: configured once, it takes studies from sealed packages to results, and keeps the record of it.
 */

/**
 * Makes a pipeline: opens workspace, key store and audit log. The store and the models are opened when they are first needed.
 *
 * @param config  Configuration, which is copied.
 * @return The pipeline, or NULL.
 * @since 0.1
 */
smp_pipeline *smp_pipeline_new(smp_config *config);

/**
 * Cancels the studies that are being processed and waits until they have stopped. Later studies are refused; reports are not.
 *
 * Blocks.
 *
 * @param pipeline  Pipeline to close; closing twice is allowed.
 * @return `SMP_OK` or `SMP_ERR_INVALID_HANDLE`.
 * @since 0.1
 */
int32_t smp_pipeline_close(smp_pipeline *pipeline);

/**
 * Ends a pipeline and the strings it gave out. Studies that other threads are processing with it are finished first, by those threads.
 *
 * What the workspace holds stays there, encrypted; see `smp_pipeline_cleanup`.
 *
 * @param pipeline  Pipeline to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_pipeline_free(smp_pipeline *pipeline);

/**
 * Processes one study from its package to its result.
 *
 * Blocks. A study that fails writes no output, erases what it held and is recorded in the audit log.
 *
 * @param pipeline  Pipeline to use.
 * @param request   Which study, and how.
 * @return The result, or NULL.
 * @since 0.1
 */
smp_result *smp_pipeline_process_study(smp_pipeline *pipeline, smp_request *request);

/**
 * Exports the audit log as JSON.
 *
 * Blocks while the log is verified and written. Folders are made as needed, and the file appears complete or not at all.
 *
 * @param pipeline  Pipeline whose log is exported.
 * @param path      File to write.
 * @param start     First day (`YYYY-MM-DD`) or moment (RFC 3339), inclusive; NULL from the beginning.
 * @param end       Last day or moment, inclusive; NULL to the end.
 * @return Number of entries, or a negative status.
 * @since 0.1
 */
int64_t smp_pipeline_export_audit(smp_pipeline *pipeline, const char *path, const char *start, const char *end);

/**
 * Summarises the audit log, having verified it. Works before the first study too.
 *
 * Blocks while the log is verified.
 *
 * @param pipeline  Pipeline whose log is summarised.
 * @return JSON object with `total_entries`, `log_path`, `integrity_verified`, `user_id` and more, alive until the pipeline is freed; or
 *         NULL.
 * @since 0.1
 */
const char *smp_pipeline_audit_summary(smp_pipeline *pipeline);

/**
 * Erases what the workspace holds and gives back the models' memory. Safe at any time, and before any study.
 *
 * Blocks while files are overwritten. The workspace holds ciphertext only, so forgetting this leaves nothing readable behind.
 *
 * @param pipeline  Pipeline to clean up after.
 * @return `SMP_OK`, or `SMP_ERR_ERASE_FAILED` when something is left.
 * @since 0.1
 */
int32_t smp_pipeline_cleanup(smp_pipeline *pipeline);

/**
 * Tells what the last clean-up erased, how, and what that is worth on this file system.
 *
 * @param pipeline  Pipeline that was cleaned up after.
 * @return JSON object, alive until the pipeline is freed; NULL with `SMP_ERR_ABSENT` before the first clean-up.
 * @since 0.1
 */
const char *smp_pipeline_cleanup_report(smp_pipeline *pipeline);

/**
 * Sets the model of a task, from the next study on.
 *
 * @param pipeline  Pipeline to change.
 * @param task      `segment` or `predict`.
 * @param path      Model file, with its contract beside it.
 * @return `SMP_OK`, or for example `SMP_ERR_MODEL_UNREADABLE`.
 * @since 0.1
 */
int32_t smp_pipeline_register_model(smp_pipeline *pipeline, const char *task, const char *path);

/*
 * Result: everything known of one processed study.
 *
 * A value that no operation made is absent: a number is then NaN, a string NULL, a count `SMP_ERR_ABSENT`. 0.0 is a value.
 */

/**
 * Ends a result, its voxels and the strings it gave out.
 *
 * @param result  Result to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_result_free(smp_result *result);

/**
 * Tells everything below as one JSON object, and more: models, preprocessing, de-identification, package.
 *
 * @param result  Result to ask.
 * @return JSON, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_json(smp_result *result);

/**
 * Tells the id of the study: the request's, or one that was made for it.
 *
 * @param result  Result to ask.
 * @return Study id, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_study_id(smp_result *result);

/**
 * Tells when the study was processed.
 *
 * @param result  Result to ask.
 * @return RFC 3339, UTC, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_processed_at(smp_result *result);

/**
 * Tells which operations were really done, in their order.
 *
 * @param result  Result to ask.
 * @return Names separated by commas, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_operations(smp_result *result);

/**
 * Tells on which side of `threshold` the probability lies.
 *
 * @param result  Result to ask.
 * @return `positive`, `negative` or, within `uncertain_band`, `uncertain`; lives for ever. NULL with `SMP_ERR_ABSENT` without a prediction.
 * @since 0.1
 */
const char *smp_result_cancer_prediction(smp_result *result);

/**
 * Tells the probability of the positive class, 0 to 1.
 *
 * @param result  Result to ask.
 * @return Probability; NaN without a prediction.
 * @since 0.1
 */
double smp_result_cancer_probability(smp_result *result);

/**
 * Tells how far the probability is from 0.5: `abs(p - 0.5) * 2`, 0 to 1. It is a distance and not a calibrated confidence.
 *
 * @param result  Result to ask.
 * @return Score; NaN without a prediction.
 * @since 0.1
 */
double smp_result_confidence_score(smp_result *result);

/**
 * Tells how long the study took, from the call to the result.
 *
 * @param result  Result to ask.
 * @return Seconds, or NaN.
 * @since 0.1
 */
double smp_result_processing_time_seconds(smp_result *result);

/**
 * Tells the size of the volume, and of the mask. The number of voxels is the product, once for each channel of the volume
 * (`smp_result_channel_count`).
 *
 * @param result   Result to ask.
 * @param columns  Receives the number of columns.
 * @param rows     Receives the number of rows.
 * @param slices   Receives the number of slices.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_result_dims(smp_result *result, int64_t *columns, int64_t *rows, int64_t *slices);

/**
 * Counts the channels of the volume: 1, or the time points, echoes, b-values or colours that the series holds on one grid. `channels` in
 * `smp_result_json` tells what each is.
 *
 * @param result  Result to ask.
 * @return Number of channels, or a negative status.
 * @since 0.1
 */
int64_t smp_result_channel_count(smp_result *result);

/**
 * Tells the distances between the centres of neighbouring voxels, in mm.
 *
 * @param result   Result to ask.
 * @param columns  Receives the distance from column to column.
 * @param rows     Receives the distance from row to row.
 * @param slices   Receives the distance from slice to slice.
 * @return `SMP_OK` or a negative status.
 * @since 0.1
 */
int32_t smp_result_spacing(smp_result *result, double *columns, double *rows, double *slices);

/**
 * Tells where the voxels are: the 4 by 4 matrix that takes (column, row, slice, 1) to DICOM patient coordinates (LPS, mm).
 *
 * @param result    Result to ask.
 * @param sixteen   Receives the matrix, row by row.
 * @param capacity  Elements that `sixteen` has room for, at least 16.
 * @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
 * @since 0.1
 */
int32_t smp_result_affine(smp_result *result, double *sixteen, int64_t capacity);

/**
 * Copies the voxels, preprocessed when that was asked for; column fastest, then row, then slice, then channel.
 *
 * @param result    Result to ask.
 * @param out       Receives the voxels.
 * @param capacity  Elements that `out` has room for: columns times rows times slices times channels, at least.
 * @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
 * @since 0.1
 */
int32_t smp_result_copy_volume(smp_result *result, float *out, int64_t capacity);

/**
 * Copies the mask: the label of each voxel, 0 for background, in the order of one channel of the volume.
 *
 * @param result    Result to ask.
 * @param out       Receives the labels.
 * @param capacity  Elements that `out` has room for.
 * @return `SMP_OK`, `SMP_ERR_BUFFER_TOO_SMALL`, or `SMP_ERR_ABSENT` when the study was not segmented.
 * @since 0.1
 */
int32_t smp_result_copy_mask(smp_result *result, uint8_t *out, int64_t capacity);

/**
 * Counts the labels of the mask, background aside.
 *
 * @param result  Result to ask.
 * @return Number of labels, or `SMP_ERR_ABSENT` when the study was not segmented.
 * @since 0.1
 */
int64_t smp_result_label_count(smp_result *result);

/**
 * Tells the value that a label has in the mask.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_label_count` - 1.
 * @return 1 to 255, or a negative status.
 * @since 0.1
 */
int64_t smp_result_label_value(smp_result *result, int64_t index);

/**
 * Tells the name of a label, from the model's contract.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_label_count` - 1.
 * @return Name, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_label_name(smp_result *result, int64_t index);

/**
 * Tells the volume that a label fills, in ml. A label that was not found fills 0.0.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_label_count` - 1.
 * @return Millilitres, or NaN.
 * @since 0.1
 */
double smp_result_label_volume_ml(smp_result *result, int64_t index);

/**
 * Counts the predicted values: all outputs of the model, then those that were added.
 *
 * @param result  Result to ask.
 * @return Number of values, or a negative status. 0 without a prediction.
 * @since 0.1
 */
int64_t smp_result_prediction_count(smp_result *result);

/**
 * Tells what a predicted value stands for.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_prediction_count` - 1.
 * @return Label, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_prediction_label(smp_result *result, int64_t index);

/**
 * Tells which model made a predicted value.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_prediction_count` - 1.
 * @return Name of the model, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_prediction_model(smp_result *result, int64_t index);

/**
 * Tells a predicted value.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_prediction_count` - 1.
 * @return Value, or NaN.
 * @since 0.1
 */
double smp_result_prediction_value(smp_result *result, int64_t index);

/**
 * Adds a value that the host language predicted, from the volume and mask of this result. It lands in the result and in the audit log.
 *
 * The label `cancer_probability` stands for the probability of the positive class when no model of the pipeline has predicted one.
 *
 * @param result  Result to add to.
 * @param model   Name of what predicted it, 1 to 128 bytes.
 * @param label   What it stands for, 1 to 128 bytes.
 * @param value   Value, finite.
 * @return `SMP_OK` or `SMP_ERR_INVALID_ARGUMENT`.
 * @since 0.1
 */
int32_t smp_result_add_prediction(smp_result *result, const char *model, const char *label, double value);

/**
 * Tells how the slices were judged to form one grid: `dims`, `spacing_mm`, `affine_lps` (row-major 4x4, voxel index to LPS mm), `verdict`, `resampled`,
 * and what was remedied; docs/dicom.md has all of it.
 *
 * @param result  Result to ask.
 * @return JSON object, alive until the result is freed; or NULL.
 * @since 0.1
 */
const char *smp_result_geometry(smp_result *result);

/**
 * Tells how long a stage took.
 *
 * @param result  Result to ask.
 * @param stage   `fetch`, `load`, `anonymize`, `preprocess`, `segment`, `predict` or `write`.
 * @return Seconds; NaN for a stage that did not run.
 * @since 0.1
 */
double smp_result_stage_seconds(smp_result *result, const char *stage);

/**
 * Writes one product to a file; the extension says in which format. Folders are made as needed, and the file appears complete or not at
 * all.
 *
 * Blocks while the file is written.
 *
 * @param result  Result to write from.
 * @param path    File to write.
 * @param what    `volume` or `mask` (`.npy`, `.nii`, `.nii.gz`), `seg` or `sr` (`.dcm`), `summary` (`.json`) or `preview` (`.png`).
 * @return `SMP_OK`, `SMP_ERR_OUTPUT_UNSUPPORTED`, `SMP_ERR_OUTPUT_UNWRITABLE` or `SMP_ERR_ABSENT`.
 * @since 0.1
 */
int32_t smp_result_save(smp_result *result, const char *path, const char *what);

/**
 * Counts the DICOM objects that hold results, for programs that store them without files: the segmentation, when there is a mask,
 * then the structured report, when there is a mask or a prediction.
 *
 * @param result  Result to ask.
 * @return Number of objects, or a negative status.
 * @since 0.1
 */
int64_t smp_result_dicom_count(smp_result *result);

/**
 * Tells the size of a DICOM object, as a file. The object is made by the first call that asks for it, a report anew after
 * `smp_result_add_prediction`.
 *
 * @param result  Result to ask.
 * @param index   0 to `smp_result_dicom_count` - 1.
 * @return Number of bytes, or a negative status.
 * @since 0.1
 */
int64_t smp_result_dicom_size(smp_result *result, int64_t index);

/**
 * Copies a DICOM object, as the bytes of a file (PS3.10), explicit VR, little endian.
 *
 * @param result    Result to ask.
 * @param index     0 to `smp_result_dicom_count` - 1.
 * @param out       Receives the bytes.
 * @param capacity  Bytes that `out` has room for: `smp_result_dicom_size`, at least.
 * @return `SMP_OK` or `SMP_ERR_BUFFER_TOO_SMALL`.
 * @since 0.1
 */
int32_t smp_result_dicom_copy(smp_result *result, int64_t index, uint8_t *out, int64_t capacity);

/*
 * Audit: the tamper-evident log, read by anybody, without a pipeline and without a secret.
 */

/**
 * Opens a folder of logs, one log, or one file of a log.
 *
 * Blocks while the log is read.
 *
 * @param path  Folder or file, such as the value of `audit_log_path`.
 * @return The log, or NULL with `SMP_ERR_AUDIT_UNREADABLE`.
 * @since 0.1
 */
smp_audit *smp_audit_open(const char *path);

/**
 * Ends a log handle and the strings it gave out. The log's files stay.
 *
 * @param audit  Log to end; NULL and dead handles are allowed.
 * @since 0.1
 */
void smp_audit_free(smp_audit *audit);

/**
 * Counts the entries.
 *
 * @param audit  Log to ask.
 * @return Number of entries, or a negative status.
 * @since 0.1
 */
int64_t smp_audit_count(smp_audit *audit);

/**
 * Verifies every chain of the log.
 *
 * Blocks while the log is read.
 *
 * @param audit      Log to verify.
 * @param first_bad  Receives -1 with `SMP_OK`, and with `SMP_ERR_AUDIT_TAMPERED` the position, from 0, of the first entry that does not
 *                   verify; untouched with any other status. May be NULL.
 * @return `SMP_OK` when everything verifies, `SMP_ERR_AUDIT_TAMPERED` when something does not.
 * @since 0.1
 */
int32_t smp_audit_verify(smp_audit *audit, int64_t *first_bad);

/**
 * Tells the hash of the newest entry. Who keeps it elsewhere can show later that nothing before it was changed.
 *
 * @param audit  Log to ask.
 * @return SHA-256 in hexadecimal, alive until the log handle is freed; or NULL.
 * @since 0.1
 */
const char *smp_audit_head(smp_audit *audit);

/**
 * Exports the entries of a period.
 *
 * Blocks while the file is written. Folders are made as needed, and the file appears complete or not at all.
 *
 * @param audit   Log to export.
 * @param format  `json` or `csv`.
 * @param path    File to write.
 * @param start   First day (`YYYY-MM-DD`) or moment (RFC 3339), inclusive; NULL from the beginning.
 * @param end     Last day or moment, inclusive; NULL to the end.
 * @return Number of entries, or a negative status.
 * @since 0.1
 */
int64_t smp_audit_export(smp_audit *audit, const char *format, const char *path, const char *start, const char *end);

/*
 * Erasure: files of the caller's own, overwritten and removed, with an honest verdict.
 *
 * Overwriting reaches the old bytes only where the file system and the device write in place. SSDs and copy-on-write file systems do
 * not. What really protects is that the library never writes plaintext to a disk.
 */

/**
 * Overwrites a file and removes it.
 *
 * Blocks. A symbolic link, a device or a file of the system is refused.
 *
 * @param path    File to erase.
 * @param passes  How often it is overwritten; 3 is what DoD 5220.22-M asked for.
 * @return `SMP_OK` when the old bytes were overwritten in place; `SMP_PARTIAL` when the file is gone but its storage may keep old bytes
 *         for some time; `SMP_ERR_ERASE_FAILED` or `SMP_ERR_ERASE_REFUSED`.
 * @since 0.1
 */
int32_t smp_erase_file(const char *path, int32_t passes);

/**
 * Overwrites and removes every file in a folder and below it, and the folder.
 *
 * Blocks. Symbolic links are removed and never followed; a mount point or a folder of the system is refused.
 *
 * @param path    Folder to erase.
 * @param passes  How often each file is overwritten.
 * @return As `smp_erase_file`, for the worst of all files.
 * @since 0.1
 */
int32_t smp_erase_directory(const char *path, int32_t passes);

#ifdef __cplusplus
}
#endif

#endif
