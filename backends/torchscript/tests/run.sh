#!/bin/bash
# Builds the TorchScript backend and its models, and runs the tests that need libtorch. Arguments as build.sh (LIBTORCH=...).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-$root/build/torchscript-tests}
"$here/../build.sh" "$@" OUT="$out" TESTS=1
mkdir -p "$out/models"
"$out/make_torchscript_models" "$out/models"
cd "$root"
SMP_TORCHSCRIPT_TESTS="$out" cargo test --lib inference::backend
