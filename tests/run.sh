#!/bin/bash
# Runs test suites and sums up. Every test program prints TAP ("ok 1 - what", "not ok 2 - what",
# "ok 3 - what # SKIP reason") and exits 0; 77 skips it as a whole, with the reason as its last line.
#   tests/run.sh all              every suite of tests/suites, in order
#   tests/run.sh NAME...          these suites; NAME/TEST: one test of a suite, as its line names it
# A suite is a line of tests/suites: NAME  TIMEOUT_S  COMMAND; a COMMAND of "@unit" stands for all
# programs in $BIN/unit, "@DIR" for all executable *.sh in tests/DIR.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
export BIN=${BIN:-build/gcc/bin}
logs=build/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
skips=() failures=()

count() { # NAME RC LOG
	local name=$1 rc=$2 log=$3 p f s
	s=$(grep -cE '^ok .*# [Ss][Kk][Ii][Pp]' "$log")
	p=$(($(grep -cE '^ok ' "$log") - s))
	f=$(grep -cE '^not ok ' "$log")
	if [ "$rc" = 77 ]; then
		s=$((s + 1))
		skips+=("$name: $(tail -n 1 "$log")")
	elif [ "$rc" != 0 ] && [ "$f" = 0 ]; then
		f=1
		failures+=("$name: exit $rc (log: $log)")
	elif [ "$rc" = 0 ] && [ $((p + f + s)) = 0 ]; then
		f=1
		failures+=("$name: ran no test (log: $log)")
	fi
	while read -r line; do failures+=("$name: $line"); done < <(grep -E '^not ok ' "$log")
	while read -r line; do skips+=("$name: $line"); done < <(grep -E '^ok .*# [Ss][Kk][Ii][Pp]' "$log")
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	printf '  %-44s %4d passed %3d failed %3d skipped\n' "$name" "$p" "$f" "$s"
	if [ "$f" != 0 ]; then
		echo "---- last lines of $log"
		tail -n "${FAIL_LINES:-40}" "$log" | sed 's/^/    /'
	fi
}

one() { # NAME TIMEOUT COMMAND
	local name=$1 limit=$2 cmd=$3 log
	log=$logs/${name//\//_}.log
	CMOCKA_MESSAGE_OUTPUT=TAP timeout -k 10 "$limit" bash -c "$cmd" >"$log" 2>&1 </dev/null
	count "$name" $? "$log"
}

suite() { # NAME TIMEOUT COMMAND [ONLY]
	local name=$1 limit=$2 cmd=$3 only=${4:-} t0=$SECONDS t base ran=0
	echo "== $name"
	case $cmd in
	@unit) set -- "$BIN"/unit/* ;;
	@*) set -- tests/"${cmd#@}"/*.sh ;;
	*) set -- ;;
	esac
	if [ $# = 0 ] && [ -z "$only" ]; then
		ran=1
		one "$name" "$limit" "$cmd"
	fi
	for t in "$@"; do
		base=$(basename "$t" .sh)
		[ -x "$t" ] && { [ -z "$only" ] || [ "$only" = "$base" ]; } || continue
		ran=1
		one "$name/$base" "$limit" "$t"
	done
	if [ $ran = 0 ]; then
		failed=$((failed + 1))
		failures+=("$name${only:+/$only}: there is no such program, nothing was run")
	fi
	echo "== $name: $((SECONDS - t0)) s"
}

known=0
while read -r name limit cmd; do
	case $name in '' | '#'*) continue ;; esac
	for want in "$@"; do
		if [ "$want" = all ] || [ "${want%%/*}" = "$name" ]; then
			known=1
			case $want in
			*/*) suite "$name" "$limit" "$cmd" "${want#*/}" ;;
			*) suite "$name" "$limit" "$cmd" ;;
			esac
		fi
	done
done <tests/suites
[ $known = 1 ] || { echo "no such suite: $*; tests/suites lists them" >&2; exit 2; }

echo
echo "total: $SECONDS s"
for f in "${failures[@]}"; do echo "FAILED  $f"; done
for s in "${skips[@]}"; do echo "skipped $s"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
