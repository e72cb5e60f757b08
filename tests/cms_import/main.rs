//! Studies in CMS, made by the OpenSSL command line and opened by the library. Nothing here encrypts with our own code.

#![allow(missing_docs)]

mod archives;
mod hospital;
mod large;
mod store;
#[path = "../support/study.rs"]
#[allow(dead_code)]
mod study;

use std::fs;

use hospital::{ENCRYPT, Hospital, SIGN, hospital, noise};
use smp::config::Config;
use smp::control::Control;
use smp::package::{self, Limits};
use smp::pipeline::{self, Pipeline, Request};
use smp::{Error, Kind};

#[test]
fn a_study_comes_out_as_it_went_in_however_openssl_was_asked() {
    let Some(hospital) = hospital() else { return };
    let (mebibyte, large) = (noise(1 << 20), noise(20 << 20));
    let files = [("0", &b""[..]), ("1", b"x"), ("deep/er/16", &[7; 16]), ("mebibyte", &mebibyte), ("deep/large", &large)];
    // The large file with the first two, because much of it says nothing more about the others.
    for (files, change) in [
        (&files[..4], ("-encrypt", "-encrypt -keyid")),
        (&files[..4], ("ecdh_kdf_md:sha384", "ecdh_kdf_md:sha256")),
        (&files[..4], ("ecdh_kdf_md:sha384", "ecdh_kdf_md:sha512 -aes256-wrap")),
        (&files[..4], ("-stream", "-indef")),
        (&files[..], ("-stream", "")),
        (&files[..], ("", "")),
    ] {
        hospital.study(files);
        hospital.run(&ENCRYPT.replacen(change.0, change.1, 1));
        hospital.run(SIGN);
        let (facts, found) = hospital.read().map_err(|(error, _)| error).unwrap();
        let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert_eq!((facts.files, facts.bytes), (files.len(), total as u64), "{change:?}");
        let mut expected: Vec<&[u8]> = files.iter().map(|(_, bytes)| *bytes).collect();
        let mut found: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert!(found == expected, "{change:?}");
    }

    let facts = hospital.unseal(&hospital.at("out")).unwrap();
    let expected = files.iter().map(|(name, bytes)| (format!("STUDY/{name}"), bytes.to_vec())).collect();
    assert!(Hospital::files(&hospital.at("out")) == expected);
    // The facts, against the hospital's own tools.
    hospital.run(
        "sha256sum store/one/study.cms | cut -c 1-32 | tr -d '\\n' > id; sha256sum store/one/SHA256SUMS | cut -c 1-64 | tr -d '\\n' > list",
    );
    hospital.run("openssl pkey -in hospital.key -pubout -outform DER | sha256sum | cut -c 1-64 | tr -d '\\n' > sender");
    let text = |name: &str| fs::read_to_string(hospital.at(name)).unwrap();
    assert_eq!((facts.id, facts.header_sha256, facts.sender), (text("id"), text("list"), text("sender")));
    assert_eq!((facts.sender_id, facts.format), (hospital.hospital_id.clone(), "cms"));
    assert_eq!((facts.created.as_str(), facts.purpose.as_str()), ("", ""));

    let report = package::verify(&hospital.client, "one", &hospital.researcher, &[], &Limits::default(), &Control::new()).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["ok"], &report["format"], &report["files"]), (&true.into(), &"cms".into(), &5.into()));
    assert_eq!(report["objects"][0]["size"], hospital.object().len());
    assert!(!report.to_string().contains("study.cms"), "the object's name is the hospital's choice");
}

#[test]
fn each_of_several_recipients_opens_it_with_any_certificate_for_the_key() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("IM1", b"image")]);
    hospital.run(
        "openssl ecparam -name secp384r1 -genkey -noout -out other.key && openssl req -x509 -key other.key -subj /CN=o -out other.pem",
    );
    for (first, second) in [("researcher", "other"), ("other", "researcher")] {
        let command = ENCRYPT.replace("researcher.pem", &format!("{first}.pem"));
        hospital.run(&format!("{command} -recip {second}.pem -keyopt ecdh_kdf_md:sha512"));
        hospital.run(SIGN);
        assert_eq!(hospital.read().map_err(|(error, _)| error).unwrap().1, [b"image"]);
    }
    // A new certificate with another name and number, for the same key; the old identity was replaced meanwhile.
    hospital.certificate("renewed");
    hospital.run(&ENCRYPT.replace("researcher.pem", "renewed.pem"));
    hospital.run(SIGN);
    hospital.researcher.rotate(&hospital.researcher_id).unwrap();
    assert_eq!(hospital.read().map_err(|(error, _)| error).unwrap().1, [b"image"]);
    // For somebody else alone.
    hospital.run(&ENCRYPT.replace("researcher.pem", "other.pem"));
    hospital.run(SIGN);
    assert_eq!(hospital.refused().kind(), Kind::NotARecipient);
}

