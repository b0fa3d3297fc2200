#!/bin/bash
# Fuzzes every decoder for FUZZ_SECONDS (default: 3) each, after replaying the corpus and all past findings under gcc's sanitizers.
# Prints TAP. Findings land in build/fuzz/findings; add them to tests/fuzz/corpus/NAME once they are understood.
#   tests/fuzz/fuzz.sh [NAME...]
set -u
unset MAKEFLAGS MFLAGS MAKELEVEL
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
seconds=${FUZZ_SECONDS:-3}
names=${*:-$(cd tests/fuzz && ls ./*_fuzz.c | sed -E 's,^\./(.*)_fuzz\.c$,\1,')}
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
mkdir -p build/fuzz/findings

build() { # WHAT MAKE-ARGUMENTS...
	local what=$1 rc
	shift
	make -j"$(nproc)" "$@" fuzz-bins >build/fuzz/build.log 2>&1
	rc=$?
	[ $rc = 0 ] || tail -n 20 build/fuzz/build.log | sed 's/^/# /'
	ok $rc "the fuzz targets build with $what"
	return $rc
}

show() { # RC LOG
	[ "$1" = 0 ] || tail -n 40 "$2" | sed 's/^/# /'
}

if build "gcc's sanitizers" CC=gcc SANITIZE=address,undefined; then
	for n in $names; do
		log=build/fuzz/$n.replay.log
		timeout 120 build/gcc-address-undefined/bin/fuzz/"$n" --mutate 100 tests/fuzz/corpus/"$n" >"$log" 2>&1
		rc=$?
		show $rc "$log"
		ok $rc "$n: corpus and past findings ($(tail -n 1 "$log" | cut -c1-100))"
	done
fi

if ! echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return 0; }' |
	clang -x c - -fsanitize=fuzzer,address -o build/fuzz/probe 2>/dev/null; then
	skip "searching with libFuzzer" "clang or its fuzzer runtime is not installed"
	done_testing
fi
if build "clang and libFuzzer" CC=clang SANITIZE=fuzzer-no-link,address,undefined; then
	for n in $names; do
		log=build/fuzz/$n.log
		mkdir -p build/fuzz/corpus/"$n"
		timeout $((seconds + 60)) build/clang-fuzzer-no-link-address-undefined/bin/fuzz/"$n" \
			-max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/findings/"$n"- build/fuzz/corpus/"$n" tests/fuzz/corpus/"$n" >"$log" 2>&1
		rc=$?
		show $rc "$log"
		ok $rc "$n: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
	done
fi
done_testing
