#!/usr/bin/env bash
# Compiles and runs the C programs test_*.c against a library: run.sh LIB_FOLDER [--valgrind]
#
# With --valgrind they are run once more under it: no invalid access and no definite leak. Real DICOM comes from SMP_TEST_DATA.
set -euo pipefail
library=$(realpath "${1:?usage: run.sh LIB_FOLDER [--valgrind]}")
valgrind=${2:-}
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=${SMP_TEST_DATA:-../../../shared/data}
if [ -d "$data" ]; then
  data=$(realpath "$data")
else
  data=-
  echo "SKIPPED: the parts of the C programs that need real DICOM (SMP_TEST_DATA)"
fi
# The user's own configuration and keys must not take part, nor be touched.
export HOME="$work/home" CHECK_OWN_HOME=1
mkdir "$HOME"
for name in $(compgen -e SMP_ || true); do unset "$name"; done

failed=()
run() { # name of the program, name of the run, command before the program
  local name=$1 label=$2
  shift 2
  mkdir -p "$work/$label"
  if ! "$@" "$work/$name" "$work/$label" "$data"; then
    failed+=("$label")
  fi
  rm -rf "${work:?}/$label"
}

programs=()
for source in test_*.c; do
  name=${source%.c}
  programs+=("$name")
  "${CC:-cc}" -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wpedantic -Werror -g -O1 -I../../include "$source" -o "$work/$name" \
    -L"$library" -lsmp -lpthread -lm -Wl,-rpath,"$library"
  run "$name" "$name.run"
done

if [ "$valgrind" = --valgrind ]; then
  if command -v valgrind >/dev/null; then
    export SMP_CHECK_QUICK=1
    # The model runtime is not what is checked here, and the dynamic loader reads past the ends of its search path's words.
    unset ORT_DYLIB_PATH
    for name in "${programs[@]}"; do
      run "$name" "$name.valgrind" valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
        --show-leak-kinds=definite --num-callers=24 --suppressions=valgrind.supp
    done
  else
    echo "SKIPPED: the C programs under valgrind, which is not installed"
  fi
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "C PROGRAMS FAILED: ${failed[*]}" >&2
  exit 1
fi
echo "${#programs[@]} C programs passed"
