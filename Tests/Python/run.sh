#!/usr/bin/env bash
# Evergreen: runs tests of Python's own with and without `evergreen run`, and compares test by test.
# SPDX-License-Identifier: MIT
#
#   Tests/Python/run.sh [DIRECTORY-OF-EVERGREEN [TEST...]]
#
# Whatever passes, fails or is skipped is to do so in both: this Python's own failures do not count.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

bin=${1:-.build/debug}
tests=("${@:2}")
((${#tests[@]})) || tests=(test_select test_poll test_selectors test_socket test_subprocess)
python=${PYTHON:-/usr/bin/python3}

"$python" -c 'import test.test_socket' 2>/dev/null || {
  echo "$python has no tests: apt-get install libpython3-testsuite" >&2
  exit 2
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# try NAME COMMAND...: what became of each test, in $work/NAME. Not the sockets of virtual machines: what those
# find depends on who else runs on this one.
try() {
  timeout 600 "${@:2}" "$python" -m test --timeout 300 -i '*VSOCK*' --junit-xml "$work/$1.xml" "$test" \
    >"$work/$1.log" 2>&1 </dev/null || true
  "$python" - "$work/$1.xml" >"$work/$1" 2>>"$work/$1.log" <<'PYTHON' || true
import sys
import xml.etree.ElementTree as xml

for case in sorted(xml.parse(sys.argv[1]).iter("testcase"), key=lambda case: case.get("name")):
    ends = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
    print(case.get("name"), *ends or ["passed"])
PYTHON
}

status=0
for test in "${tests[@]}"; do
  try plain env &
  try patched "$bin/evergreen" run -- &
  wait
  if [[ ! -s $work/plain ]]; then
    echo "$test: does not run: $(tail -n 1 "$work/plain.log")"
    status=1
  elif diff "$work/plain" "$work/patched" >"$work/difference"; then
    echo "$test: $(wc -l <"$work/plain") tests end alike"
  else
    echo "$test: without (<) and with the patch (>):"
    cat "$work/difference"
    tail -n 40 "$work/patched.log"
    status=1
  fi
done
exit $status
