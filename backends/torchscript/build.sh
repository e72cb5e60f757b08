#!/bin/bash
# Builds the TorchScript backend, libsmp_torchscript.so.
#
#   backends/torchscript/build.sh [LIBTORCH=folder] [OUT=folder] [CXX=compiler] [TESTS=1]
#
# LIBTORCH is an unpacked libtorch or a Python package `torch`: a folder with include/ and lib/. Without it: the torch of `python3`, then
# the distribution's (apt install libtorch-dev). OUT is where the library goes (build/lib). TESTS=1 builds the tests' model maker as well.
#
# The library finds its libtorch by a RUNPATH to that folder, so it runs where it was built; move both together or set LD_LIBRARY_PATH.
# CUDA is used when that libtorch has it; no CUDA headers are needed, only libtorch's. (libtorch older than 2.9 keeps a device's memory
# after a model was closed, until the process ends, unless its CUDA headers are found in CUDA_HOME.)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
LIBTORCH=${LIBTORCH:-} OUT=${OUT:-$root/build/lib} CXX=${CXX:-g++} TESTS=${TESTS:-}
for argument in "$@"; do
    case $argument in
        LIBTORCH=*|OUT=*|CXX=*|TESTS=*) declare "$argument" ;;
        *) echo "build.sh: what is $argument?" >&2; exit 2 ;;
    esac
done

if [ -z "$LIBTORCH" ]; then
    # find_spec reads where the package lies without importing it, which takes seconds.
    LIBTORCH=$(python3 -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")' 2>/dev/null || true)
fi
LIBTORCH=${LIBTORCH:-/usr}
headers=$LIBTORCH/include
libraries=$LIBTORCH/lib
[ -e "$libraries/libtorch_cpu.so" ] || libraries=$LIBTORCH/lib/$(uname -m)-linux-gnu
if [ ! -e "$headers/torch/csrc/jit/serialization/import.h" ] || [ ! -e "$libraries/libtorch_cpu.so" ]; then
    echo "build.sh: no libtorch in $LIBTORCH: set LIBTORCH, or install the Python package torch or libtorch-dev" >&2
    exit 1
fi

flags=(-O2 -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -Wall -Wextra -Wpedantic -Wconversion
       -I "$root/include" -isystem "$headers/torch/csrc/api/include")
# The system's own folder must keep its place at the end of the search.
[ "$headers" = /usr/include ] || flags+=(-isystem "$headers")
# The newest headers want C++20.
number() { cat "$headers/torch/csrc/api/include/torch/version.h" "$headers/torch/headeronly/version.h" 2>/dev/null | sed -n "s/^#define TORCH_VERSION_$1 //p"; }
major=$(number MAJOR || true) minor=$(number MINOR || true)
if [ $((${major:-1} * 100 + ${minor:-0})) -ge 209 ]; then flags+=(-std=c++20); else flags+=(-std=c++17); fi
# Wheels before 2.7 were built with the strings of GCC 4 (_GLIBCXX_USE_CXX11_ABI=0). libc10 says which: its names carry "cxx11" or not.
if nm -D --defined-only -C "$libraries/libc10.so" | grep 'c10::Error::Error(c10::SourceLocation, std::__cxx11::basic_string' >/dev/null; then
    flags+=(-D_GLIBCXX_USE_CXX11_ABI=1)
else
    flags+=(-D_GLIBCXX_USE_CXX11_ABI=0)
fi
# What libtorch itself needs is its own affair; the linker need not find it.
cpu=(-Wl,--allow-shlib-undefined -L "$libraries" -ltorch_cpu -lc10)
needed=("${cpu[@]}")
if [ -e "$libraries/libtorch_cuda.so" ]; then
    # Nothing here calls these by name: they register themselves when they are loaded.
    needed=(-Wl,--no-as-needed -L "$libraries" -ltorch_cuda -lc10_cuda -Wl,--as-needed "${cpu[@]}")
    if [ -e "${CUDA_HOME:-/usr/local/cuda}/include/cuda_runtime_api.h" ]; then
        flags+=(-DSMP_TORCH_CUDA -isystem "${CUDA_HOME:-/usr/local/cuda}/include")
    fi
fi

mkdir -p "$OUT"
"$CXX" "${flags[@]}" -shared "$here/smp_torchscript.cpp" -o "$OUT/libsmp_torchscript.so" \
    -Wl,--version-script="$here/exports.map" -Wl,-z,nodelete,-z,defs -Wl,--enable-new-dtags,-rpath,"$libraries" "${needed[@]}"
if [ -n "$TESTS" ]; then
    "$CXX" "${flags[@]}" "$here/tests/make_model.cpp" -o "$OUT/make_torchscript_models" -Wl,--enable-new-dtags,-rpath,"$libraries" "${cpu[@]}"
fi
echo "$OUT/libsmp_torchscript.so for libtorch ${major:-?}.${minor:-?} in $libraries"
