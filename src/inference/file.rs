//! The model file: read once, hashed, looked at, and only then given to the runtime.
//!
//! The bytes that were hashed are the bytes that are run: the runtime gets memory, never a path, so nobody can exchange the file in
//! between. A file that keeps its weights in other files is refused for the same reason. Pickles are recognised by content, whatever their
//! name, and never opened.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::inference::{RuntimeOptions, torch_file};

/// Protobuf's own limit, and so ONNX's for one file.
const MAX_BYTES: u64 = 2 << 30;
/// Graphs within graphs (loop and if bodies) that are followed.
const DEPTH: usize = 32;

/// Who can run a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// ONNX Runtime.
    Onnx,
    /// The TorchScript backend.
    TorchScript,
    /// The backend that the configuration names.
    Other,
}

/// A model file that is what its format says by its structure, and complete in itself.
pub(super) struct ModelFile {
    pub(super) format: Format,
    pub(super) bytes: Vec<u8>,
    /// SHA-256, lower-case hex.
    pub(super) sha256: String,
}

impl ModelFile {
    /// An entry of the model's `metadata_props`; the first of that name.
    pub(super) fn metadata(&self, wanted: &str) -> Option<&[u8]> {
        // ModelProto.metadata_props = 14; StringStringEntryProto.key = 1, value = 2.
        fields(&self.bytes).filter(|(number, _)| *number == 14).find_map(|(_, entry)| {
            let of = |number: u64| fields(entry).find(|(found, _)| *found == number).map(|(_, content)| content);
            of(2).filter(|_| of(1) == Some(wanted.as_bytes()))
        })
    }
}

/// The length-delimited fields of a message: number and content. Ends where the bytes stop being a message.
fn fields(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            match key & 7 {
                0 => {
                    varint(&mut rest)?;
                }
                1 => rest = rest.get(8..)?,
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    let (content, after) = rest.split_at_checked(length)?;
                    rest = after;
                    return Some((key >> 3, content));
                }
                5 => rest = rest.get(4..)?,
                _ => return None,
            }
        }
        None
    })
}

/// Reads a model. Files that are neither ONNX nor PyTorch's are for the backend that the options name, if they name one.
///
/// # Errors
/// [`Kind::ModelUnreadable`]; [`Kind::ModelPickle`] for pickles; [`Kind::Unsupported`] for torch.export archives.
pub(super) fn read(path: &Path, options: &RuntimeOptions) -> Result<ModelFile> {
    let bytes = read_limited(path, MAX_BYTES).map_err(|why| Error::new(Kind::ModelUnreadable, why))?;
    let format = format_of(&bytes, options.backend_library.is_some())?;
    let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ModelFile { format, bytes, sha256 })
}

/// What a file is, by its content.
pub(super) fn format_of(bytes: &[u8], has_backend: bool) -> Result<Format> {
    if torch_file::is_torch(bytes) {
        return torch_file::check(bytes).map(|()| Format::TorchScript);
    }
    refuse_foreign(bytes)?;
    match external_data(bytes, Message::Model, DEPTH) {
        Some(false) => Ok(Format::Onnx),
        Some(true) => Err(Error::new(Kind::ModelUnreadable, "the model keeps its weights in other files, which its digest does not cover")
            .with_hint("save it as one file: onnx.save(model, path, save_as_external_data=False)")),
        None if has_backend => Ok(Format::Other),
        None => Err(Error::new(Kind::ModelUnreadable, "not an onnx file, or a damaged one")),
    }
}

/// A whole file of limited size; the error is a reason in our words.
pub(super) fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "no right to read the file".to_owned(),
        _ => "the file cannot be opened".to_owned(),
    })?;
    let size = file.metadata().map_err(|_| "the file cannot be opened")?;
    if !size.is_file() {
        return Err("not a regular file".to_owned());
    }
    let too_large = || format!("larger than {} MiB", most >> 20);
    let expected = usize::try_from(size.len()).map_err(|_| too_large())?;
    if size.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(expected).map_err(|_| "not enough memory for the file")?;
    // The size may have changed since: the limit holds for what is read, not for what was announced.
    file.take(most + 1).read_to_end(&mut bytes).map_err(|_| "the file cannot be read")?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Other formats of weights, by content.
fn refuse_foreign(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Err(Error::new(Kind::ModelUnreadable, "an hdf5 file, not an onnx file")
            .with_hint("export it with tf2onnx: python -m tf2onnx.convert --keras model.h5 --output model.onnx"));
    }
    Ok(())
}

/// Messages of onnx.proto that lead to tensors, so far as they matter here.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
}