/// Where a value lies in an object, found by its tag, length and neighbourhood.
fn place(object: &[u8], before: &[u8]) -> usize {
    object.windows(before.len()).position(|bytes| bytes == before).unwrap() + before.len()
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_lies() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    let object = hospital.object();
    let length = object.len();
    // OCTET STRING of 40 bytes; of 12 bytes in the parameters of AES-GCM; of 16 bytes at the end, before three end marks.
    let wrapped = place(&object, &[4, 40]);
    let nonce = place(&object, &[0x30, 17, 4, 12]);
    let content = place(&object, &[4, 0x82, 0x10, 0x00]);
    let point = place(&object, &[3, 98, 0, 4]);
    let tag = length - 22;
    let secret = [wrapped, wrapped + 39, nonce, nonce + 11, content, content + 4095, tag - 7, tag, tag + 15];
    let structure = [
        0,
        1,
        2,
        15,
        19,
        30,
        60,
        point - 1,
        point,
        point + 96,
        wrapped - 1,
        nonce - 1,
        content - 2,
        content + 4096,
        tag - 1,
        tag + 16,
        length - 1,
    ];
    let mut told = Vec::new();
    for place in secret.into_iter().chain(structure) {
        for bit in [0, 7] {
            let mut changed = object.clone();
            changed[place] ^= 1 << bit;
            hospital.put(&changed);
            // By whoever controls the store: the signed digest differs, or the object is no CMS any more.
            let error = hospital.refused();
            let expected = [Kind::IntegrityFailed, Kind::PackageMalformed, Kind::CryptographyRefused];
            assert!(expected.contains(&error.kind()), "byte {place}: {error}");
            if secret.contains(&place) {
                assert_eq!(error.kind(), Kind::IntegrityFailed, "byte {place}: {error}");
                // By the hospital itself, which signs what it changed: one answer to everything that touches a key.
                hospital.run(SIGN);
                let error = hospital.refused();
                assert_eq!(error.kind(), Kind::NotARecipient, "byte {place}");
                told.push((error.to_string(), error.hint().map(str::to_owned)));
                hospital.put(&object);
                hospital.run(SIGN);
            }
        }
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    hospital.put(&object);
    assert!(hospital.read().is_ok());
}

#[test]
fn a_shortened_or_lengthened_object_is_refused_though_it_is_signed() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    let object = hospital.object();
    let with_trailer = |bytes: &[u8]| [object.as_slice(), bytes].concat();
    let without = |length: usize| object[..length].to_vec();
    for changed in [
        without(object.len() - 1),
        without(object.len() - 2),
        without(object.len() - 30),
        without(5000),
        without(300),
        without(1),
        without(0),
        with_trailer(&[0]),
        with_trailer(&[0, 0]),
        with_trailer(&object),
        [&object[..object.len() - 22], &object[object.len() - 4..]].concat(),
    ] {
        hospital.put(&changed);
        hospital.run(SIGN);
        assert_eq!(hospital.refused().kind(), Kind::PackageMalformed, "{} bytes", changed.len());
    }
}

/// A study that OpenSSL made in a way that is not accepted: kind, and what the hint must name.
fn refused_suite(hospital: &Hospital, command: &str, hint: &str) {
    hospital.run(command);
    hospital.run(SIGN);
    let error = hospital.refused();
    assert_eq!(error.kind(), Kind::CryptographyRefused, "{command}: {error}");
    assert!(error.hint().unwrap().contains(hint), "{command}: {:?}", error.hint());
}

