//! Published vectors against the primitives as this module uses them: C2SP chunked encryption, Wycheproof, and an HPKE sample on which
//! three other implementations agree.

use std::io::Read;
use std::path::PathBuf;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hmac::Hmac;
use p384::pkcs8::DecodePublicKey;
use serde_json::Value;
use sha2::{Digest, Sha384, Sha512};

use super::bulk::BulkKey;
use super::chunked::{self, Chunks, PREFIX, SEALED_CHUNK};
use super::{derive, hpke_open};
use crate::keys::{PrivatePair, hex, unhex};

/// The folder shared/ beside the checkout, or the parent of `SMP_TEST_DATA`.
fn shared(path: &str) -> Option<Value> {
    let data = std::env::var_os("SMP_TEST_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"));
    let Ok(text) = std::fs::read(data.parent().unwrap().join(path)) else {
        eprintln!("SKIPPED: {path} is not there; set SMP_TEST_DATA");
        return None;
    };
    Some(serde_json::from_slice(&text).unwrap())
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Every test of every group of a file, with its group; the count must be the file's own.
fn each(file: &Value, mut check: impl FnMut(&Value, &Value)) {
    let mut count = 0;
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            check(group, test);
            count += 1;
        }
    }
    assert_eq!(count, file["numberOfTests"].as_u64().unwrap());
}

fn flagged(test: &Value, flag: &str) -> bool {
    test["flags"].as_array().unwrap().iter().any(|found| found == flag)
}

#[test]
fn chunked_encryption_agrees_with_c2sp() {
    let Some(file) = shared("vectors/c2sp_chunked_encryption_aes_256_gcm_test.json") else { return };
    assert_eq!(file["numberOfTests"], 35);
    each(&file, |_, test| {
        let name = format!("test {}: {}", test["tcId"], test["comment"]);
        let (key, context, valid) = (bytes(&test["key"]), bytes(&test["ctx"]), test["result"] == "valid");
        let mut sealed = Vec::new();
        flate2::read::ZlibDecoder::new(bytes(&test["ct"]).as_slice()).read_to_end(&mut sealed).unwrap();
        let whole = chunked::open_message(&key, &context, &sealed);
        assert_eq!(whole.is_ok(), valid, "{name}");

        // Chunk by chunk, as a streaming receiver: what opens before the first failure is the prefix that the vector describes.
        let resumed = sealed.split_at_checked(PREFIX).and_then(|(prefix, _)| Chunks::resume(&key, prefix, &context).ok());
        assert_eq!(resumed.is_none(), flagged(test, "HeaderFailure"), "{name}");
        let mut prefix = Vec::new();
        let mut ended = false;
        if let Some(chunks) = &resumed {
            for (number, piece) in sealed[PREFIX..].chunks(SEALED_CHUNK).enumerate() {
                let last = piece.len() < SEALED_CHUNK;
                let mut plain = vec![0xAA; chunked::opened_len(piece.len())];
                let opened = chunks.open_run(number as u64, piece, last, &mut [&mut plain]);
                if opened.is_err() {
                    assert!(plain.iter().all(|byte| *byte == 0), "{name}: a forged chunk is wiped");
                    break;
                }
                prefix.extend_from_slice(&plain);
                ended = last;
            }
        }
        assert_eq!(ended, valid, "{name}");
        if valid || flagged(test, "PartialPlaintext") {
            assert_eq!(prefix.len() as u64, test["msgLength"].as_u64().unwrap(), "{name}");
            assert_eq!(hex(&Sha512::digest(&prefix)), test["msgSha512"].as_str().unwrap(), "{name}");
        } else {
            assert!(prefix.is_empty(), "{name}");
        }
        if valid {
            assert!(*whole.unwrap() == prefix, "{name}");
            // One run at once, from the middle, agrees with the whole.
            let middle = sealed.len().saturating_sub(PREFIX) / SEALED_CHUNK / 2;
            let rest = &sealed[PREFIX + middle * SEALED_CHUNK..];
            let rest = resumed.as_ref().unwrap().open_whole_run(middle as u64, rest, true).unwrap();
            assert!(*rest == prefix[middle * chunked::CHUNK..], "{name}");
        }

        // Authenticating the length by the final chunk alone.
        let last = sealed.len().checked_sub(PREFIX).map(|body| body / SEALED_CHUNK);
        let final_opens = resumed
            .zip(last)
            .is_some_and(|(chunks, last)| chunks.open_whole_run(last as u64, &sealed[PREFIX + last * SEALED_CHUNK..], true).is_ok());
        assert_eq!(final_opens, valid || flagged(test, "ValidFinalChunk"), "{name}");
        if valid {
            assert_eq!(chunked::plain_len(sealed.len() as u64), test["msgLength"].as_u64(), "{name}");
            assert_eq!(chunked::sealed_len(test["msgLength"].as_u64().unwrap()), sealed.len() as u64, "{name}");
        }
    });
}

