#!/bin/bash
# The TorchScript backend on a GPU, for a machine with g++ and Python's torch (or LIBTORCH=...): no Rust is needed. MODELS=folder takes models
# that make_model.cpp wrote elsewhere, with another libtorch perhaps; without it they are made here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${OUT:-$(mktemp -d)}
models=${MODELS:-$out/models}
"$here/../build.sh" "$@" OUT="$out" TESTS=1
if [ -z "${MODELS:-}" ]; then
  mkdir -p "$models"
  "$out/make_torchscript_models" "$models"
fi
cc -std=c99 -D_GNU_SOURCE -O2 -I "$root/include" "$here/check_backend.c" -o "$out/check_backend" -ldl -lm
"$out/check_backend" "$out/libsmp_torchscript.so" cpu "$models"
"$out/check_backend" "$out/libsmp_torchscript.so" "${DEVICE:-cuda:0}" "$models"
