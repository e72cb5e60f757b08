//! From stored bytes to voxels: expected values are arithmetic on the page.

use super::sample::*;
use crate::dicom::decoders;
use crate::error::Kind;
use dicom_dictionary_std::tags;

fn voxels(elements: &[Element]) -> Vec<f32> {
    load([explicit(elements)]).expect("a sound file").voxels.to_vec()
}

fn bits(allocated: u16, stored: u16, high: u16, signed: bool, value: Value) -> Vec<Element> {
    let image = with(slice(0.0, 0), word((0x0028, 0x0100), allocated));
    let image = with(with(image, word((0x0028, 0x0101), stored)), word((0x0028, 0x0102), high));
    with(with(image, word((0x0028, 0x0103), signed.into())), pixels(value))
}

#[test]
fn bits_above_the_stored_ones_are_masked_and_signs_extended() {
    let words = vec![0x0000, 0x0FFF, 0xF001, 0x0800, 0x07FF, 0x8FFF];
    assert_eq!(voxels(&bits(16, 12, 11, false, Value::Words(words.clone()))), [0.0, 4095.0, 1.0, 2048.0, 2047.0, 4095.0]);
    assert_eq!(voxels(&bits(16, 12, 11, true, Value::Words(words.clone()))), [0.0, -1.0, 1.0, -2048.0, 2047.0, -1.0]);
    assert_eq!(voxels(&bits(16, 16, 15, true, Value::Words(words))), [0.0, 4095.0, -4095.0, 2048.0, 2047.0, -28673.0]);
    // Stored in the upper twelve bits, with something else below.
    assert_eq!(
        voxels(&bits(16, 12, 15, false, Value::Words(vec![0x001F, 0xFFF0, 0x0010, 0x0020, 0, 0]))),
        [1.0, 4095.0, 1.0, 2.0, 0.0, 0.0]
    );
    assert_eq!(voxels(&bits(8, 8, 7, false, Value::Bytes(vec![0, 1, 127, 128, 254, 255]))), [0.0, 1.0, 127.0, 128.0, 254.0, 255.0]);
    assert_eq!(voxels(&bits(8, 8, 7, true, Value::Bytes(vec![0, 1, 127, 128, 254, 255]))), [0.0, 1.0, 127.0, -128.0, -2.0, -1.0]);
    let longs = [0u32, 1, 70_000, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_0000].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(voxels(&bits(32, 32, 31, true, Value::Bytes(longs))), [0.0, 1.0, 70_000.0, -2_147_483_648.0, -1.0, -65_536.0]);
}

#[test]
fn the_rescale_is_computed_in_double_precision() {
    let image = with(slice(0.0, 40_000), text((0x0028, 0x1053), "DS", "2.36166056166056"));
    let found = voxels(&with(image, text((0x0028, 0x1052), "DS", "-1024.125")));
    let expected: Vec<f32> = (40_000..40_006).map(|value| (f64::from(value) * 2.36166056166056 - 1024.125) as f32).collect();
    assert_eq!(found, expected);
    // One of the two alone leaves the other at 1 or 0.
    assert_eq!(voxels(&with(slice(0.0, 0), text((0x0028, 0x1052), "DS", "-5")))[..2], [-5.0, -4.0]);
}

