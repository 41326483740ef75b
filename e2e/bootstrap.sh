#!/usr/bin/env bash
# What even the first step needs: a Python that can make virtual environments. Installs it on Debian as root.
set -euo pipefail

has_python() {
    python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

has_python && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Tunesmith needs Python 3.11 or later with its venv module: install them, then run this again." >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends python3 python3-venv ca-certificates git
has_python || { echo "This system's python3 is older than 3.11: install a newer one." >&2; exit 1; }
