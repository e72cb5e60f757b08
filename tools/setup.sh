#!/usr/bin/env bash
# Installs what a target needs and is not there yet: setup.sh build | demo | test.
# Debian and Ubuntu only; anything already installed is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?build, demo or test}

packages=(gcc make libc6-dev python3 python3-venv)
[ "$target" = test ] && packages+=(g++ clang valgrind openssl binutils softhsm2)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
# A Python or compiler that did not come from a Debian package is as good.
usable() { command -v "$1" >/dev/null 2>&1; }
wanted=()
for package in "${missing[@]}"; do
  case $package in
    gcc|g++|clang|make|valgrind|openssl) usable "$package" || wanted+=("$package") ;;
    softhsm2) usable softhsm2-util || wanted+=("$package") ;;
    binutils) usable nm || wanted+=("$package") ;;
    python3) usable python3 || wanted+=("$package") ;;
    python3-venv) python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=("$package") ;;
    libc6-dev) [ -e /usr/include/stdio.h ] || wanted+=("$package") ;;
  esac
done
if [ ${#wanted[@]} -gt 0 ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "setup: installing ${wanted[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
fi

if ! usable cargo; then
  # The distributions' own cargo is too old for the AWS SDK; rustup brings the current one.
  echo "setup: installing the Rust toolchain"
  sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  if $sudo apt-get install -y -qq rustup >/dev/null 2>&1; then
    rustup default stable
  else
    $sudo apt-get install -y -qq curl ca-certificates >/dev/null
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default
  fi
fi

# One virtual environment per purpose, made again when its list of packages changes.
environment() {
  local folder=build/$1 list=$2
  local stamp="$folder/.installed"
  if [ ! -e "$stamp" ] || ! cmp -s "$list" "$stamp"; then
    echo "setup: installing the packages of $list"
    rm -rf "$folder"
    mkdir -p build
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$list"
    cp "$list" "$stamp"
  fi
}
# Azurite, Microsoft's emulator of Azure Blob Storage, in a folder of its own. Without Node its tests say that they were skipped.
azurite=3.35.0
emulator() {
  usable npm || { echo "setup: no npm, so the tests of Azure are skipped"; return 0; }
  local stamp=build/azurite/.installed
  [ "$(cat "$stamp" 2>/dev/null)" = "$azurite" ] && return 0
  echo "setup: installing Azurite $azurite"
  rm -rf build/azurite
  mkdir -p build/azurite
  if npm install --prefix build/azurite --no-fund --no-audit --ignore-scripts --silent "azurite@$azurite"; then
    echo "$azurite" > "$stamp"
  else
    echo "setup: Azurite cannot be installed, so the tests of Azure are skipped"
  fi
}
# libtorch, for the TorchScript backend. Distributions that do not have it go without, and the tests say so.
libtorch() {
  [ -e /usr/include/torch/csrc/jit/serialization/import.h ] && return 0
  python3 -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' && return 0
  echo "setup: installing libtorch-dev"
  local sudo=""
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq || true
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends libtorch-dev >/dev/null ||
    echo "setup: there is no libtorch-dev here, so the tests of the TorchScript backend are skipped"
}
case $target in
  build) ;;
  demo) environment demo-venv models/demo/requirements-demo.txt ;;
  test)
    environment test-venv tests/requirements.txt
    emulator
    libtorch ;;
  *) echo "setup: unknown target $target" >&2; exit 2 ;;
esac
