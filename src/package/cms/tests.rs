//! Hostile objects against the whole importer's parser, and one genuine object by OpenSSL that they are made from.

use proptest::prelude::*;

use super::envelope::{Envelope, Kdf};
use super::{parse_archive, parse_envelope};
use crate::error::Kind;

/// `openssl cms -encrypt -binary -stream -aes-256-gcm -outform DER -in FILE -recip CERT -keyopt ecdh_kdf_md:sha384`, OpenSSL 3.0.19, for a
/// file of 9,000 zeros, and the same without `-stream` for 100.
const STREAMED: &[u8] = include_bytes!("../../../tests/data/cms/streamed.cms");
const WHOLE: &[u8] = include_bytes!("../../../tests/data/cms/whole.cms");

/// `tar --format=pax --blocking-factor=1 -cf FILE STUDY/`, GNU tar 1.34, for two files, one of them in a folder.
const ARCHIVE: &[u8] = include_bytes!("../../../tests/data/cms/small.tar");

#[test]
fn what_openssl_writes_is_understood() {
    for (object, segmented, content) in [(STREAMED, true, 9000 + 2 * 4 + 4), (WHOLE, false, 100)] {
        parse_envelope(object).unwrap();
        let envelope = Envelope::parse(object, object.len() as u64, false).unwrap();
        assert_eq!(envelope.recipients.len(), 1);
        let recipient = &envelope.recipients[0];
        assert_eq!((recipient.kdf, recipient.wrapped.len(), recipient.ukm.is_none()), (Kdf::Sha384, 1, true));
        assert_eq!((envelope.layout.segmented, envelope.layout.content.end - envelope.layout.content.start), (segmented, content));
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    for object in [STREAMED, WHOLE] {
        for length in 0..object.len() {
            assert_eq!(parse_envelope(&object[..length]).unwrap_err().kind(), Kind::PackageMalformed, "{length}");
        }
        for more in [&[0][..], &[0, 0], &[4, 0], &[0x30, 0], &[0xff; 40]] {
            assert!(parse_envelope(&[object, more].concat()).is_err());
        }
    }
}

/// Places whose bits are a name, a key, a nonce, ciphertext or tag may be flipped and parse; what the format fixes may not.
#[test]
fn every_flipped_bit_is_refused_or_lies_in_a_value() {
    for object in [STREAMED, WHOLE] {
        let envelope = Envelope::parse(object, object.len() as u64, false).unwrap();
        let first = envelope.layout.content.start as usize;
        let mut understood = 0;
        for place in 0..first {
            for bit in 0..8 {
                let mut changed = object.to_vec();
                changed[place] ^= 1 << bit;
                understood += usize::from(parse_envelope(&changed).is_ok());
            }
        }
        // Names and serial (the certificate's, 58 bytes and their own tags), wrapped key 40, nonce 12, and the hash of the KDF, where
        // three object identifiers lie one bit apart. A flip in the point leaves the curve.
        assert!((52 * 8..=(52 + 62) * 8 + 4).contains(&understood), "{understood}");
    }
}

#[test]
fn sha_1_is_refused_by_name_unless_it_is_allowed() {
    let mut object = WHOLE.to_vec();
    let sha384 = [0x06, 0x06, 0x2b, 0x81, 0x04, 0x01, 0x0b, 0x02];
    let place = object.windows(8).position(|bytes| bytes == sha384).unwrap();
    // The OID of SHA-1 is three bytes longer, so all lengths around it grow by three.
    object.splice(place..place + 8, [0x06, 0x09, 0x2b, 0x81, 0x05, 0x10, 0x86, 0x48, 0x3f, 0x00, 0x02]);
    // The last byte of every length around it: 30 82 xx XX | 06 0b .. | a0 82 xx XX | 30 82 xx XX | 02 01 00 | 31 81 XX | a1 81 XX | .. | 30 XX
    for at in [3, 20, 24, 30, 33, place - 1] {
        object[at] += 3;
    }
    let size = object.len() as u64;
    assert_eq!(Envelope::parse(&object, size, true).unwrap().recipients[0].kdf, Kdf::Sha1);
    let error = Envelope::parse(&object, size, false).err().unwrap();
    assert_eq!(error.kind(), Kind::CryptographyRefused);
    assert!(error.hint().unwrap().contains("-keyopt ecdh_kdf_md:sha384"));
}

#[test]
fn every_truncation_of_an_archive_is_refused() {
    parse_archive(ARCHIVE).unwrap();
    for length in 0..ARCHIVE.len() {
        assert_eq!(parse_archive(&ARCHIVE[..length]).unwrap_err().kind(), Kind::PackageMalformed, "{length}");
    }
    for more in [&[1][..], ARCHIVE] {
        assert_eq!(parse_archive(&[ARCHIVE, more].concat()).unwrap_err().kind(), Kind::PackageMalformed);
    }
    parse_archive(&[ARCHIVE, &[0; 9000]].concat()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(parse_envelope(&bytes).is_err());
    }

    #[test]
    fn a_damaged_object_does_no_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
        insert in proptest::option::of((any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..20))),
    ) {
        let mut object = WHOLE.to_vec();
        for (place, byte) in damage {
            let place = place.index(object.len());
            object[place] = byte;
        }
        if let Some((from, to)) = cut {
            let (from, to) = (from.index(object.len()), to.index(object.len()));
            object.drain(from.min(to)..from.max(to));
        }
        if let (Some((place, bytes)), false) = (insert, object.is_empty()) {
            let place = place.index(object.len());
            object.splice(place..place, bytes);
        }
        // Whatever comes of it, nothing panics.
        let _ = parse_envelope(&object);
    }

    #[test]
    fn a_damaged_archive_does_no_harm(damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), mend in any::<bool>()) {
        let mut archive = ARCHIVE.to_vec();
        for (place, byte) in damage {
            let place = place.index(archive.len());
            archive[place] = byte;
        }
        if mend {
            // With checksums that agree again, so that the damage reaches what lies behind them.
            for block in archive.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let _ = parse_archive(&archive);
    }
}
