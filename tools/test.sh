#!/usr/bin/env bash
# Runs every test: the Rust suites (which drive C, Python, OpenSSL and a real S3 server), then the shipped library itself.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

SMP_TEST_DATA=${SMP_TEST_DATA:-$(realpath -m ../shared/data)}
if [ -d "$SMP_TEST_DATA" ]; then
  export SMP_TEST_DATA
else
  unset SMP_TEST_DATA
  echo "SKIPPED: there is no folder of real DICOM, models and vectors (SMP_TEST_DATA); tests that need it say so and pass"
fi
SMP_PYTHON=$(realpath -s build/test-venv/bin/python)
ORT_DYLIB_PATH=$(ls "$PWD"/build/test-venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | sed -n 1p)
export SMP_PYTHON ORT_DYLIB_PATH

if [ -n "${SMP_TEST_DATA:-}" ]; then
  echo "== a real segmentation by a second implementation (numpy and onnxruntime), for comparison"
  export SMP_MESHNET_DIR=$PWD/build/meshnet
  rm -rf "$SMP_MESHNET_DIR"
  "$SMP_PYTHON" tests/interop/meshnet_expected.py "$SMP_TEST_DATA/mr_t1_philips_mprage" \
    "$SMP_TEST_DATA/../models/brainchop_meshnet5_gwm.onnx" tests/data/contracts/brainchop_meshnet5_gwm.json "$SMP_MESHNET_DIR"
fi

echo "== the TorchScript backend and its models, by libtorch"
if backends/torchscript/build.sh OUT="$PWD/build/torchscript" TESTS=1; then
  mkdir -p build/torchscript/models
  build/torchscript/make_torchscript_models build/torchscript/models
  export SMP_TORCHSCRIPT_TESTS=$PWD/build/torchscript
fi

# The output of passing tests is shown too, because that is where a test says what it could not do here.
mkdir -p build
# With every feature, so that keys in tokens are tested (against SoftHSM2); the shipped library, tested further down, is built with none.
cargo test --features pkcs11 --no-fail-fast -- --show-output 2>&1 | tee build/test.log
echo "== a study of gibibytes made by OpenSSL, by itself, because its peak of memory is that of the process"
cargo test --features pkcs11 --test cms_import -- --ignored --show-output 2>&1 | tee -a build/test.log

echo "== a download of a gibibyte, killed twenty times"
cargo test --features pkcs11 --test resume_after_kill -- --ignored --exact what_was_verified_of_a_gibibyte_is_not_fetched_again --show-output 2>&1 |
  tee -a build/test.log

echo "== an object of a gibibyte to S3 and back, by itself for the same reason"
cargo test --features pkcs11 --test s3_store -- --ignored --show-output 2>&1 | tee -a build/test.log

echo "== not tested on this machine"
grep -ahE '^SKIPPED' build/test.log | sort -u || echo "nothing was skipped"

echo "== the shipped library"
tools/build-library.sh build/lib
tests/c/exported_symbols.sh build/lib/libsmp.so
tests/c/run.sh build/lib
tests/cpp/run.sh build/lib

echo "== the demonstration models on unseen phantoms, through the library"
tools/evaluate-demo.sh target/debug/smp
echo "== the example, in C and C++ against the shipped library and in Rust"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build/test-venv/bin/python models/demo/phantom.py "$work/study" --seed 9001 --malignant
cc -std=c99 -Wall -Wextra -Wpedantic -Werror -Iinclude examples/process_study/process_study.c -o "$work/process_study" \
  -Lbuild/lib -lsmp -Wl,-rpath,"$PWD/build/lib"
c++ -std=c++17 -Wall -Wextra -Wpedantic -Wconversion -Werror -Iinclude examples/process_study/process_study.cpp -o "$work/process_study_cpp" \
  -Lbuild/lib -lsmp -Wl,-rpath,"$PWD/build/lib"
for program in "$work/process_study" "$work/process_study_cpp" target/debug/examples/process_study; do
  mkdir "$work/run"
  "$program" "$work/study" "$work/run" models/demo/segment.onnx models/demo/predict.onnx | tee "$work/lines"
  grep -q '^Cancer Probability: [0-9.]*%$' "$work/lines"
  [ -s "$work/run/results/RESEARCH-001_segmentation.nii.gz" ]
  rm -rf "$work/run"
done
echo "== the hospital's side, in C, C++ and Rust: sealed by each, opened by the command line"
cc -std=c99 -Wall -Wextra -Wpedantic -Werror -Iinclude examples/seal_study/seal_study.c -o "$work/seal_c" \
  -Lbuild/lib -lsmp -Wl,-rpath,"$PWD/build/lib"
c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -Iinclude examples/seal_study/seal_study.cpp -o "$work/seal_cpp" \
  -Lbuild/lib -lsmp -Wl,-rpath,"$PWD/build/lib"
mkdir -p "$work/hospital/store"
researcher() {
  HOME="$work" target/debug/smp --set "cloud.bucket=$work/hospital/store" --set "workspace=$work/ws" --set "audit_log_path=$work/log" \
    --set "key_store_path=$work/keys" --set "encryption_key_path=$work/keys/master.key" "$@"
}
researcher keys generate --purpose research >"$work/identity"
{ read -r id; read -r fingerprint; } <"$work/identity"
researcher keys export "$id" >"$work/researcher.pem"
for program in "$work/seal_c" "$work/seal_cpp" target/debug/examples/seal_study; do
  name=$(basename "$program")
  "$program" "$work/study" "$work/hospital" "$work/researcher.pem" "$fingerprint" "incoming/$name" | tee "$work/lines"
  if [ ! -e "$work/hospital-known" ]; then
    sender=$(researcher keys import hospital "$work/hospital/hospital.pem" | sed -n 1p)
    researcher keys confirm "$sender" "$(sed -n 's/^Our fingerprint, to be read out: //p' "$work/lines")"
    touch "$work/hospital-known"
  fi
  researcher unseal "incoming/$name" "$work/opened-$name"
  diff -r "$work/study" "$work/opened-$name"
done
echo "all tests passed"
