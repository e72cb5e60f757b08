#!/usr/bin/env bash
# Builds libsmp.so: build-library.sh OUT_FOLDER [ARCHIVE]. With ARCHIVE, links that static library instead of building a release.
#
# cargo's own shared library is not what we ship: next to a Rust library it is built without link-time optimisation, it has no SONAME, and it
# exports symbols of crates inside it. So cargo builds the archive, and the system's linker makes the library with our list of exports.
set -euo pipefail
out=$(realpath -m "${1:?usage: build-library.sh OUT_FOLDER [ARCHIVE]}")
archive=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."

if [ -z "$archive" ]; then
  export PATH="$HOME/.cargo/bin:$PATH"
  cargo rustc --locked --lib --release --crate-type staticlib
  archive=${CARGO_TARGET_DIR:-target}/release/libsmp.a
fi

# The header is the list of what must be in the library, and holds the number in its name.
abi=$(awk '$2 == "SMP_ABI_VERSION" { print $3 }' include/smp.h)
mkdir -p "$out"
roots=$(mktemp)
trap 'rm -f "$roots"' EXIT
grep -oh '\<smp_[a-z0-9_]*(' include/smp.h include/smp_callbacks.h | tr -d '(' | sort -u | sed 's/^/-Wl,-u,/' > "$roots"

# nodelete: MATLAB's unloadlibrary must not take the code away from worker threads and from what threads do when they end.
"${CC:-cc}" -shared -o "$out/libsmp.so.$abi" "@$roots" "$archive" \
  -Wl,-soname,"libsmp.so.$abi" -Wl,--version-script=src/capi/exports.map \
  -Wl,--gc-sections -Wl,--as-needed -Wl,-z,defs,-z,relro,-z,now,-z,noexecstack,-z,nodelete -s \
  -lpthread -ldl -lm
ln -sfn "libsmp.so.$abi" "$out/libsmp.so"
echo "$out/libsmp.so ($(stat -c %s "$out/libsmp.so.$abi") bytes)"
