# Two targets are all that a newcomer needs:
#   make demo   builds the library, makes a sample study, runs the main job on it from a C program, shows the result
#   make test   installs what the tests need and runs all of them
# The rest: library, torchscript, install, header, fmt, lint, fuzz, bench, clean.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := library

BUILD  := build
PREFIX ?= /usr/local
DATA   ?= $(abspath ../shared/data)
CFLAGS ?= -O2
C99    := -std=c99 -Wall -Wextra -Wpedantic -Werror

# ONNX Runtime's shared library out of the PyPI wheel; the library itself finds it by this variable at run time.
RUNTIME = $(firstword $(wildcard $(abspath $(BUILD))/$(1)/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.*))

.PHONY: library torchscript demo test install header fmt lint fuzz bench clean

library:
	tools/setup.sh build
	tools/build-library.sh $(BUILD)/lib

# The plug-in for TorchScript models, against an installed libtorch: python3's torch, the distribution's, or LIBTORCH=folder.
torchscript:
	backends/torchscript/build.sh LIBTORCH=$(LIBTORCH) OUT=$(abspath $(BUILD))/lib

demo: library
	tools/setup.sh demo
	tools/demo.sh

test:
	tools/setup.sh test
	tools/test.sh

install: library
	install -d $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include/smp
	cp -a $(BUILD)/lib/libsmp.so* $(DESTDIR)$(PREFIX)/lib/
	install -m 0644 include/smp.h include/smp_callbacks.h include/smp.hpp $(DESTDIR)$(PREFIX)/include/
	install -m 0644 include/smp/*.hpp $(DESTDIR)$(PREFIX)/include/smp/

header:
	SMP_BLESS=1 cargo test --test header

fmt:
	cargo fmt

lint:
	cargo fmt --check
	cargo clippy --all-targets --features pkcs11 -- -D warnings
	cargo clippy --lib --bins -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib

# Every parser of foreign bytes, SECONDS each.
SECONDS_EACH ?= 60
fuzz:
	tools/fuzz.sh $(SECONDS_EACH)

# Sealing and opening beside other tools, on one processor and on two.
bench:
	benches/compare/run.sh

clean:
	rm -rf $(BUILD)
	cargo clean
