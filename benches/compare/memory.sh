#!/usr/bin/env bash
# Peak memory of sealing and of opening a large study: memory.sh [GIB [FOLDER]]. The study is made of holes; the sealed one takes its size on the disk.
set -euo pipefail
cd "$(dirname "$0")"
gib=${1:-5}
folder=$(mktemp -d "${2:-/var/tmp}/smp-memory-XXXXXX")
trap 'rm -rf "$folder"' EXIT
free=$(df --output=avail -B1 "$folder" | tail -n 1)
if [ "$free" -lt $(((gib + 1) << 30)) ]; then
  echo "SKIPPED: $folder has no room for $gib GiB" >&2
  exit 0
fi
cargo build --release --target-dir ../../target
for word in seal open; do
  ../../target/release/compare --memory "$word" --folder "$folder" --bytes $((gib << 30))
done
