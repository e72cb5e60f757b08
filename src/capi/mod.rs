//! smp: a sealed medical imaging study in, a de-identified, segmented and scored result out, in one process.
//!
//! # Conventions
//!
//! 1. **Names.** `smp_<noun>_<verb>`; a noun's function takes the noun first. `new` makes, `open` and `load` read, `free` ends.
//! 2. **Outcome.** A status is an `int32_t`: `SMP_OK` is 0, a positive one is not an error (`SMP_PENDING`, `SMP_PARTIAL`), a negative
//!    one is an `SMP_ERR_*`. A number is never given to another meaning. Functions that make something answer a handle or NULL,
//!    those that count answer a negative status on failure, those that measure answer NaN, those that name something answer NULL.
//! 3. **Why.** `smp_last_error` and its sisters speak of the last failed call of the thread that asks. A call that succeeds leaves
//!    them alone. No message ever holds patient data.
//! 4. **Handles** are checked keys and not addresses. A freed, foreign, doubled or invented handle is answered with
//!    `SMP_ERR_INVALID_HANDLE`. `free` takes NULL and dead handles in silence, in any order, on any thread. An object that is freed
//!    while another thread is in a call with it ends when that call returns.
//! 5. **Strings in** are NUL-terminated UTF-8, at most 16 MiB, copied, and erased when the call ends. In paths `~` and `$VAR` are
//!    expanded. **Strings out** are borrowed and never freed by the caller; they live until their handle is freed (the error's text:
//!    until the next failed call of the thread; the library's own: for ever).
//! 6. **Arrays out** go to the caller's memory: ask for the size, allocate, copy. Nothing is written unless everything fits.
//!    Capacities count elements. Voxels come column fastest, then row, then slice, so that MATLAB and Julia see
//!    `(columns, rows, slices)` with no permutation.
//! 7. **Out parameters** are pointers to scalars, come last, and are written on success only (`smp_audit_verify` says where it
//!    differs). An index counts from 0.
//! 8. **Threads.** Any function, any thread, any time. Functions whose text says "Blocks" wait for a network, a disk or long
//!    arithmetic; no others do.
//! 9. **Types.** C99: only `int32_t`, `int64_t`, `uint8_t`, `float`, `double`, `char`, pointers to these and to opaque structs, so that
//!    MATLAB's `loadlibrary` and every foreign function interface read this header as it is.
//! 10. **ABI.** Names, signatures, constants and configuration keys are the promise. `SMP_ABI_VERSION` rises when one of them
//!     changes or goes, never when one is added, and it is the number in the shared library's name (`libsmp.so.1`).
//!
//! The header is generated from the library's source: change that instead.

// What a C caller promises is the same for every function and stands in the conventions: texts end with a NUL (5), arrays are as long as
// is said (6), scalars can be written (7). Names of types are C's.
#![allow(clippy::missing_safety_doc, non_camel_case_types)]

mod guard;
mod handle;
mod slice;
mod text;

// The order of the modules is the order of the header.
pub mod status;

pub mod library;

pub mod errors;

pub mod config;

pub mod keystore;

pub mod package;

pub mod request;

pub mod pipeline;

pub mod result;

pub mod audit;

pub mod erasure;

// These two make `smp_callbacks.h`: function pointers are nothing that MATLAB can load.
pub mod case;

pub mod callbacks;
