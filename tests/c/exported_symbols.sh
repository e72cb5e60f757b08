#!/usr/bin/env bash
# Checks a shared library as it is installed: exported_symbols.sh LIBRARY
set -euo pipefail
library=$(realpath "${1:?usage: exported_symbols.sh LIBRARY}")
header=$(dirname "$0")/../../include/smp.h
failed=0
complain() { echo "exported_symbols: $*" >&2; failed=1; }

exported=$(nm -D --defined-only "$library" | awk '{ print $NF }' | sort -u)
promised=$(grep -oh '\<smp_[a-z0-9_]*(' "$header" "${header%smp.h}smp_callbacks.h" | tr -d '(' | sort -u)
[ -n "$promised" ] || complain "the header promises nothing"
foreign=$(comm -23 <(echo "$exported") <(echo "$promised"))
missing=$(comm -13 <(echo "$exported") <(echo "$promised"))
[ -z "$foreign" ] || complain "exported without a promise:" $foreign
[ -z "$missing" ] || complain "promised and not exported:" $missing

abi=$(awk '$2 == "SMP_ABI_VERSION" { print $3 }' "$header")
dynamic=$(readelf -d "$library")
grep -q "SONAME.*\[libsmp.so.$abi\]" <<<"$dynamic" || complain "the SONAME is not libsmp.so.$abi"
! grep -q TEXTREL <<<"$dynamic" || complain "the code has to be changed when it is loaded (TEXTREL)"
grep -q BIND_NOW <<<"$dynamic" || complain "functions are bound late"
grep -q NODELETE <<<"$dynamic" || complain "unloading would take the code away from running threads"
! readelf -lW "$library" | grep -q 'GNU_STACK.*E ' || complain "the stack is executable"
# What every system with the GNU C library has; ONNX Runtime and CUDA are loaded at run time.
needed=$(sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' <<<"$dynamic")
for name in $needed; do
  case $name in
    libc.so.*|libm.so.*|libdl.so.*|libpthread.so.*|libgcc_s.so.*|ld-linux*) ;;
    *) complain "needs $name" ;;
  esac
done
[ $failed = 0 ] && echo "exported_symbols: $(wc -w <<<"$promised") functions and nothing else"
exit $failed
