#!/usr/bin/env bash
# The main job on a made-up study, from the C program in examples/process_study: sealed, opened in memory, de-identified, preprocessed,
# segmented, scored, written, recorded, erased. Leaves the results in build/demo/results.
set -euo pipefail
cd "$(dirname "$0")/.."

work=build/demo
python=build/demo-venv/bin/python
rm -rf "$work"
mkdir -p "$work"

echo "== a sample study (a phantom with a made-up patient)"
"$python" models/demo/phantom.py "$work/study" --seed "${SEED:-20}" --malignant
echo "$(find "$work/study" -type f | wc -l) files in $work/study"

echo "== the C program"
gcc -std=c99 -O2 -Wall -Wextra -Wpedantic -Werror -Iinclude examples/process_study/process_study.c -o "$work/process_study" \
  -Lbuild/lib -lsmp -Wl,-rpath,"$PWD/build/lib"
ORT_DYLIB_PATH=$(ls "$PWD"/build/demo-venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | sed -n 1p)
export ORT_DYLIB_PATH
echo
"$work/process_study" "$work/study" "$work" models/demo/segment.onnx models/demo/predict.onnx
echo
echo "== left to look at"
find "$work/results" "$work"/*.json -type f 2>/dev/null | sort
