#!/usr/bin/env bash
# Installs Debian packages that are not there yet: `scripts/packages.sh COMMAND=PACKAGE ...`; COMMAND may be a path.
set -euo pipefail

missing=()
for pair in "$@"; do
  command=${pair%%=*} package=${pair#*=}
  command -v "$command" >/dev/null 2>&1 || compgen -G "$command" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null </dev/null
