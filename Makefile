# Everything a newcomer types. Each target does what the ones before it need, and nothing twice.

PYTHON ?= python3

# SIDECOD_LIBTORCH=pytorch: build with the PyTorch of python3, with CUDA where that has it.
ifeq ($(SIDECOD_LIBTORCH),pytorch)
export LIBTORCH_USE_PYTORCH := 1
unexport LIBTORCH
endif

.PHONY: help setup build ship points demo test page peers docker deb kubernetes lint clean

help:
	@echo 'make demo    a photo through both sidecars and sent directly, side by side (PHOTO=path for your own)'
	@echo 'make test    all tests but the next'
	@echo 'make page    the admin pages in Chromium (Debian package chromium), screenshots in target/page'
	@echo 'make peers   real model servers and clients through both sidecars (as root; wants PyTorch; 300 MB to download, 1.8 GB on disk)'
	@echo 'make docker  the images, built and driven with curl; no request lost while the edge restarts (as root)'
	@echo 'make deb     the Debian package of proxy-device, in target/debian'
	@echo 'make kubernetes  the example in docker/kubernetes checked, without a cluster'
	@echo 'make lint    formatting, clippy, licences and versions of the dependencies'
	@echo 'make points  parts of the example model for device and edge, in target/points (wants PyTorch)'
	@echo 'make build   the programs, in target/release'
	@echo 'make ship    the same as they ship, in target/ship: compiled as a whole, 15 minutes on two cores'
	@echo 'make setup   libtorch for the CPU, in .libtorch (135 MB to download, 500 MB on disk)'
	@echo 'make clean   remove what was built; libtorch stays'
	@echo 'With SIDECOD_LIBTORCH=pytorch before any of them: the PyTorch 2.11 of python3, with CUDA.'

setup:
	@$(PYTHON) scripts/libtorch.py

# With the tests, so that the tree is compiled once, with one set of features.
build: setup
	cargo build --release --workspace --all-targets

# As in the package and the images. Link-time optimisation takes minutes for each program.
ship: setup
	cargo build --profile ship --bins

# The points of the model server's model: heads and tails are cut out of it, feature codecs unpacked.
points:
	@python=$$(PYTHON='$(PYTHON)' scripts/train_env) && PYTHONPATH=onnx "$$python" -m sidecod_train split \
		--model examples/model-server/model/efficientnet-lite0.onnx \
		--interface onnx/points/efficientnet-lite0/interface.toml \
		--points onnx/points/efficientnet-lite0 --out target/points

demo: build
	@scripts/demo.sh $(if $(PHOTO),'$(PHOTO)')

test: build points
	scripts/test_tools
	cargo test --release --workspace
	$(PYTHON) -m unittest discover -s scripts/tests
	python=$$(PYTHON='$(PYTHON)' scripts/train_env) && PYTHONPATH=onnx "$$python" -m unittest discover -s onnx/tests

# Not part of test: it wants a browser.
page: build
	cargo test --release --workspace --test page -- --ignored

# Not part of test: it downloads the packages of the peers, and wants root for a network namespace.
peers: build
	$(PYTHON) scripts/peers --table

# With what is in target/release; docker/check.sh --compile compiles in the images' build stage.
docker: build
	docker/check.sh

deb:
	cargo build --profile ship --bin proxy-device
	scripts/deb.sh

kubernetes: build
	$(PYTHON) -m pip install --quiet --upgrade --target .venvs/kubernetes -r docker/kubernetes/requirements.txt
	PYTHONPATH=.venvs/kubernetes PROXY_EDGE=target/release/proxy-edge PROXY_DEVICE=target/release/proxy-device \
		$(PYTHON) docker/kubernetes/check.py

lint: setup
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings
	cargo deny --workspace check --hide-inclusion-graph bans licenses sources

clean:
	cargo clean
