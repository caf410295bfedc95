#!/bin/sh
# Evergreen: builds and runs the tests of the stack switch, without Swift.
# SPDX-License-Identifier: MIT
#
#   run.sh [native|aarch64]     (both if not said)
#
# Exits with 1 if a test fails, with 2 if something that it needs is missing.

set -eu
here=$(cd "$(dirname "$0")" && pwd)
core=$here/../../Sources/CGreenlet
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

needs() { # program, package
  command -v "$1" >/dev/null || { echo "run.sh: $1 is missing: apt-get install $2" >&2; exit 2; }
}

# compiler, runner, flags
run() {
  for test in registers unwind; do
    # shellcheck disable=SC2086
    $1 $3 -std=gnu11 -g -Wall -Wextra -Werror -I"$core" -o "$build/$test" \
      "$here/$test.c" "$here/patterned.S" \
      "$core/frame.c" "$core/switch-x86_64.S" "$core/switch-aarch64.S"
    printf '%s: ' "$3"
    $2 "$build/$test"
  done
}

native() {
  cc=${CC:-cc}
  needs "$cc" gcc
  run "$cc" "" -O0
  run "$cc" "" -O2
  case $(uname -m) in
    aarch64) run "$cc" "" "-O2 -mbranch-protection=standard" ;;
    x86_64) run "$cc" "" "-O2 -fcf-protection=full" ;;
  esac
}

aarch64() {
  needs aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
  needs qemu-aarch64 qemu-user
  echo 'int main(void) { return 0; }' >"$build/probe.c"
  aarch64-linux-gnu-gcc -static "$build/probe.c" -o "$build/probe" 2>/dev/null || {
    echo "run.sh: no C library for aarch64: apt-get install libc6-dev-arm64-cross" >&2
    exit 2
  }
  for flags in -O0 -O2 "-O0 -mbranch-protection=standard" "-O2 -mbranch-protection=standard"; do
    run "aarch64-linux-gnu-gcc -static" qemu-aarch64 "$flags"
  done
}

case ${1:-both} in
  native) native ;;
  aarch64) aarch64 ;;
  both) native; aarch64 ;;
  *) sed -n '4,6s/^# *//p' "$0" >&2; exit 2 ;;
esac