#[test]
fn aes_256_gcm_agrees_with_wycheproof() {
    let Some(file) = shared("vectors/aes_gcm_test.json") else { return };
    let (mut used, mut bulk_used) = (0, 0);
    each(&file, |group, test| {
        if group["keySize"] != 256 || group["ivSize"] != 96 {
            return;
        }
        used += 1;
        let cipher = Aes256Gcm::new_from_slice(&bytes(&test["key"])).unwrap();
        let nonce = Nonce::try_from(bytes(&test["iv"]).as_slice()).unwrap();
        let tag = Tag::try_from(bytes(&test["tag"]).as_slice()).unwrap();
        let mut text = bytes(&test["ct"]);
        let opened = cipher.decrypt_inout_detached(&nonce, &bytes(&test["aad"]), text.as_mut_slice().into(), &tag);
        assert_eq!(opened.is_ok(), test["result"] == "valid", "test {}", test["tcId"]);
        if bytes(&test["aad"]).is_empty() {
            // The cipher for payload, which never has associated data.
            bulk_used += 1;
            let bulk = BulkKey::new(&bytes(&test["key"])).unwrap();
            let nonce = bytes(&test["iv"]).try_into().unwrap();
            let mut plain = vec![0xAA; bytes(&test["ct"]).len()];
            let genuine = bulk.open(nonce, &[bytes(&test["ct"]), bytes(&test["tag"])].concat(), &mut plain);
            assert_eq!(genuine, test["result"] == "valid", "test {}", test["tcId"]);
            let expected = if genuine { bytes(&test["msg"]) } else { vec![0; plain.len()] };
            assert_eq!(plain, expected, "test {}", test["tcId"]);
            if genuine {
                let mut sealed = vec![0; plain.len() + 16];
                bulk.seal(nonce, &plain, &mut sealed).unwrap();
                assert_eq!(sealed, [bytes(&test["ct"]), bytes(&test["tag"])].concat());
            }
        }
        if opened.is_ok() {
            assert_eq!(text, bytes(&test["msg"]));
            let made = cipher.encrypt_inout_detached(&nonce, &bytes(&test["aad"]), text.as_mut_slice().into()).unwrap();
            assert_eq!((text, made.to_vec()), (bytes(&test["ct"]), bytes(&test["tag"])));
        }
    });
    assert!(used >= 60 && bulk_used >= 30, "{used} {bulk_used}");
}

#[test]
fn hkdf_sha384_agrees_with_wycheproof() {
    let Some(file) = shared("vectors/hkdf_sha384_test.json") else { return };
    each(&file, |_, test| {
        let (secret, salt, info) = (bytes(&test["ikm"]), bytes(&test["salt"]), bytes(&test["info"]));
        let mut output = vec![0u8; usize::try_from(test["size"].as_u64().unwrap()).unwrap()];
        // The crate, as HPKE and the key store use it, and our own expand from the same pseudorandom key.
        let (key, hkdf) = hkdf::Hkdf::<Sha384>::extract(Some(&salt), &secret);
        let expanded = hkdf.expand(&info, &mut output).is_ok();
        assert_eq!(expanded, test["result"] == "valid", "test {}", test["tcId"]);
        let mut ours = vec![0u8; output.len()];
        assert_eq!(derive::expand::<Hmac<Sha384>>(&key, &[&info], &mut ours).is_ok(), expanded, "test {}", test["tcId"]);
        if expanded {
            assert_eq!((hex(&output), ours), (test["okm"].as_str().unwrap().to_owned(), output));
        }
    });
}

#[test]
fn ecdh_p384_agrees_with_wycheproof() {
    let Some(file) = shared("vectors/ecdh_secp384r1_test.json") else { return };
    let (mut agreed, mut refused) = (0, 0);
    each(&file, |_, test| {
        let mut scalar = bytes(&test["private"]);
        scalar = scalar.iter().copied().skip_while(|byte| *byte == 0).collect();
        let secret = p384::SecretKey::from_slice(&[vec![0; 48 - scalar.len()], scalar].concat()).unwrap();
        // As keys are imported: strict SPKI. What is accepted must agree; nothing invalid may be.
        let public = p384::PublicKey::from_public_key_der(&bytes(&test["public"]));
        match (public, test["result"].as_str().unwrap()) {
            (Ok(public), "valid" | "acceptable") => {
                agreed += 1;
                let shared = secret.diffie_hellman(&public);
                assert_eq!(hex(shared.raw_secret_bytes()), test["shared"].as_str().unwrap(), "test {}", test["tcId"]);
            }
            (Err(_), "invalid" | "acceptable") => refused += 1,
            (public, result) => panic!("test {} is {result}, accepted: {}", test["tcId"], public.is_ok()),
        }
    });
    assert!(agreed > 500 && refused > 20, "{agreed} {refused}");
}

#[test]
fn ecdsa_p384_agrees_with_wycheproof() {
    let Some(file) = shared("vectors/ecdsa_secp384r1_sha384_test.json") else { return };
    each(&file, |group, test| {
        let pair = crate::keys::PublicPair::from_pem(group["publicKeyPem"].as_str().unwrap()).unwrap();
        let verifies = pair.verifies(&bytes(&test["msg"]), &bytes(&test["sig"]));
        assert_eq!(verifies, test["result"] == "valid", "test {}: {}", test["tcId"], test["comment"]);
    });
}

#[test]
fn hpke_p384_opens_what_others_sealed() {
    let Some(sample) = shared("reference/hpke-p384-kat-sample.json") else { return };
    let field = |name: &str| bytes(&sample[name]);
    let private = PrivatePair::of_agree_scalar(&field("skR"));
    let open = |enc: &[u8], ct: &[u8]| hpke_open::open(&private, &field("pkR"), enc, ct, &field("info"), &field("aad")).unwrap();
    assert_eq!(*open(&field("enc"), &field("ct")).unwrap(), field("pt"));
    for position in [0, 1, 50, 96] {
        let mut enc = field("enc");
        enc[position] ^= 1;
        assert!(open(&enc, &field("ct")).is_none(), "enc byte {position}");
    }
    let mut ct = field("ct");
    ct[5] ^= 1;
    assert!(open(&field("enc"), &ct).is_none());
    assert!(open(&field("enc")[..96], &field("ct")).is_none() && open(&field("enc"), &field("ct")[..15]).is_none());
}
