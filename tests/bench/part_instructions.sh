#!/bin/bash
# Instructions per 4 KiB write through pipeline, volume, queue and log, counted by callgrind on the program as built.
#   part_instructions.sh           prints the figures for the table
#   part_instructions.sh --tap     holds them against instructions.ceiling (a test)
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
BIN=${BIN:-build/gcc/bin}
FEW=1000 MANY=5000

# The least of three: on a busy machine a run may close batches by age in the middle of a round.
count() { # WHAT WRITES
	local i
	for i in 1 2 3; do
		valgrind --tool=callgrind --callgrind-out-file=/dev/null "$BIN/parapet-bench" --count "$1" "$2" 2>&1 |
			sed -n 's/.*Collected : //p'
	done | sort -n | head -n 1
}
per_write() { # WHAT
	local few many
	few=$(count "$1" $FEW) many=$(count "$1" $MANY)
	[ -n "$few" ] && [ -n "$many" ] && echo $(((many - few) / (MANY - FEW)))
}

if ! command -v valgrind >/dev/null; then
	[ "${1:-}" = --tap ] && skip_all "valgrind is not installed"
	exit 0
fi
if [ "${1:-}" = --tap ]; then
	while read -r what ceiling; do
		got=$(per_write "$what")
		echo "# $what: ${got:-nothing} instructions per write, at most $ceiling"
		t "a $what write of 4 KiB takes at most $ceiling instructions" [ "${got:-999999999}" -le "$ceiling" ]
	done < <(grep -v '^#' tests/bench/instructions.ceiling)
	done_testing
fi
for what in plain protected; do
	name=pipeline.$what.4k.instructions
	for want in "${@:-$name}"; do
		[[ $name == "$want"* ]] || continue
		ceiling=$(sed -n "s/^$what //p" tests/bench/instructions.ceiling)
		got=$(per_write $what) || continue
		ok=$([ "$got" -le "$ceiling" ] && echo true || echo false)
		echo "{\"name\":\"$name\",\"value\":$got,\"unit\":\"\",\"target\":\"<= $ceiling\",\"ok\":$ok}"
		break
	done
done