#[test]
fn other_cryptography_is_refused_and_the_hint_names_the_option() {
    let Some(hospital) = hospital() else { return };
    hospital.study(&[("IM1", b"image")]);
    for (name, key) in [
        ("p256", "ecparam -name prime256v1 -genkey -noout"),
        ("p521", "ecparam -name secp521r1 -genkey -noout"),
        ("rsa", "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
    ] {
        hospital.run(&format!("openssl {key} -out {name}.key && openssl req -x509 -key {name}.key -subj /CN=x -out {name}.pem"));
    }
    let sha1 = ENCRYPT.replace("-keyopt ecdh_kdf_md:sha384", "");
    refused_suite(&hospital, &sha1, "-keyopt ecdh_kdf_md:sha384");
    let allowed = Limits { allow_sha1_kdf: true, ..Limits::default() };
    assert_eq!(hospital.read_with(&allowed).map_err(|(error, _)| error).unwrap().1, [b"image"]);
    refused_suite(&hospital, &ENCRYPT.replace("-keyopt ecdh_kdf_md:sha384", "-keyopt ecdh_kdf_md:sha224"), "docs/cms-import.md");
    refused_suite(&hospital, &ENCRYPT.replace("-aes-256-gcm", "-aes-128-gcm"), "-aes-256-gcm");
    refused_suite(&hospital, &ENCRYPT.replace("-aes-256-gcm", "-aes-256-cbc"), "-aes-256-gcm");
    refused_suite(&hospital, &format!("{ENCRYPT} -aes128-wrap"), "-aes256-wrap");
    refused_suite(&hospital, &ENCRYPT.replace("-recip researcher.pem", "-recip p256.pem"), "P-384");
    // One weak recipient beside a good one would make the study as weak.
    refused_suite(&hospital, &format!("{ENCRYPT} -recip p256.pem -keyopt ecdh_kdf_md:sha384"), "P-384");
    refused_suite(&hospital, &format!("{ENCRYPT} -recip p521.pem -keyopt ecdh_kdf_md:sha384"), "P-384");
    refused_suite(&hospital, &format!("{ENCRYPT} rsa.pem"), "P-384");
    // A key that both sides hold; OpenSSL 3.0 cannot write a password recipient with AES-GCM.
    let shared = "0b".repeat(32);
    refused_suite(&hospital, &format!("{ENCRYPT} -secretkey {shared} -secretkeyid 01"), "P-384");
    refused_suite(&hospital, &format!("{ENCRYPT} researcher.pem"), "after every -recip");
    refused_suite(
        &hospital,
        "openssl cms -sign -binary -nodetach -outform DER -in study.tar -out store/one/study.cms -signer researcher.pem -inkey researcher.key -passin 'pass:for a test'",
        "-encrypt",
    );
    // Armour is not DER.
    hospital.run(&ENCRYPT.replace("-outform DER", "-outform PEM"));
    hospital.run(SIGN);
    assert_eq!(hospital.refused().kind(), Kind::PackageMalformed);
}

#[test]
fn the_sender_must_be_known_confirmed_and_trusted() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    let kind = |error: Error| error.kind();
    let open = |trusted: &[String]| {
        package::open(&hospital.client, "one", &hospital.researcher, trusted, &Limits::default(), &Control::new()).map(|_| ())
    };
    open(std::slice::from_ref(&hospital.hospital_id)).unwrap();
    assert_eq!(open(std::slice::from_ref(&hospital.researcher_id)).map_err(kind), Err(Kind::UnknownSender));

    hospital.run("openssl ecparam -name secp384r1 -genkey -noout -out stranger.key");
    hospital.run(&SIGN.replace("hospital.key", "stranger.key"));
    let error = hospital.refused();
    assert_eq!(error.kind(), Kind::SignatureInvalid);
    assert!(error.hint().unwrap().contains("openssl dgst -sha384 -sign"));
    let stranger = hospital.import("stranger.key");
    assert_eq!(kind(hospital.refused()), Kind::KeyUnconfirmed);
    hospital.researcher.confirm(&stranger, &hospital.researcher.fingerprint(&stranger).unwrap()).unwrap();
    assert_eq!(hospital.read().map_err(|(error, _)| error).unwrap().0.sender_id, stranger);

    hospital.run(&SIGN.replace("-sha384", "-sha256"));
    assert_eq!(kind(hospital.refused()), Kind::SignatureInvalid);
    hospital.run(&format!("{SIGN} && echo >> SHA256SUMS"));
    assert_eq!(kind(hospital.refused()), Kind::SignatureInvalid);
    hospital.run(&format!("{SIGN} && truncate -s -1 SHA256SUMS.sig"));
    assert_eq!(kind(hospital.refused()), Kind::SignatureInvalid);
    hospital.run(&format!("{SIGN} && truncate -s 300 SHA256SUMS.sig"));
    assert_eq!(kind(hospital.refused()), Kind::LimitExceeded);
    hospital.run(&format!("{SIGN} && truncate -s 100000 SHA256SUMS"));
    assert_eq!(kind(hospital.refused()), Kind::LimitExceeded);
}

#[test]
fn the_list_must_name_the_object_once() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    for (sums, expected) in [
        ("sha256sum -b study.cms", None),
        ("sha256sum study.cms /dev/null", None),
        ("sha256sum ./study.cms", Some(Kind::PackageMalformed)),
        ("sha256sum study.cms study.cms", Some(Kind::PackageMalformed)),
        ("sha256sum --tag study.cms", Some(Kind::PackageMalformed)),
        ("sha384sum study.cms", Some(Kind::PackageMalformed)),
        ("sha256sum /dev/null", Some(Kind::PackageMalformed)),
        ("sha256sum /dev/null | sed 's:/dev/null:study.cms:'", Some(Kind::IntegrityFailed)),
        ("true", Some(Kind::PackageMalformed)),
    ] {
        hospital.run(&SIGN.replacen("sha256sum study.cms", sums, 1));
        match expected {
            None => assert!(hospital.read().is_ok(), "{sums}"),
            Some(kind) => assert_eq!(hospital.refused().kind(), kind, "{sums}"),
        }
    }
}

