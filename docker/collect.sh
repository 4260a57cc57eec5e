#!/bin/sh
# Lays out what the images hold, from what is compiled: docker/collect.sh OUT PROGRAMS LIBRARY...
# Programs come from the folder PROGRAMS, without debug information; libraries are linked, or else copied.
set -eu
cd "$(dirname "$0")/.."
out=$1
programs=$2
shift 2
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib"
for program in proxy-device proxy-edge model-server; do
    strip -o "$out/bin/$program" "$programs/$program"
done
for library; do
    # libtorch.so is another name for the linker alone.
    [ -L "$library" ] || cp -l "$library" "$out/lib/" 2>/dev/null || cp "$library" "$out/lib/"
done
