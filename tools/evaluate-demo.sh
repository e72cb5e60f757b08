#!/usr/bin/env bash
# Runs the demonstration models through the library on phantoms of unseen seeds, each sealed and processed by the smp command, and scores
# the results: mask Dice at least 0.85 and ROC area at least 0.95, or it fails.   evaluate-demo.sh [SMP_BINARY]
set -euo pipefail
cd "$(dirname "$0")/.."
smp=$(realpath "${1:-target/debug/smp}")
python=build/test-venv/bin/python
ORT_DYLIB_PATH=${ORT_DYLIB_PATH:-$(ls "$PWD"/build/test-venv/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.* | sed -n 1p)}
export ORT_DYLIB_PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HOME="$work/home"
mkdir -p "$HOME" "$work/store" "$work/results"

"$python" models/demo/evaluate.py --write-studies "$work/studies"
settings() { # user
  printf '{"cloud.provider": "local", "cloud.bucket": "%s", "user_id": "%s", "workspace": "%s", "key_store_path": "%s",
    "encryption_key_path": "%s", "audit_log_path": "%s", "segment_model_path": "%s", "model_path": "%s", "output.formats": "json,npy"}\n' \
    "$work/store" "$1" "$work/$1/workspace" "$work/$1/keys" "$work/$1/keys/master.key" "$work/$1/audit" \
    "$PWD/models/demo/segment.onnx" "$PWD/models/demo/predict.onnx" > "$work/$1.json"
  chmod 600 "$work/$1.json"
}
settings hospital
settings researcher
hospital() { "$smp" --config "$work/hospital.json" "$@"; }
researcher() { "$smp" --config "$work/researcher.json" "$@"; }
sender=$(hospital keys generate | sed -n 1p)
recipient=$(researcher keys generate | sed -n 1p)
researcher keys export "$recipient" > "$work/researcher.pem"
hospital keys export "$sender" > "$work/hospital.pem"
hospital keys import researcher "$work/researcher.pem" > /dev/null
researcher keys import hospital "$work/hospital.pem" > /dev/null
hospital keys confirm "$recipient" "$(researcher keys list | awk -v id="$recipient" '$1 == id { $1 = $2 = ""; print }')"
researcher keys confirm "$sender" "$(hospital keys list | awk -v id="$sender" '$1 == id { $1 = $2 = ""; print }')"

for study in "$work"/studies/*/; do
  name=$(basename "$study")
  hospital seal "$study" "incoming/$name" --from "$sender" --to "$recipient" > /dev/null
  researcher process "incoming/$name" --study-id "$name" --output "$work/results" > /dev/null
done
researcher audit verify
"$python" models/demo/evaluate.py --quiet --results "$work/results"