#[test]
fn a_folder_holds_the_object_its_signed_list_and_nothing_else() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    let with = |command: &str, undo: &str, expected: Kind, hint: &str| {
        hospital.run(&format!("cd store/one && {command}"));
        let error = hospital.refused();
        assert_eq!(error.kind(), expected, "{command}: {error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{command}: {:?}", error.hint());
        hospital.run(&format!("cd store/one && {undo}"));
    };
    with("mv SHA256SUMS.sig ../x", "mv ../x SHA256SUMS.sig", Kind::PackageIncomplete, "openssl dgst -sha384 -sign");
    with("mv SHA256SUMS ../x", "mv ../x SHA256SUMS", Kind::PackageIncomplete, "sha256sum");
    with("cp study.cms again.cms", "rm again.cms", Kind::PackageMalformed, "folder of its own");
    with("touch IM1", "rm IM1", Kind::NotSealed, "");
    with("mkdir d && touch d/IM1", "rm -r d", Kind::NotSealed, "");
    with("mkdir d && mv study.cms d", "mv d/study.cms . && rmdir d", Kind::NotSealed, "");
    with("mv study.cms study.p7m", "mv study.p7m study.cms", Kind::NotSealed, "");
    with("touch header.smp", "rm header.smp", Kind::PackageMalformed, "");
    assert!(hospital.read().is_ok());
}

#[test]
fn limits_hold() {
    let Some(hospital) = hospital() else { return };
    hospital.send_small();
    let limited = |limits: Limits| hospital.read_with(&limits).err().map(|(error, _)| error.kind());
    assert_eq!(limited(Limits { files: 2, study_bytes: 12_000, ..Limits::default() }), None);
    assert_eq!(limited(Limits { files: 1, ..Limits::default() }), Some(Kind::LimitExceeded));
    assert_eq!(limited(Limits { study_bytes: 11_999, ..Limits::default() }), Some(Kind::LimitExceeded));
    hospital.study(&[("IM1", &noise(2 << 20))]);
    hospital.send();
    let small = Limits { study_bytes: 1 << 19, ..Limits::default() };
    assert_eq!(hospital.open(&small).err().unwrap().kind(), Kind::LimitExceeded, "before anything large is fetched");
}

#[test]
fn the_pipeline_processes_a_study_in_cms() {
    let Some(hospital) = hospital() else { return };
    study::write(&hospital.at("STUDY"));
    hospital.run(hospital::TAR);
    hospital.send();
    let mut config = Config::new();
    let path = |name: &str| hospital.at(name).to_str().unwrap().to_owned();
    for (key, value) in [
        ("cloud.bucket", path("store")),
        ("workspace", path("workspace")),
        ("key_store_path", path("researcher")),
        ("encryption_key_path", path("researcher/master.key")),
        ("audit_log_path", path("audit")),
    ] {
        config.set(key, &value).unwrap();
    }
    let mut request = Request::new(Some("one"));
    request.set("operations", "load,anonymize").unwrap();
    let pipeline = Pipeline::new(&config).unwrap();
    let result = pipeline.process_study(&request).unwrap();
    assert_eq!(result.volume().geometry().dims, [study::COLUMNS, study::ROWS, study::SLICES]);
    let json: serde_json::Value = serde_json::from_str(&result.json().unwrap()).unwrap();
    assert_eq!((&json["package"]["format"], &json["package"]["files"]), (&"cms".into(), &study::SLICES.into()));

    // SHA-1 is the configuration's to allow.
    hospital.run(&ENCRYPT.replace("-keyopt ecdh_kdf_md:sha384", ""));
    hospital.run(SIGN);
    assert_eq!(pipeline.process_study(&request).err().unwrap().kind(), Kind::CryptographyRefused);
    request.set("package.allow_sha1_kdf", "true").unwrap();
    pipeline.process_study(&request).unwrap();
    assert!(pipeline::verify_package(&config, &hospital.researcher, "one").is_err());
    config.set("package.allow_sha1_kdf", "true").unwrap();
    pipeline::verify_package(&config, &hospital.researcher, "one").unwrap();
    pipeline::unseal_study(&config, &hospital.researcher, "one", &hospital.at("out")).unwrap();
    assert_eq!(Hospital::files(&hospital.at("out")).len(), study::SLICES);
}
