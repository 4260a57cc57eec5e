#!/usr/bin/env bash
# Installs the package of scripts/deb.sh in a bare Debian, lets it check its configuration, run and
# code a photo, removes it, and looks at what is left. Usage: scripts/deb_check.sh PACKAGE
set -euo pipefail
cd "$(dirname "$0")/.."

package=$(realpath "$1")
echo "$(basename "$package"): $(($(stat -c %s "$package") / 1000)) kB, the program in it $(($(stat -c %s target/images/bin/proxy-device 2>/dev/null || echo 0) / 1000)) kB"
