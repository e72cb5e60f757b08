//! What the encrypted content may be: archives as tar programs write them, or one DICOM file.

use std::fs;

use smp::{Error, Kind};

use super::hospital::{Hospital, hospital};

/// Packs by a command, sends, and unseals: the files by path.
fn unpacked(hospital: &Hospital, pack: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
    hospital.run(pack);
    hospital.send();
    let target = hospital.at("out");
    let _ = fs::remove_dir_all(&target);
    hospital.unseal(&target)?;
    Ok(Hospital::files(&target).into_iter().collect())
}

fn refused(hospital: &Hospital, pack: &str, expected: Kind) {
    match unpacked(hospital, pack) {
        Err(error) => assert_eq!(error.kind(), expected, "{pack}: {error}"),
        Ok(_) => panic!("opened: {pack}"),
    }
    assert!(!hospital.at("out").exists());
}

#[test]
fn archives_come_out_in_every_format_that_tar_writes() {
    let Some(hospital) = hospital() else { return };
    let long = format!("{}/{}/IM1", "d".repeat(120), "e".repeat(130));
    hospital.study(&[("IM1", b"one"), (&long, b"deep"), ("r\u{e9}sum\u{e9} 1", b"accent"), ("empty", b"")]);
    let expected = |prefix: &str| {
        let mut files = [("IM1", &b"one"[..]), (&long, b"deep"), ("r\u{e9}sum\u{e9} 1", b"accent"), ("empty", b"")]
            .map(|(name, bytes)| (format!("{prefix}{name}"), bytes.to_vec()));
        files.sort();
        files.to_vec()
    };
    for (pack, prefix) in [
        ("tar -cf study.tar STUDY/", "STUDY/"),
        ("tar -cf study.tar STUDY", "STUDY/"),
        ("tar -cf study.tar ./STUDY", "STUDY/"),
        ("tar -C STUDY -cf study.tar .", ""),
        ("tar --format=gnu -cf study.tar STUDY/", "STUDY/"),
        ("tar --format=pax -cf study.tar STUDY/", "STUDY/"),
        ("tar --format=posix --pax-option=globexthdr.name=g,comment:=x -cf study.tar STUDY/", "STUDY/"),
        ("tar --blocking-factor=1 -cf study.tar STUDY/", "STUDY/"),
    ] {
        assert!(unpacked(&hospital, pack).unwrap() == expected(prefix), "{pack}");
    }
    hospital.study(&[("IM1", b"one"), ("d/IM2", b"two")]);
    for format in ["v7", "oldgnu", "ustar"] {
        let files = unpacked(&hospital, &format!("tar --format={format} -cf study.tar STUDY/")).unwrap();
        assert_eq!(files, [("STUDY/IM1".to_owned(), b"one".to_vec()), ("STUDY/d/IM2".to_owned(), b"two".to_vec())]);
    }
}

#[test]
fn names_are_composed_and_those_that_collide_are_refused() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("e\u{301}tude", b"decomposed")]);
    assert_eq!(unpacked(&hospital, "tar -cf study.tar STUDY/").unwrap(), [("STUDY/\u{e9}tude".to_owned(), b"decomposed".to_vec())]);
    for names in [["IM1", "im1"], ["a:b", "c"], ["CON", "c"], ["e\u{301}", "\u{e9}"], ["back\\slash", "c"]] {
        hospital.study(&[(names[0], b"1"), (names[1], b"2")]);
        refused(&hospital, "tar -cf study.tar STUDY/", Kind::UnsafePath);
    }
    hospital.study(&[("IM1", b"one")]);
    refused(&hospital, "tar -cf study.tar STUDY/ STUDY/", Kind::UnsafePath);
    refused(&hospital, "tar -Pcf study.tar \"$PWD/STUDY\"", Kind::UnsafePath);
    refused(&hospital, "tar -Pcf study.tar STUDY/../STUDY/IM1", Kind::UnsafePath);
    refused(&hospital, "touch STUDY/$'\\xff' && tar -cf study.tar STUDY/", Kind::UnsafePath);
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_left_out() {
    let Some(hospital) = hospital() else { return };
    for make in ["ln -s IM1 STUDY/link", "ln STUDY/IM1 STUDY/hard", "mkfifo STUDY/pipe", "ln -s /etc/passwd STUDY/outside"] {
        hospital.study(&[("IM1", b"one")]);
        hospital.run(make);
        refused(&hospital, "tar -cf study.tar STUDY/", Kind::UnsafePath);
    }
    hospital.study(&[("IM1", b"one")]);
    hospital.run("truncate -s 1M STUDY/hole");
    refused(&hospital, "tar -Scf study.tar STUDY/", Kind::UnsafePath);
    refused(&hospital, "tar --format=pax -Scf study.tar STUDY/", Kind::UnsafePath);
}