#[test]
fn monochrome1_keeps_its_numbers() {
    assert_eq!(voxels(&with(slice(0.0, 0), text((0x0028, 0x0004), "CS", "MONOCHROME1"))), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn a_modality_look_up_table_is_applied_and_its_ends_hold_beyond() {
    let table = |descriptor: Vec<u16>, data: Vec<u16>| {
        let lut = vec![
            Element { tag: (0x0028, 0x3002), vr: "US", value: Value::Words(descriptor) },
            Element { tag: (0x0028, 0x3006), vr: "OW", value: Value::Words(data) },
        ];
        with(slice(0.0, 0), items((0x0028, 0x3000), vec![lut]))
    };
    // Entries for stored values 1, 2 and 3.
    assert_eq!(voxels(&table(vec![3, 1, 16], vec![10, 500, 60_000])), [10.0, 10.0, 500.0, 60_000.0, 60_000.0, 60_000.0]);
    // Four entries of 8 bits in two words.
    assert_eq!(voxels(&table(vec![4, 0, 8], vec![0x0201, 0x0403])), [1.0, 2.0, 3.0, 4.0, 4.0, 4.0]);
    assert_eq!(refused(load([explicit(&table(vec![9, 0, 16], vec![1, 2]))])).kind(), Kind::DicomMalformed);
}

#[test]
fn float_pixels_are_taken_as_they_are() {
    let floats: Vec<u8> = [0.5f32, -1.25, 3e10, 0.0, 1.0, -0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let image = without(slice(0.0, 0), (0x7FE0, 0x0010));
    let found = voxels(&with(image.clone(), Element { tag: (0x7FE0, 0x0008), vr: "OF", value: Value::Bytes(floats) }));
    assert_eq!(found, [0.5, -1.25, 3e10, 0.0, 1.0, -0.0]);
    let doubles: Vec<u8> = [0.1f64, -2.0, 0.0, 1e300, 1.0, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let found = voxels(&with(image, Element { tag: (0x7FE0, 0x0009), vr: "OD", value: Value::Bytes(doubles) }));
    assert_eq!(found, [0.1, -2.0, 0.0, f32::INFINITY, 1.0, 2.0]);
}

#[test]
fn every_encoding_gives_the_same_voxels_and_headers() {
    use std::io::Write;
    let image = with(slice(3.0, 500), items((0x0008, 0x1140), vec![vec![text((0x0008, 0x1155), "UI", "1.2.9")], vec![]]));
    let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    deflate.write_all(&write(&image, Form::Explicit)).unwrap();
    let files = [
        file(EXPLICIT, &write(&image, Form::Explicit)),
        file(IMPLICIT, &write(&image, Form::Implicit)),
        file(BIG, &write(&image, Form::Big)),
        file(DEFLATED, &deflate.finish().unwrap()),
        // Without any file meta information, and with the wrong one.
        write(&image, Form::Explicit),
        write(&image, Form::Implicit),
        write(&image, Form::Big),
        file(EXPLICIT, &write(&image, Form::Implicit)),
        file(EXPLICIT, &write(&image, Form::Explicit))[128..].to_vec(),
        // Zeros that fill the last block.
        [file(EXPLICIT, &write(&image, Form::Explicit)), vec![0; 700]].concat(),
    ];
    for (k, bytes) in files.into_iter().enumerate() {
        let study = load([bytes]).unwrap_or_else(|error| panic!("file {k}: {error}"));
        assert_eq!(*study.voxels, [500.0, 501.0, 502.0, 503.0, 504.0, 505.0], "file {k}");
        let dataset = &study.instances[0].dataset;
        assert_eq!(dataset.get(tags::PATIENT_NAME).unwrap().to_str().unwrap().trim_end(), "Canary^Person");
        assert_eq!(dataset.get(tags::ROWS).unwrap().to_int::<u16>().unwrap(), 2);
        let referenced = dataset.get(tags::REFERENCED_IMAGE_SEQUENCE).unwrap().items().unwrap();
        assert_eq!(referenced.len(), 2);
        assert_eq!(referenced[0].get(tags::REFERENCED_SOP_INSTANCE_UID).unwrap().to_str().unwrap(), "1.2.9");
        assert_eq!(study.instances[0].meta.media_storage_sop_class_uid(), "1.2.840.10008.5.1.4.1.1.2");
    }
}

#[test]
fn eight_bit_samples_in_big_endian_words_are_put_straight() {
    // PS3.5 section A.3: OW words are swapped as words, so each pair of samples arrives exchanged.
    let image = bits(8, 8, 7, false, Value::Bytes(vec![2, 1, 4, 3, 6, 5]));
    assert_eq!(*load([file(BIG, &write(&image, Form::Big))]).unwrap().voxels, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn texts_are_read_in_their_character_set() {
    let name = |charset: &str, bytes: &[u8]| {
        let image = with(slice(0.0, 0), text((0x0008, 0x0005), "CS", charset));
        let image = with(image, Element { tag: (0x0010, 0x0010), vr: "PN", value: Value::Bytes(bytes.to_vec()) });
        let study = load([explicit(&image)]).unwrap();
        study.instances[0].dataset.get(tags::PATIENT_NAME).unwrap().to_str().unwrap().into_owned()
    };
    assert_eq!(name("ISO_IR 192", "Yamada^太郎".as_bytes()), "Yamada^太郎");
    assert_eq!(name("ISO_IR 100", b"M\xFCller"), "Müller");
    assert_eq!(name("ISO_IR 144", b"\xBB\xEE\xDA"), "Люк");
    // PS3.5 section H.3.1: Yamada^Tarou with its ideographic group.
    assert_eq!(name("\\ISO 2022 IR 87", b"Yamada=\x1B$B;3ED\x1B(B"), "Yamada=山田");
    assert_eq!(name("NO SUCH SET", b"M\xFCller"), "Müller");
}

#[test]
fn colour_spaces_that_nobody_uses_are_refused_by_their_name() {
    let check = |photometric: &str, samples: u16, words: &str| {
        let image = with(with(slice(0.0, 0), text((0x0028, 0x0004), "CS", photometric)), word((0x0028, 0x0002), samples));
        let image = with(image, pixels(Value::Words(vec![0; 6 * samples as usize])));
        let error = refused(load([explicit(&image)]));
        assert_eq!(error.kind(), Kind::PixelsUnsupported);
        assert!(error.detail().contains(words), "{error}");
    };
    check("YBR_PARTIAL_420", 3, "file 1: YBR_PARTIAL_420 pixels");
    check("YBR_RCT", 3, "YBR_RCT pixels");
    check("HSV", 3, "HSV pixels");
    check("DOE^JOHN", 1, "unknown pixels");
    let one_bit = with(bits(1, 1, 0, false, Value::Bytes(vec![0x3F, 0])), word((0x0028, 0x0100), 1));
    assert!(refused(load([explicit(&one_bit)])).detail().contains("1 bits allocated"));
}

#[test]
fn a_syntax_without_a_decoder_is_named() {
    let compressed = with(slice(0.0, 0), pixels(Value::Fragments(vec![vec![], vec![0xFF; 64]])));
    let error = refused(load([file("1.2.840.10008.1.2.4.100", &write(&compressed, Form::Explicit))]));
    assert_eq!(error.kind(), Kind::TransferSyntaxUnsupported);
    assert!(error.detail().contains("1.2.840.10008.1.2.4.100 MPEG2 Main Profile"), "{error}");
    // A UID outside the standard is somebody's own and is not repeated.
    let error = refused(load([file("1.2.826.0.1.77.31337", &write(&compressed, Form::Explicit))]));
    assert_eq!((error.kind(), error.detail().contains("31337")), (Kind::TransferSyntaxUnsupported, false));
}

#[test]
fn the_decoders_are_listed_with_their_names() {
    let known = decoders();
    for uid in [
        IMPLICIT,
        EXPLICIT,
        BIG,
        DEFLATED,
        RLE,
        JPEG_LOSSLESS,
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.110",
    ] {
        assert!(known.iter().any(|(known, name)| known == uid && !name.is_empty()), "{uid}");
    }
    for uid in ["1.2.840.10008.1.2.4.54", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.95"] {
        assert!(!known.iter().any(|(known, _)| known == uid), "{uid}");
    }
}

#[test]
fn elements_that_a_converter_wrote_as_unknown_are_read_by_the_dictionary() {
    let unknown = |tag, bytes: Vec<u8>| Element { tag, vr: "UN", value: Value::Bytes(bytes) };
    let inner = write(&[text((0x0010, 0x0010), "PN", "Hidden^Person ")], Form::Implicit);
    let item: Vec<u8> = [0xFE, 0xFF, 0x00, 0xE0].into_iter().chain((inner.len() as u32).to_le_bytes()).chain(inner).collect();
    for form in [Form::Explicit, Form::Big] {
        let image = with(slice(0.0, 0), unknown((0x0020, 0x0032), b"1\\2\\3 ".to_vec()));
        let image = with(with(image, unknown((0x0028, 0x0010), vec![2, 0])), unknown((0x0008, 0x1120), item.clone()));
        // What no dictionary knows stays as it is.
        let image = with(image, unknown((0x0009, 0x1001), vec![1, 2, 3, 4]));
        let syntax = if form == Form::Big { BIG } else { EXPLICIT };
        let study = load([file(syntax, &write(&image, form))]).unwrap();
        assert_eq!(study.geometry.affine_lps.map(|line| line[3]), [1.0, 2.0, 3.0, 1.0]);
        let dataset = &study.instances[0].dataset;
        let hidden = dataset.get(tags::REFERENCED_PATIENT_SEQUENCE).unwrap().items().unwrap();
        assert_eq!(hidden[0].get(tags::PATIENT_NAME).unwrap().to_str().unwrap().trim_end(), "Hidden^Person");
        assert_eq!(dataset.get(dicom_core::Tag(0x0009, 0x1001)).unwrap().to_bytes().unwrap().as_ref(), [1, 2, 3, 4]);
    }
}
