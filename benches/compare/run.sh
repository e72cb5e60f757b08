#!/usr/bin/env bash
# Sealing and opening beside other tools: run.sh [MIB [ROUNDS]]. On one processor first, then on two; needs about three times the size
# of the study in /dev/shm. Python's `cryptography` is measured with SMP_PYTHON, or in a virtual environment made for it.
set -euo pipefail
cd "$(dirname "$0")"
mib=${1:-1024}
rounds=${2:-5}
python=${SMP_PYTHON:-}
if [ -z "$python" ]; then
  venv=../../build/compare-venv
  [ -x "$venv/bin/python" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet cryptography; }
  python=$(realpath -s "$venv/bin/python")
fi
cargo build --release --target-dir ../../target
program=../../target/release/compare
grep -m 1 'model name' /proc/cpuinfo || true
grep -m 1 -oE 'avx512f|avx2' /proc/cpuinfo || true
grep -m 1 -owE 'vaes' /proc/cpuinfo || echo "no vaes"
for processors in 0 0,1; do
  taskset -c "$processors" "$program" --bytes $((mib << 20)) --rounds "$rounds" --python "$python"
done
