#!/usr/bin/env bash
# Makes the Debian package of proxy-device from target/ship, in target/debian, and prints its name.
# DEBFULLNAME and DEBEMAIL say who makes it.
set -euo pipefail
cd "$(dirname "$0")/.."

package=sidecod-device
program=target/ship/proxy-device
source=proxy-device/package
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
maintainer="${DEBFULLNAME:-The Sidecod authors} <${DEBEMAIL:-sidecod@packages.invalid}>"
out=target/debian
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$package
# The time in the package is that of the last commit: the same tree gives the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

install -Dm755 -s "$program" "$root/usr/bin/proxy-device"
install -Dm644 -t "$root/usr/share/sidecod/codecs/photo" \
    onnx/codecs/photo/{manifest.json,encoder.onnx,tables.bin}
install -Dm640 "$source/proxy-device.toml" "$root/etc/sidecod/proxy-device.toml"
install -Dm640 "$source/proxy-device.default" "$root/etc/default/proxy-device"
install -Dm644 -t "$root/lib/systemd/system" "$source/proxy-device.service"
install -Dm644 "$source/lintian-overrides" "$root/usr/share/lintian/overrides/$package"

man=$root/usr/share/man/man1
mkdir -p "$man"
help2man --no-info --section 1 --include "$source/man.h2m" "$program" >"$man/proxy-device.1"
help2man --no-info --section 1 --version-string "proxy-device-redirect $version" \
    --name 'leads an app to proxy-device' "$program redirect" >"$man/proxy-device-redirect.1"
gzip -9n "$man"/*.1

doc=$root/usr/share/doc/$package
install -Dm644 -t "$doc" docs/configuration.md
"$program" config >"$doc/reference.toml"
sed -e '/@MIT@/{
    r /dev/stdin
    d
}' "$source/copyright" >"$doc/copyright" < <(tail -n +3 LICENSE-MIT | sed 's/^$/./; s/^/ /')
cat >"$work/changelog" <<EOF
$package ($version) unstable; urgency=medium

  * Version $version of Sidecod; its CHANGELOG.md says what is new.

 -- $maintainer  $(date -uRd "@$SOURCE_DATE_EPOCH")
EOF
gzip -9nc "$work/changelog" >"$doc/changelog.gz"

mkdir -p "$root/DEBIAN" "$work/debian"
install -m755 -t "$root/DEBIAN" "$source"/{postinst,prerm,postrm}
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
# dpkg-shlibdeps wants the control file of a source package beside it.
printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$package" "$package" >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "$root/usr/bin/proxy-device" | sed -n 's/^shlibs:Depends=//p')
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@MAINTAINER@/$maintainer/" \
    -e "s/@LIBRARIES@/$libraries/; s/@SIZE@/$(du -sk --apparent-size "$root" | cut -f1)/" \
    "$source/control" >"$root/DEBIAN/control"
(cd "$root" && find usr lib -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/${package}_${version}_$architecture.deb" >&2
echo "$out/${package}_${version}_$architecture.deb"
