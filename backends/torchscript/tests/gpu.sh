#!/bin/bash
# The TorchScript backend on a GPU, for a machine with g++ and Python's torch (or LIBTORCH=...): no Rust is needed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-/tmp/smp-torchscript}
"$here/../build.sh" "$@" OUT="$out" TESTS=1
mkdir -p "$out/models"
"$out/make_torchscript_models" "$out/models"
cc -std=c99 -D_GNU_SOURCE -O2 -I "$root/include" "$here/check_backend.c" -o "$out/check_backend" -ldl -lm
"$out/check_backend" "$out/libsmp_torchscript.so" cpu "$out/models"
"$out/check_backend" "$out/libsmp_torchscript.so" "${DEVICE:-cuda:0}" "$out/models"
