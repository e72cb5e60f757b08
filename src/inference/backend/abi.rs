//! The interface of backends as Rust sees it: a mirror of `include/smp_backend.h`, which says what everything means.
//!
//! **Invariant:** sizes, offsets and constants here are the header's. A test compiles the header and compares them.

use std::ffi::{c_char, c_void};

/// Version of the interface.
pub(super) const ABI: u32 = 1;
/// Most dimensions of a tensor.
pub(super) const RANK: usize = 8;
/// Most inputs of one run.
pub(super) const INPUTS: usize = 64;
/// Bytes of a message.
pub(super) const MESSAGE: usize = 256;

pub(super) const OK: i32 = 0;
pub(super) const UNREADABLE: i32 = 1;
pub(super) const UNSUPPORTED: i32 = 2;
pub(super) const DEVICE_UNAVAILABLE: i32 = 3;
pub(super) const DEVICE_OUT_OF_MEMORY: i32 = 4;
pub(super) const OUT_OF_MEMORY: i32 = 5;
pub(super) const SHAPE: i32 = 6;
pub(super) const FAILED: i32 = 7;
pub(super) const CANCELLED: i32 = 8;

/// Reasons that may be passed on, SMP_BACKEND_WHY_*: whatever else a backend says is dropped.
pub(super) const REASONS: [&str; 7] = [
    "the inputs' names are not the model's",
    "the model takes another number of inputs",
    "an input's dimensions do not fit the model",
    "the model has no such output",
    "the output is not a tensor of numbers",
    "the model raised an error of its own",
    "the model needs a newer version of the backend's library",
];

/// smp_backend_model: the backend's own.
#[repr(C)]
pub(super) struct Model {
    _private: [u8; 0],
}

/// smp_backend_message.
#[repr(C)]
pub(super) struct Message {
    pub(super) text: [u8; MESSAGE],
}

/// smp_backend_open.
#[repr(C)]
pub(super) struct Open {
    pub(super) struct_size: u32,
    pub(super) threads: u32,
    pub(super) model: *const u8,
    pub(super) model_length: u64,
    pub(super) device: *const c_char,
    pub(super) deterministic: i32,
    pub(super) reserved: u32,
}

/// smp_backend_tensor.
#[repr(C)]
pub(super) struct Tensor {
    pub(super) name: *const c_char,
    pub(super) values: *const f32,
    pub(super) count: u64,
    pub(super) rank: u32,
    pub(super) reserved: u32,
    pub(super) shape: [i64; RANK],
}

/// smp_backend_read.
pub(super) type Read = unsafe extern "C" fn(context: *mut c_void, rank: u32, shape: *const i64, values: *const f32);

/// Lists of names.
pub(super) type Names = unsafe extern "C" fn(model: *const Model, count: *mut u32) -> *const *const c_char;

/// smp_backend. Functions that must be there are `Option` as well: a backend's word for it is checked when it is loaded.
#[repr(C)]
pub(super) struct Table {
    pub(super) abi: u32,
    pub(super) struct_size: u32,
    pub(super) name: *const c_char,
    pub(super) version: Option<unsafe extern "C" fn() -> *const c_char>,
    pub(super) device_available: Option<unsafe extern "C" fn(device: *const c_char) -> i32>,
    pub(super) open: Option<unsafe extern "C" fn(request: *const Open, out: *mut *mut Model, why: *mut Message) -> i32>,
    pub(super) inputs: Option<Names>,
    pub(super) outputs: Option<Names>,
    pub(super) run: Option<Run>,
    pub(super) close: Option<unsafe extern "C" fn(model: *mut Model)>,
}

/// smp_backend.run.
pub(super) type Run = unsafe extern "C" fn(
    model: *mut Model,
    inputs: *const Tensor,
    count: u32,
    output: *const c_char,
    read: Read,
    context: *mut c_void,
    cancelled: *const i32,
    why: *mut Message,
) -> i32;

/// smp_backend_entry.
pub(super) type Entry = unsafe extern "C" fn(abi: u32) -> *const Table;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};
    use std::process::Command;

    #[test]
    fn the_mirror_is_the_header() {
        let folder = tempfile::tempdir().unwrap();
        let mut source = String::from("#include \"smp_backend.h\"\n#include <stdio.h>\nint main(void) {\n");
        let mut expected = String::new();
        let mut number = |expression: &str, value: usize| {
            source += &format!("printf(\"%lu\\n\", (unsigned long)({expression}));\n");
            expected += &format!("{value}\n");
        };
        macro_rules! fields {
            ($c:literal, $rust:ty: $($field:ident)*) => {
                number(concat!("sizeof(", $c, ")"), size_of::<$rust>());
                $(number(concat!("offsetof(", $c, ", ", stringify!($field), ")"), offset_of!($rust, $field));)*
            };
        }
        fields!("smp_backend_message", Message: text);
        fields!("smp_backend_open", Open: struct_size threads model model_length device deterministic reserved);
        fields!("smp_backend_tensor", Tensor: name values count rank reserved shape);
        fields!("smp_backend", Table: abi struct_size name version device_available open inputs outputs run close);
        for (name, value) in [
            ("ABI", ABI as usize),
            ("RANK", RANK),
            ("INPUTS", INPUTS),
            ("MESSAGE", MESSAGE),
            ("OK", OK as usize),
            ("UNREADABLE", UNREADABLE as usize),
            ("UNSUPPORTED", UNSUPPORTED as usize),
            ("DEVICE_UNAVAILABLE", DEVICE_UNAVAILABLE as usize),
            ("DEVICE_OUT_OF_MEMORY", DEVICE_OUT_OF_MEMORY as usize),
            ("OUT_OF_MEMORY", OUT_OF_MEMORY as usize),
            ("SHAPE", SHAPE as usize),
            ("FAILED", FAILED as usize),
            ("CANCELLED", CANCELLED as usize),
        ] {
            number(&format!("SMP_BACKEND_{name}"), value);
        }
        for name in ["INPUT_NAMES", "INPUT_COUNT", "INPUT_SHAPE", "OUTPUT_NAME", "OUTPUT_TYPE", "MODEL_RAISED", "OLD_LIBRARY"] {
            source += &format!("puts(SMP_BACKEND_WHY_{name});\n");
        }
        expected += &(REASONS.join("\n") + "\n");
        source += "return 0; }\n";
        let (file, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
        std::fs::write(&file, source).unwrap();
        let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
        let status = Command::new("cc")
            .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", include, "-o"])
            .args([&program, &file])
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap(), expected);
    }
}
