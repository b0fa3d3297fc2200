#!/bin/bash
# Builds the unit and model tests with sanitizers and runs them. Prints TAP: one line a program.
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
kinds=${1:-address,undefined}
bin=build/gcc-${kinds//,/-}/bin
make -j"$(nproc)" SANITIZE="$kinds" CC=gcc tests-unit >build/sanitize.log 2>&1
rc=$?
ok $rc "builds with SANITIZE=$kinds"
[ $rc = 0 ] || { tail -n 30 build/sanitize.log | sed 's/^/# /'; done_testing; }
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
export CMOCKA_MESSAGE_OUTPUT=TAP PARAPET_SHORT=1
for t in "$bin"/unit/*_test; do
	out=$(timeout 300 "$t" 2>&1 </dev/null)
	rc=$?
	[ $rc = 0 ] || tail -n 40 <<<"$out" | sed 's/^/# /'
	if [ $rc = 77 ]; then
		skip "${t##*/} under $kinds" "$(tail -n 1 <<<"$out")"
	else
		ok $rc "${t##*/} under $kinds"
	fi
done
done_testing
