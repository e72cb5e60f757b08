#!/usr/bin/env bash
# Compiles and runs the C++ binding against a library: run.sh LIB_FOLDER
#
# Every compiler that is here takes it as C++17, 20 and 23 with the warnings that users have on, and a program of two units runs. Each header stands
# alone, and together they name every function of the C API.
set -euo pipefail
library=$(realpath "${1:?usage: run.sh LIB_FOLDER}")
cd "$(dirname "$0")"
headers=../../include
warnings=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror)

missing=()
for function in $(grep -oh '\<smp_[a-z0-9_]*(' $headers/smp.h $headers/smp_callbacks.h | tr -d '(' | sort -u); do
  grep -q "\<$function\>" $headers/smp/*.hpp || missing+=("$function")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "the C++ binding lacks ${missing[*]}" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work/home" CHECK_OWN_HOME=1
mkdir "$HOME"
for name in $(compgen -e SMP_ || true); do unset "$name"; done

ran=0
for compiler in g++ clang++; do
  command -v "$compiler" >/dev/null || { echo "SKIPPED: the C++ binding by $compiler, which is not installed"; continue; }
  for standard in 17 20 23; do
    # Compilers of before 2023 call it 2b.
    std=-std=c++$standard
    "$compiler" $std -fsyntax-only -x c++ /dev/null 2>/dev/null || std=-std=c++2b
    for header in $headers/smp/*.hpp; do
      [ $standard != 17 ] || "$compiler" $std "${warnings[@]}" -I$headers -fsyntax-only -include "$header" -x c++ /dev/null
    done
    if [ $standard != 17 ]; then
      "$compiler" $std "${warnings[@]}" -I$headers -isystem ../c -fsyntax-only test_binding.cpp
      continue
    fi
    "$compiler" $std "${warnings[@]}" -g -I$headers -isystem ../c test_binding.cpp other_unit.cpp -o "$work/binding" \
      -L"$library" -lsmp -lpthread -Wl,-rpath,"$library"
    mkdir "$work/run"
    "$work/binding" "$work/run" -
    rm -rf "$work/run"
    ran=$((ran + 1))
  done
done
[ $ran -gt 0 ]
