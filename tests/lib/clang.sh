#!/bin/bash
# Everything also builds with clang, without a warning.
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
command -v clang >/dev/null || skip_all "clang is not installed"
make -j"$(nproc)" CC=clang tests >build/clang.log 2>&1
rc=$?
[ $rc = 0 ] || grep -E 'error|warning|\*\*\*' build/clang.log | head -n 30 | sed 's/^/# /'
ok $rc "builds with clang"
done_testing