#[test]
fn an_archive_must_be_whole() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("IM1", &[1; 600]), ("IM2", &[2; 5000])]);
    // With a blocking factor of 1 the archive ends with its two blocks of zeros and nothing more.
    let pack = "tar --blocking-factor=1 -cf study.tar STUDY/";
    assert_eq!(unpacked(&hospital, pack).unwrap().len(), 2);
    for (damage, expected) in [
        ("truncate -s -512 study.tar", Kind::PackageMalformed),
        ("truncate -s -1024 study.tar", Kind::PackageMalformed),
        ("truncate -s -1 study.tar", Kind::PackageMalformed),
        ("truncate -s -1500 study.tar", Kind::PackageMalformed),
        ("truncate -s 700 study.tar", Kind::PackageMalformed),
        ("truncate -s 100 study.tar", Kind::PackageMalformed),
        ("printf x >> study.tar", Kind::PackageMalformed),
        ("cat study.tar study.tar > x && mv x study.tar", Kind::PackageMalformed),
        ("printf 'X' | dd of=study.tar bs=1 seek=600 conv=notrunc", Kind::PackageMalformed),
        ("printf 'X' | dd of=study.tar bs=1 seek=636 conv=notrunc", Kind::PackageMalformed),
        ("gzip study.tar && mv study.tar.gz study.tar", Kind::PackageMalformed),
    ] {
        refused(&hospital, &format!("{pack} && {damage}"), expected);
    }
    fs::remove_dir_all(hospital.at("STUDY")).unwrap();
    fs::create_dir(hospital.at("STUDY")).unwrap();
    refused(&hospital, pack, Kind::PackageMalformed);
    for size in [0, 1, 16, 511, 512, 4096] {
        // Without -stream, which OpenSSL cannot do for nothing.
        hospital.run(&format!("head -c {size} /dev/zero > study.tar"));
        hospital.run(&super::ENCRYPT.replace("-stream", ""));
        hospital.run(super::SIGN);
        assert_eq!(hospital.refused().kind(), Kind::PackageMalformed, "{size} zeros");
    }
}

#[test]
fn one_dicom_file_needs_no_archive() {
    let Some(hospital) = hospital() else { return };
    super::study::write(&hospital.at("slices"));
    let slice = fs::read_dir(hospital.at("slices")).unwrap().next().unwrap().unwrap().path();
    for length in [132, 200, 512, 513, fs::metadata(&slice).unwrap().len() as usize] {
        let bytes = fs::read(&slice).unwrap()[..length].to_vec();
        fs::write(hospital.at("study.tar"), &bytes).unwrap();
        hospital.send();
        let (facts, files) = hospital.read().map_err(|(error, _)| error).unwrap();
        assert_eq!((facts.files, facts.bytes), (1, length as u64));
        assert!(files == [bytes]);
    }
    hospital.unseal(&hospital.at("out")).unwrap();
    assert!(hospital.at("out/study.dcm").is_file());
}
