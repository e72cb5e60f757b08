#!/usr/bin/env bash
# Fuzzes every parser of foreign bytes for a bounded time: fuzz.sh [SECONDS [TARGET..]].
# The targets are in the layout of cargo-fuzz and run under it as well; here plain cargo builds them, so nothing has to be installed. The
# compiler's coverage instrumentation is behind a switch of stable Rust, RUSTC_BOOTSTRAP, and goes into this library and the parsers it
# uses, nothing else. No sanitizer: the code under test is safe Rust, so a fault is a panic or a broken claim.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)

coverage='"-Cpasses=sancov-module","-Cllvm-args=-sanitizer-coverage-level=4","-Cllvm-args=-sanitizer-coverage-inline-8bit-counters"'
coverage+=',"-Cllvm-args=-sanitizer-coverage-pc-table","-Cllvm-args=-sanitizer-coverage-trace-compares"'
options=(--config "profile.release.package.secure-media-processor.rustflags=[\"--cfg\",\"fuzzing\",$coverage]")
# Packages with a build script cannot be among them: the script would be instrumented too, and lacks the runtime.
for package in base64 pkcs8 der spki pkcs5; do
  options+=(--config "profile.release.package.$package.rustflags=[$coverage]")
done
RUSTC_BOOTSTRAP=1 cargo build --manifest-path fuzz/Cargo.toml --release --target-dir target -Z profile-rustflags "${options[@]}"

# Genuine inputs to begin with, made here: texts by hand, keys by OpenSSL.
seed() { mkdir -p "fuzz/corpus/$1"; cat > "fuzz/corpus/$1/$2"; }
b64() { head -c "$1" /dev/zero | base64 -w 0; }
filled() { for _ in $(seq "$2"); do printf '%s' "$1"; done; }
object() { printf '{"mth":"%s","name":"%s","size":1072}' "$(b64 32)" "$(filled "$1" 16)"; }
printf 'smp-package/v1\n{"created":"2024-02-29T23:59:59Z","manifest":%s,"packs":[%s],"pkg":"%s","purpose":"test","recipients":[{"ct":"%s","enc":"%s","kid":"%s"}],"sender":"%s","v":1}\nAAAA\n' \
  "$(object 01)" "$(object 03)" "$(filled 09 16)" "$(b64 48)" "$(b64 97)" "$(filled 04 32)" "$(filled 07 32)" | seed header one
ones=$(filled $'\001' 32 | base64 -w 0)
twos=$(filled $'\002' 32 | base64 -w 0)
printf '{"files":2,"leaves":{"0":["%s"],"1":["%s"]},"v":1}\n{"offset":0,"pack":0,"path":"a/b","sha256":"%s","size":10}\n{"offset":7,"pack":1,"path":"c","sha256":"%s","size":3}\n' \
  "$ones" "$twos" "$(filled 05 32)" "$(filled 06 32)" | seed manifest two
head -c 20000 /dev/zero | seed chunks zeros
head -c 72 /dev/zero | seed tree zeros
keys=$(mktemp -d)
trap 'rm -rf "$keys"' EXIT
for number in 1 2; do
  openssl ecparam -name secp384r1 -genkey -noout -out "$keys/$number.pem"
  openssl pkey -in "$keys/$number.pem" -pubout >> "$keys/public.pem"
  openssl pkcs8 -topk8 -in "$keys/$number.pem" -v2 aes-256-cbc -v2prf hmacWithSHA384 -iter 50 -passout pass:passphrase >> "$keys/pbkdf2.pem"
  openssl pkcs8 -topk8 -in "$keys/$number.pem" -v2 aes-256-cbc -scrypt -scrypt_N 16 -passout pass:passphrase >> "$keys/scrypt.pem"
