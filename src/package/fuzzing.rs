//! Fuzzing of the package: what must hold of every answer to foreign bytes. See [`crate::fuzzing`].

use super::Limits;
use super::chunked::{self, CHUNK, Chunks, PREFIX, SEALED_CHUNK};
use super::header::{self, Header, ObjectRef, Recipient};
use super::manifest::Manifest;
use super::pad::MANIFEST_UNIT;
use super::tree;

/// What was accepted has one spelling: writing it again gives the same bytes.
pub(crate) fn header(bytes: &[u8]) {
    if let Ok(signed) = header::parse(bytes) {
        let message = signed.header.message().expect("an accepted header can be written");
        assert!(message.as_bytes() == signed.message);
        assert!(header::write(&message, &signed.signature) == bytes);
    }
}

/// A manifest for a header with two packs; the input is padded as a manifest is.
pub(crate) fn manifest(bytes: &[u8]) {
    let pack = |byte: u8, plain: u64| ObjectRef { root: [byte; 32], name: [byte; 16], size: chunked::sealed_len(plain) };
    let header = Header {
        created: "2024-01-01T00:00:00Z".to_owned(),
        manifest: pack(9, 65_536),
        packs: vec![pack(1, 1000), pack(2, 500)],
        package: [0; 16],
        purpose: String::new(),
        recipients: vec![Recipient { wrapped: [0; 48], encapsulated: [0; 97], digest: [0; 32] }],
        sender: [0; 32],
    };
    let mut plain = bytes.to_vec();
    plain.resize(plain.len().next_multiple_of(MANIFEST_UNIT).max(MANIFEST_UNIT), b'\n');
    if let Ok(manifest) = Manifest::parse(&plain, &header, &Limits::default()) {
        let again = manifest.write().expect("an accepted manifest can be written");
        // Padding may be longer than needed; what stands before it may not differ.
        assert!(plain.starts_with(again.trim_ascii_end()));
        assert!(plain.get(again.trim_ascii_end().len()..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'\n')));
        assert!(manifest.files.iter().all(|file| file.offset + file.size <= 1000));
        assert!(manifest.files.iter().all(|file| !file.path.starts_with('/') && !file.path.split('/').any(|part| part == "..")));
    }
}

/// The input once as a sealed object of somebody, and once as instructions: a message, what is done to it, where.
pub(crate) fn chunks(bytes: &[u8]) {
    let key = [7; 32];
    if let Some((prefix, body)) = bytes.split_at_checked(PREFIX) {
        // Nobody can make a commitment by chance.
        assert!(Chunks::resume(&key, prefix, b"context").is_err());
        assert!(chunked::open_message(&key, b"context", bytes).is_err());
        let (chunks, _) = Chunks::begin(&key, b"context").expect("a random salt");
        for last in [false, true] {
            let opened = chunks.open_whole_run(3, body, last);
            assert!(opened.is_err() || (body.is_empty() && !last), "forged chunks opened");
        }
    }
    let Some((head, message)) = bytes.split_at_checked(8) else { return };
    let repeat = usize::from(head[0]) + 1;
    let message = message.repeat(repeat);
    let message = message.get(..message.len().min(4 * CHUNK)).unwrap_or_default();
    let (chunks, prefix) = Chunks::begin(&key, b"context").expect("a random salt");
    let mut body = vec![0; chunked::run_len(message.len(), true).expect("a whole message")];
    chunks.seal_run(0, message, true, &mut body).expect("room for the message");
    let mut sealed = [prefix.as_slice(), &body].concat();
    assert_eq!(chunked::plain_len(sealed.len() as u64), Some(message.len() as u64));
    assert_eq!(chunked::sealed_len(message.len() as u64), sealed.len() as u64);
    assert_eq!(chunked::open_message(&key, b"context", &sealed).expect("genuine").as_slice(), message);

    let place = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize % sealed.len();
    match head[1] % 5 {
        0 => sealed[place] ^= head[6].max(1),
        1 => sealed.truncate(place),
        2 => sealed.extend_from_slice(&body[..place.min(body.len()).max(1)]),
        3 if sealed.len() > PREFIX + 2 * SEALED_CHUNK => {
            sealed[PREFIX..PREFIX + 2 * SEALED_CHUNK].rotate_left(SEALED_CHUNK);
            // Equal chunks under different nonces differ, so the exchange shows.
        }
        3 | 4 => _ = sealed.remove(place),
        _ => {}
    }
    assert!(chunked::open_message(&key, b"context", &sealed).is_err(), "a tampered message opened");
}

/// Ranges cover an object exactly, and lengths are each other's inverses.
pub(crate) fn tree(bytes: &[u8]) {
    let Some((number, leaves)) = bytes.split_first_chunk::<8>() else { return };
    let size = u64::from_le_bytes(*number);
    if let Some(plain) = chunked::plain_len(size) {
        assert_eq!(chunked::sealed_len(plain), size);
    }
    // 1 GiB and a little is the largest pack; far more is only slow to list.
    let size = size % (1 << 33);
    let ranges = tree::ranges(size);
    assert_eq!(ranges.len() as u64, tree::range_count(size));
    assert_eq!(ranges.first().map(|range| range.start), Some(0));
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].start < pair[0].end));
    assert_eq!(ranges.last().map(|range| range.end), Some(size));
    let leaves: Vec<tree::Hash> = leaves.as_chunks::<32>().0.to_vec();
    let root = tree::root(&leaves);
    if leaves.len() > 1 {
        let mut other = leaves.clone();
        other.swap(0, leaves.len() - 1);
        assert!(other == leaves || tree::root(&other) != root);
        assert!(tree::root(&leaves[1..]) != root);
    }
}
