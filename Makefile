# Everything a newcomer types. Each target does what the ones before it need, and nothing twice.

PYTHON ?= python3

# SIDECOD_LIBTORCH=pytorch: build with the PyTorch of python3, with CUDA where that has it.
ifeq ($(SIDECOD_LIBTORCH),pytorch)
export LIBTORCH_USE_PYTORCH := 1
unexport LIBTORCH
endif

.PHONY: help setup build demo test page peers lint clean

help:
	@echo 'make demo    a photo through both sidecars and sent directly, side by side (PHOTO=path for your own)'
	@echo 'make test    all tests but the next'
	@echo 'make page    the admin pages in Chromium (Debian package chromium), screenshots in target/page'
	@echo 'make peers   real model servers and clients through both sidecars (as root; 300 MB to download, 1.8 GB on disk)'
	@echo 'make lint    formatting, clippy, licences and versions of the dependencies'
	@echo 'make build   the programs, in target/release'
	@echo 'make setup   libtorch for the CPU, in .libtorch (135 MB to download, 500 MB on disk)'
	@echo 'make clean   remove what was built; libtorch stays'
	@echo 'With SIDECOD_LIBTORCH=pytorch before any of them: the PyTorch 2.11 of python3, with CUDA.'

setup:
	@$(PYTHON) scripts/libtorch.py

# With the tests, so that the tree is compiled once, with one set of features.
build: setup
	cargo build --release --workspace --all-targets

demo: build
	@scripts/demo.sh $(if $(PHOTO),'$(PHOTO)')

test: build
	cargo test --release --workspace
	$(PYTHON) -m unittest discover -s scripts/tests
	python=$$(PYTHON='$(PYTHON)' scripts/train_env) && PYTHONPATH=onnx "$$python" -m unittest discover -s onnx/tests

# Not part of test: it wants a browser.
page: build
	cargo test --release --workspace --test page -- --ignored

# Not part of test: it downloads the packages of the peers, and wants root for a network namespace.
peers: build
	$(PYTHON) scripts/peers --table

lint: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --workspace check --hide-inclusion-graph bans licenses sources

clean:
	cargo clean
