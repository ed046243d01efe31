#!/usr/bin/env bash
# Runs the fuzz targets, each for so many seconds, and says what each did. A find stays in fuzz/artifacts and ends
# with 1. Installs cargo-fuzz into target/tools where it is missing; needs a C++ compiler.
#   run.sh SECONDS [TARGET...]
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?SECONDS}
shift
version=0.13.2

if ! command -v c++ >/dev/null 2>&1; then
  echo "missing: a C++ compiler, for libFuzzer" >&2
  echo "next: sudo apt-get install g++   (Debian; other systems name it alike)" >&2
  exit 2
fi
tools=$(cd .. && pwd)/target/tools
export PATH="$tools/bin:$PATH"
if [ "$(cargo-fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
  cargo install --quiet --locked --root "$tools" --version "$version" cargo-fuzz
fi

cargo fuzz build -s none
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
found=0
for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  log=$(mktemp)
  # What is found goes into the first folder; the seeds are only read.
  if cargo fuzz run -s none "$target" "corpus/$target" "seeds/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 >"$log" 2>&1; then
    outcome="nothing found"
  else
    outcome="FOUND: see fuzz/artifacts/$target"
    found=1
    grep -E "panicked|ERROR:|assertion|left:|right:|Base64" -A1 "$log" | head -20 >&2 || true
  fi
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  echo "$target: ${runs:-0} executions in ${seconds} s, $outcome"
  rm -f "$log"
done
exit "$found"
