#!/bin/sh
# The build stage of docker/Dockerfile: docker/compile.sh cpu|cuda OUT
set -eu
cd "$(dirname "$0")/.."
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3-pip python3-venv
case ${1:-cpu} in
cpu)
    python3 scripts/libtorch.py
    libraries='.libtorch/lib/*.so*'
    ;;
cuda)
    python3 -m venv /opt/torch
    /opt/torch/bin/pip install --quiet --no-cache-dir torch==2.11.0 numpy setuptools
    export VIRTUAL_ENV=/opt/torch PATH="/opt/torch/bin:$PATH" LIBTORCH_USE_PYTORCH=1
    packages=$(python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    libraries="$packages/torch/lib/*.so* $packages/nvidia/*/lib/*.so*"
    ;;
*)
    echo "compile.sh: libtorch for $1? cpu or cuda" >&2
    exit 2
    ;;
esac
cargo build --profile ship --locked --bin proxy-device --bin proxy-edge --bin model-server
# shellcheck disable=SC2086 # patterns of files
docker/collect.sh "$2" target/ship $libraries
