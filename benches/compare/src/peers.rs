//! What others do with the same bytes: age (its Rust library), the OpenSSL command line, Python's `cryptography`.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Row;
use crate::clock::{Clock, Spent};
use crate::ours::World;

pub fn rows<'a>(place: &'a Path, plain: &'a [u8], world: &'a World, python: Option<&'a Path>) -> Vec<Row<'a>> {
    let mut rows = age_rows(plain);
    rows.extend(cms_rows(place, world));
    let speed = "OpenSSL AES-256-GCM seal, 16 KiB (openssl speed)";
    rows.push(Row::own(speed, 1_000_000_000, openssl_speed));
    for size in [16 << 10, 1 << 20] {
        for (verb, word) in [("seal", "encrypt"), ("open", "decrypt")] {
            let name = format!("Python cryptography {verb}, {} KiB", size >> 10);
            rows.push(Row::own(&name, 1_000_000_000, move || python_speed(python?, word, size)));
        }
    }
    rows
}

fn age_rows(plain: &[u8]) -> Vec<Row<'_>> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public();
    let seal = move |plain: &[u8]| {
        let recipients = std::iter::once(&recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).expect("one recipient");
        let mut sealed = Vec::with_capacity(plain.len() + plain.len() / 1000 + 4096);
        let mut writer = encryptor.wrap_output(&mut sealed).unwrap();
        writer.write_all(plain).unwrap();
        writer.finish().unwrap();
        sealed
    };
    let sealed = seal(plain);
    let mut buffer = vec![0u8; 1 << 20];
    vec![
        Row::timed("age (Rust library) encrypt, in memory", plain.len(), move || drop(seal(plain))),
        Row::timed("age (Rust library) decrypt, in memory", plain.len(), move || {
            let decryptor = age::Decryptor::new(sealed.as_slice()).unwrap();
            let mut reader = decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity)).unwrap();
            let mut read = 0;
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => break,
                    some => read += some,
                }
            }
            assert_eq!(read, plain.len());
        }),
    ]
}

fn openssl(place: &Path, arguments: &[&str]) -> bool {
    let outcome = Command::new("openssl").current_dir(place).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success())
}

/// Wall time of `openssl cms` on the study as one file, as a hospital without this library would seal it.
fn cms_rows<'a>(place: &'a Path, world: &'a World) -> Vec<Row<'a>> {
    let bytes = world.bytes;
    let made = openssl(place, &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", "key.pem"])
        && openssl(place, &["req", "-x509", "-new", "-key", "key.pem", "-subj", "/CN=benchmark", "-days", "2", "-out", "cert.pem"]);
    if made {
        let mut tar = fs::File::create(place.join("study.tar")).unwrap();
        for entry in fs::read_dir(&world.study).unwrap() {
            tar.write_all(&fs::read(entry.unwrap().path()).unwrap()).unwrap();
        }
    }
    let timed = move |arguments: &[&str]| {
        let clock = Clock::start();
        (made && openssl(place, arguments)).then(|| clock.stop())
    };
    #[rustfmt::skip]
    let encrypt = ["cms", "-encrypt", "-binary", "-stream", "-aes-256-gcm", "-outform", "DER", "-in", "study.tar", "-out", "study.cms",
        "-recip", "cert.pem", "-keyopt", "ecdh_kdf_md:sha384"];
    #[rustfmt::skip]
    let decrypt = ["cms", "-decrypt", "-binary", "-inform", "DER", "-in", "study.cms", "-out", "study.again", "-recip", "cert.pem",
        "-inkey", "key.pem"];
    vec![
        Row::own("openssl cms -encrypt (file to file)", bytes, move || timed(&encrypt)),
        Row::own("openssl cms -decrypt (file to file)", bytes, move || {
            let spent = timed(&decrypt);
            let _ = fs::remove_file(place.join("study.again"));
            spent
        }),
    ]
}

/// Seconds per gigabyte, from the machine-readable line of `openssl speed`, which counts processor time.
fn openssl_speed() -> Option<Spent> {
    let arguments = ["speed", "-mr", "-evp", "aes-256-gcm", "-bytes", "16384", "-seconds", "1"];
    let output = Command::new("openssl").args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let rate: f64 = text.lines().find_map(|line| line.strip_prefix("+F:"))?.rsplit(':').next()?.trim().parse().ok()?;
    Some(Spent { wall: 1e9 / rate, processor: 1e9 / rate })
}

/// Seconds per gigabyte, as the script prints them: by the clock and of the processor.
fn python_speed(python: &Path, word: &str, size: usize) -> Option<Spent> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("aesgcm.py");
    let output = Command::new(python).arg(script).arg(word).arg(size.to_string()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    Some(Spent { wall: numbers.next()?, processor: numbers.next()? })
}