done
seed public_pem two < "$keys/public.pem"
head -n 5 "$keys/public.pem" | seed public_pem one
seed private_pem pbkdf2 < "$keys/pbkdf2.pem"
seed private_pem scrypt < "$keys/scrypt.pem"
mkdir "$keys/STUDY"
echo slices > "$keys/STUDY/IM1"
tar -C "$keys" -cf "$keys/study.tar" STUDY
seed archive tar < "$keys/study.tar"
openssl req -x509 -key "$keys/1.pem" -subj /CN=researcher -days 30 -out "$keys/certificate.pem"
for stream in -stream ""; do
  openssl cms -encrypt -binary $stream -aes-256-gcm -outform DER -in "$keys/study.tar" -recip "$keys/certificate.pem" \
    -keyopt ecdh_kdf_md:sha384 | seed cms_envelope "openssl$stream"
done
printf 'smp-key-card/v1\n{"agree":"%s","created":"2024-02-29T23:59:59Z","expires":"","label":"ward","sign":"%s","v":1}\nAAAA\n' \
  "$(openssl pkey -in "$keys/1.pem" -pubout -outform DER | base64 -w 0)" "$(openssl pkey -in "$keys/2.pem" -pubout -outform DER | base64 -w 0)" |
  seed key_card one

# A slice of 4 x 2 samples in each way of writing, by hand (PS3.5 section 7.1.2).
le16() { printf "\\x$(printf %02x $(($1 & 255)))\\x$(printf %02x $(($1 >> 8)))"; }
element() { # group element VR text: explicit, little endian, padded to even length
  local text=$4
  [ $((${#text} % 2)) = 0 ] || text="$text "
  le16 "0x$1"
  le16 "0x$2"
  printf %s "$3"
  le16 ${#text}
  printf %s "$text"
}
number() { le16 "0x$1"; le16 "0x$2"; printf US; le16 2; le16 "$3"; }
slice() { # transfer syntax, position; then the pixel data from the standard input
  head -c 128 /dev/zero
  printf DICM
  element 0002 0010 UI "$1"
  element 0008 0016 UI 1.2.840.10008.5.1.4.1.1.4
  element 0008 0018 UI "1.2.3.4.$2"
  element 0008 0060 CS MR
  element 0018 0050 DS 2
  element 0020 000D UI 1.2.3
  element 0020 000E UI 1.2.3.1
  element 0020 0032 DS "0\\0\\$2"
  element 0020 0037 DS '1\0\0\0\1\0'
  number 0028 0002 1
  element 0028 0004 CS MONOCHROME2
  number 0028 0010 2
  number 0028 0011 4
  element 0028 0030 DS '1\1'
  number 0028 0100 16
  number 0028 0101 12
  number 0028 0102 11
  number 0028 0103 0
  cat
}
native() { le16 0x7FE0; le16 0x0010; printf 'OW\0\0'; le16 16; le16 0; printf ABCDEFGHIJKLMNOP; }
encapsulated() { # one fragment from the standard input, of a given length
  le16 0x7FE0; le16 0x0010; printf 'OB\0\0\377\377\377\377'
  le16 0xFFFE; le16 0xE000; le16 0; le16 0
  le16 0xFFFE; le16 0xE000; le16 "$1"; le16 0
  cat
  le16 0xFFFE; le16 0xE0DD; le16 0; le16 0
}
native | slice 1.2.840.10008.1.2.1 0 > "$keys/0.dcm"
native | slice 1.2.840.10008.1.2.1 2 > "$keys/2.dcm"
seed dicom native < "$keys/0.dcm"
{ le16 "$(stat -c %s "$keys/0.dcm")"; cat "$keys/0.dcm" "$keys/2.dcm"; } | seed dicom two
{ printf '\2\0\0\0\100\0\0\0\112\0\0\0'; head -c 52 /dev/zero; printf '\7ABCDEFGH\377\7IJKLMNOP'; } > "$keys/rle"
encapsulated "$(stat -c %s "$keys/rle")" < "$keys/rle" | slice 1.2.840.10008.1.2.5 0 | seed dicom rle
for syntax in 1.2.840.10008.1.2.4.50 1.2.840.10008.1.2.4.51 1.2.840.10008.1.2.4.70 1.2.840.10008.1.2.4.80 1.2.840.10008.1.2.4.90; do
  printf '\377\330\377\300' | encapsulated 4 | slice "$syntax" 0 | seed dicom "$syntax"
done
# Images in colour of every syntax and mosaics, from the tests' data, and JPEG-LS streams in a gray slice.
if command -v python3 > /dev/null; then
  python3 - <<'SEEDS'
import base64, json, pathlib, struct, zlib
corpus = pathlib.Path("fuzz/corpus/dicom")
for name in ("colour", "mosaic"):
    for image in json.loads(pathlib.Path(f"tests/data/{name}.json").read_text())["images"]:
        (corpus / f"{name}-{image['name']}").write_bytes(zlib.decompress(base64.b64decode(image["dicom"])))


def element(group, number, vr, value):
    value = value.encode() if isinstance(value, str) else struct.pack("<H", value) if isinstance(value, int) else value
    return struct.pack("<HH2sH", group, number, vr, len(value) + len(value) % 2) + value + b" " * (len(value) % 2)


for index, image in enumerate(json.loads(pathlib.Path("tests/data/jpeg_ls.json").read_text())):
    stream = bytes.fromhex(image["frame"])
    stream += b"\0" * (len(stream) % 2)
    fragments = struct.pack("<HHIHHI", 0xFFFE, 0xE000, 0, 0xFFFE, 0xE000, len(stream)) + stream + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    header = [
        (2, 0x10, b"UI", "1.2.840.10008.1.2.4.80"), (8, 0x60, b"CS", "MR"), (0x20, 0x0E, b"UI", "1.2.3"), (0x20, 0x32, b"DS", "0\\0\\0"),
        (0x20, 0x37, b"DS", "1\\0\\0\\0\\1\\0"), (0x28, 2, b"US", 1), (0x28, 4, b"CS", "MONOCHROME2"), (0x28, 0x10, b"US", image["rows"]),
        (0x28, 0x11, b"US", image["columns"]), (0x28, 0x30, b"DS", "1\\1"), (0x28, 0x100, b"US", 16),
    ]
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragments
    (corpus / f"jpeg-ls-{index}").write_bytes(b"\0" * 128 + b"DICM" + b"".join(element(*part) for part in header) + pixels)
SEEDS
else
  echo "python3 is absent: no seeds from tests/data"
fi

# Models and contracts of the tests; archives like PyTorch's, with nothing that could run.
for file in tests/data/models/*.onnx models/demo/predict.onnx; do
  [ "$(stat -c %s "$file")" -gt 60000 ] || seed model "$(basename "$file")" < "$file"
done
for file in tests/data/models/*.json tests/data/models/looks/*.json tests/data/contracts/*.json models/demo/*.json; do
  seed contract "$(basename "$file")" < "$file"
done
printf '{"recipe": 1, "steps": [{"step": "n4", "shrink": 2}, {"step": "nlm", "sigma": 20}, {"step": "zscore", "over": "foreground"}]}' | seed recipe three
if command -v python3 > /dev/null; then
  python3 - <<'ARCHIVES'
import pathlib, zipfile
for name, files in {"script": ["data.pkl", "constants.pkl", "code/m.py"], "weights": ["data.pkl", "data/0"], "export": ["archive_format"]}.items():
    with zipfile.ZipFile(pathlib.Path("fuzz/corpus/model") / name, "w") as archive:
        for file in files:
            archive.writestr(f"net/{file}", b"....")
pathlib.Path("fuzz/corpus/model/pickle").write_bytes(b"\x80\x02}q\x00.")
ARCHIVES
fi

outcome=0
for target in "${targets[@]}"; do
  echo "== $target"
  mkdir -p "fuzz/artifacts/$target" "fuzz/corpus/$target"
  log=fuzz/artifacts/$target/log
  # A hostile DICOM file may cost 64 MiB beside itself, whatever it says; time is measured by the tests, since an instrumented build is slow.
  limits=(-timeout=20)
  [ "$target" != dicom ] || limits=(-timeout=5 -malloc_limit_mb=64)
  target/release/"$target" "fuzz/corpus/$target" -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" -max_len=70000 \
    "${limits[@]}" -rss_limit_mb=2048 -print_final_stats=1 > "$log" 2>&1 || outcome=1
  grep -aE 'SUMMARY|panicked|ERROR|stat::number_of_executed|stat::new_units' "$log" || true
  grep -a 'cov:' "$log" | tail -n 1 || true
done
exit "$outcome"