impl Message {
    /// The message in a field, by its number in onnx.proto.
    fn field(self, number: u64) -> Option<Message> {
        Some(match (self, number) {
            (Message::Model, 7) => Message::Graph,
            (Message::Model, 25) => Message::Function,
            (Message::Graph, 1) | (Message::Function, 7) => Message::Node,
            (Message::Graph, 5) => Message::Tensor,
            (Message::Graph, 15) => Message::SparseTensor,
            (Message::Node, 5) => Message::Attribute,
            (Message::Attribute, 5 | 10) => Message::Tensor,
            (Message::Attribute, 6 | 11) => Message::Graph,
            (Message::Attribute, 22 | 23) => Message::SparseTensor,
            (Message::SparseTensor, 1 | 2) => Message::Tensor,
            (Message::Function, 11) => Message::Attribute,
            _ => return None,
        })
    }
}

/// Whether any tensor of a message lies in another file; `None` when the bytes are not such a message.
///
/// The walk follows only the fields that can hold a tensor, checks every length against what is left, and goes no deeper than `depth`. The
/// runtime parses the bytes again later; a file that this walk cannot read is refused before.
fn external_data(bytes: &[u8], message: Message, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    let mut rest = bytes;
    let mut external = false;
    let mut has_graph = false;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let number = key >> 3;
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                // TensorProto.data_location, EXTERNAL = 1.
                external |= matches!(message, Message::Tensor) && number == 14 && value == 1;
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (field, after) = rest.split_at_checked(length)?;
                rest = after;
                // TensorProto.external_data: where in the other file.
                external |= matches!(message, Message::Tensor) && number == 13;
                has_graph |= matches!(message, Message::Model) && number == 7;
                if let Some(inner) = message.field(number) {
                    external |= external_data(field, inner, depth)?;
                }
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    (has_graph || !matches!(message, Message::Model)).then_some(external)
}

/// A base-128 number, least significant group first.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8][..], content].concat()
    }

    #[test]
    fn weights_in_another_file_are_found_wherever_a_tensor_may_stand() {
        // data_location = EXTERNAL: field 14, varint 1.
        let tensor = [14 << 3, 1];
        let inline = [14 << 3, 0];
        let in_graph = |tensor: &[u8]| field(5, tensor);
        let in_node = |tensor: &[u8]| field(1, &field(5, &field(5, tensor)));
        let in_branch = |tensor: &[u8]| field(1, &field(5, &field(6, &field(5, tensor))));
        for place in [&in_graph as &dyn Fn(&[u8]) -> Vec<u8>, &in_node, &in_branch] {
            assert_eq!(external_data(&field(7, &place(&tensor)), Message::Model, DEPTH), Some(true));
            assert_eq!(external_data(&field(7, &place(&inline)), Message::Model, DEPTH), Some(false));
        }
    }

    #[test]
    fn metadata_is_found_by_its_name() {
        let entry = |key: &[u8], value: &[u8]| field(14, &[field(1, key), field(2, value)].concat());
        let bytes = [field(7, b""), entry(b"author", b"somebody"), entry(b"smp_contract", b"{}")].concat();
        let model = ModelFile { format: Format::Onnx, bytes, sha256: String::new() };
        assert_eq!(model.metadata("smp_contract"), Some(&b"{}"[..]));
        assert_eq!(model.metadata("contract"), None);
    }

    #[test]
    fn damaged_and_foreign_bytes_are_no_model() {
        let mut nested = vec![14 << 3, 1];
        for _ in 0..12 {
            nested = field(1, &field(5, &field(6, &nested)));
        }
        for bytes in [&b""[..], b"hello world, no model", &[0x3a, 0xff], &[0x3a, 0x05, 1], &[0xff; 11], &field(7, &nested)] {
            assert_eq!(external_data(bytes, Message::Model, 8), None, "{bytes:?}");
        }
    }

    #[test]
    fn formats_are_told_apart_by_content() {
        let kind = |bytes: &[u8], has_backend| format_of(bytes, has_backend).map_err(|error| error.kind());
        assert_eq!(kind(&field(7, b""), false), Ok(Format::Onnx));
        assert_eq!(kind(b"\x89HDF\r\n\x1a\n", true), Err(Kind::ModelUnreadable));
        assert_eq!(kind(b"\x80\x02}q\x00.", true), Err(Kind::ModelPickle));
        assert_eq!(kind(b"mean 1", false), Err(Kind::ModelUnreadable));
        assert_eq!(kind(b"mean 1", true), Ok(Format::Other));
    }
}
