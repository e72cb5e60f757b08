//! The primitives by themselves: what sealing and opening cannot be faster than. With several processors each works on a part of its own.

use std::hint::black_box;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Row;

/// Bytes of a chunk of a sealed package.
const CHUNK: usize = 16_384;
/// Bytes of a range, over which a package hashes.
const RANGE: usize = 512 * CHUNK;

pub const OPEN_AWS_LC: &str = "AES-256-GCM open, 16 KiB, aws-lc-rs";
pub const SHA_AWS_LC: &str = "SHA-256, 8 MiB, aws-lc-rs";
pub const SHA_SHA2: &str = "SHA-256, 8 MiB, sha2";

/// Bytes that do not compress and are the same in every run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = vec![0u8; length];
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&(state ^ state >> 29).to_le_bytes()[..word.len()]);
    }
    bytes
}

fn nonce(number: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
    nonce
}

pub fn rows(plain: &[u8]) -> Vec<Row<'_>> {
    let length = plain.len();
    let mut rows = Vec::new();

    let mut copy = plain.to_vec();
    rows.push(Row::timed("copy, 16 KiB at a time", length, move || {
        copy.par_chunks_mut(CHUNK)
            .zip(plain.par_chunks(CHUNK))
            .with_min_len(512)
            .for_each(|(to, from)| to.copy_from_slice(black_box(from)));
    }));

    // Each chunk is sealed and opened in place: what is opened is what was sealed a row before, so every tag is genuine.
    let cipher = aes_gcm::Aes256Gcm::new(&[7u8; 32].into());
    let opener = cipher.clone();
    let work = std::rc::Rc::new(std::cell::RefCell::new((plain.to_vec(), vec![[0u8; 16]; length / CHUNK])));
    let shared = std::rc::Rc::clone(&work);
    rows.push(Row::timed("AES-256-GCM seal, 16 KiB, aes-gcm", length, move || {
        let (bytes, tags) = &mut *shared.borrow_mut();
        bytes.par_chunks_mut(CHUNK).zip(tags).enumerate().with_min_len(512).for_each(|(number, (chunk, tag))| {
            *tag = cipher.encrypt_inout_detached(&nonce(number).into(), &[], chunk.into()).unwrap().into();
        });
    }));
    rows.push(Row::timed("AES-256-GCM open, 16 KiB, aes-gcm", length, move || {
        let (bytes, tags) = &mut *work.borrow_mut();
        bytes.par_chunks_mut(CHUNK).zip(tags).enumerate().with_min_len(512).for_each(|(number, (chunk, tag))| {
            opener.decrypt_inout_detached(&nonce(number).into(), &[], chunk.into(), &(*tag).into()).unwrap();
        });
    }));

    let key = || LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7u8; 32]).unwrap());
    let (cipher, opener) = (key(), key());
    let work = std::rc::Rc::new(std::cell::RefCell::new((plain.to_vec(), vec![[0u8; 16]; length / CHUNK])));
    let shared = std::rc::Rc::clone(&work);
    rows.push(Row::timed("AES-256-GCM seal, 16 KiB, aws-lc-rs", length, move || {
        let (bytes, tags) = &mut *shared.borrow_mut();
        bytes.par_chunks_mut(CHUNK).zip(tags).enumerate().with_min_len(512).for_each(|(number, (chunk, tag))| {
            let nonce = Nonce::assume_unique_for_key(nonce(number));
            tag.copy_from_slice(cipher.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).unwrap().as_ref());
        });
    }));
    let mut out = vec![0u8; length];
    rows.push(Row::timed(OPEN_AWS_LC, length, move || {
        let (bytes, tags) = &*work.borrow();
        out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK)).zip(tags).enumerate().with_min_len(512).for_each(
            |(number, ((to, from), tag))| {
                opener.open_separate_gather(Nonce::assume_unique_for_key(nonce(number)), Aad::empty(), from, tag, to).unwrap();
            },
        );
    }));

    rows.push(Row::timed(SHA_SHA2, length, move || {
        plain.par_chunks(RANGE).for_each(|range| _ = black_box(Sha256::digest(range)));
    }));
    rows.push(Row::timed(SHA_AWS_LC, length, move || {
        plain.par_chunks(RANGE).for_each(|range| _ = black_box(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, range)));
    }));
    rows
}
