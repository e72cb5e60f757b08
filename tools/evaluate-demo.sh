#!/usr/bin/env bash
# Runs the demonstration models on phantoms of unseen seeds through the library (the smp command: seal, process), and scores the results:
# mask Dice at least 0.85 and ROC AUC at least 0.95, or it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
python=build/test-venv/bin/python
exec "$python" models/demo/evaluate.py --via-library "${SMP_BINARY:-target/debug/smp}" "$@"
