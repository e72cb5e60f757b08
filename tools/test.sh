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
ORT_DYLIB_PATH=$(ls "$PWD"/build/test-venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | head -n 1)
export SMP_PYTHON ORT_DYLIB_PATH

cargo test --no-fail-fast

echo "== the shipped library"
tools/build-library.sh build/lib
tests/c/exported_symbols.sh build/lib/libsmp.so
tests/c/run.sh build/lib

echo "== the demonstration models on unseen phantoms, through the library"
tools/evaluate-demo.sh target/debug/smp
echo "all tests passed"
