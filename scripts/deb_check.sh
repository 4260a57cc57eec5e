#!/usr/bin/env bash
# Looks at the package of scripts/deb.sh, installs it in a container of a bare Debian, lets it check its
# configuration, run and code a photo, removes it, and looks at what is left.
# Usage: scripts/deb_check.sh PACKAGE
set -euo pipefail
cd "$(dirname "$0")/.."

package=$(realpath "$1")
fail() { echo "deb: $*" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dpkg-deb --extract "$package" "$work/root"
program=$work/root/usr/bin/proxy-device
echo "$(basename "$package"): $(($(stat -c %s "$package") / 1000)) kB; proxy-device: $(($(stat -c %s "$program") / 1000)) kB, links$(ldd "$program" | awk '/\.so/ { printf " %s", $1 }')"
! ldd "$program" | grep -E 'libtorch|libc10|not found' || fail 'proxy-device links what the package does not bring'

lintian --fail-on warning,error --profile debian "$package"
# Beside the units of the system, which it names, and the shell that every Debian has.
cp -rn /lib/systemd/system "$work/root/lib/systemd/"
install -D /bin/sh "$work/root/bin/sh"
systemd-analyze verify --man=no --root="$work/root" proxy-device.service
for sidecar in proxy-device proxy-edge; do
    # Points of exposure, of 100: 96 without any sandbox.
    systemd-analyze security --offline=yes --no-pager --threshold=20 "$sidecar/package/$sidecar.service" |
        sed -n "s/.*Overall exposure level for/systemd-analyze security:/p"
done

docker/base-images.sh debian
docker run --rm --interactive --volume "$package:/package.deb:ro" --volume "$PWD/examples/photos:/photos:ro" \
    debian:bookworm-slim bash -euo pipefail <<'EOF'
fail() { echo "deb: $*" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install -y --no-install-recommends /package.deb; } >/tmp/log 2>&1 || { cat /tmp/log >&2; fail 'does not install'; }
config=/etc/sidecod/proxy-device.toml
[ "$(stat -c '%a %U:%G' "$config")" = '640 root:proxy-device' ] || fail "$config: $(stat -c '%a %U:%G' "$config")"
as_service=(setpriv --reuid proxy-device --regid proxy-device --clear-groups)
"${as_service[@]}" proxy-device --config "$config" --check
"${as_service[@]}" proxy-device --config "$config" route test --route classify --content-type image/jpeg </photos/goldfish.jpg
"${as_service[@]}" proxy-device --config "$config" >/tmp/log 2>&1 &
device=$!
for _ in $(seq 100); do "${as_service[@]}" proxy-device --config "$config" healthy 2>/tmp/healthy && break; sleep 0.2; done
"${as_service[@]}" proxy-device --config "$config" healthy || fail 'does not run'
kill "$device"
wait "$device" || fail "ended with $?"
! "${as_service[@]}" proxy-device --config "$config" healthy 2>/dev/null || fail 'says that it is healthy, and has ended'

echo '# changed' >>"$config"
apt-get remove -y sidecod-device >/tmp/log 2>&1 || { cat /tmp/log >&2; fail 'is not removed'; }
[ ! -e /usr/bin/proxy-device ] || fail 'the program is left'
grep -q '^# changed' "$config" || fail 'remove took a changed configuration'
apt-get purge -y sidecod-device >/tmp/log 2>&1 || { cat /tmp/log >&2; fail 'is not purged'; }
left=$(find / -xdev -path /proc -prune -o \( -name '*proxy-device*' -o -name '*sidecod*' \) -print)
[ -z "$left" ] || fail "left behind: $left"
echo 'installed, checked, run, removed, purged: nothing is left'
EOF
