#!/usr/bin/env bash
# Makes the images that docker/Dockerfile starts from where no registry can be reached, as root:
#   docker/base-images.sh debian    debian:bookworm-slim, by debootstrap
#   docker/base-images.sh rust      rust:1.95-bookworm: the same with gcc and this machine's Rust
# An image that is there, or that can be pulled, is left as it is.
set -euo pipefail

debian=debian:bookworm-slim
rust=rust:1.95-bookworm
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

have() { docker image inspect "$1" >/dev/null 2>&1 || timeout 60 docker pull --quiet "$1" 2>/dev/null; }

make_debian() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    debootstrap --variant=minbase bookworm "$work/root" "$mirror" >"$work/log" || { cat "$work/log" >&2; exit 1; }
    # As the slim image of the registry: no manuals, no translations, no lists.
    tar -C "$work/root" -c --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' . |
        docker import --change 'CMD ["bash"]' - "$debian"
}

make_rust() {
    toolchain=$(rustc +1.95.0 --print sysroot)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # What a build stage trusts is what this machine trusts.
    cp /etc/ssl/certs/ca-certificates.crt "$work/"
    mkdir "$work/rust"
    cp -a "$toolchain/bin" "$toolchain/lib" "$work/rust/"
    cat >"$work/Dockerfile" <<EOF
FROM $debian
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    g++ gcc make libc6-dev ca-certificates curl python3 && rm -rf /var/lib/apt/lists/*
COPY ca-certificates.crt /etc/ssl/certs/
COPY rust /usr/local
ENV CARGO_HOME=/usr/local/cargo PIP_CERT=/etc/ssl/certs/ca-certificates.crt
EOF
    docker build --quiet -t "$rust" "$work"
}

case ${1:-} in
debian) have "$debian" || make_debian ;;
rust) "$0" debian && { have "$rust" || make_rust; } ;;
*) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
