#!/bin/bash
# The performance table: runs every bench, prints the table, writes build/bench.json (a list of
# {"name","value","unit","target","ok"}). Arguments: prefixes of the names wanted; default: all.
# A target that is missed is said; with BENCH_STRICT=1 it is exit 1 as well.
set -u
cd "$(dirname "$0")/../.." || exit 1
export BIN=${BIN:-build/gcc/bin}
out=build/bench.json
lines=$(mktemp)
trap 'rm -f "$lines"' EXIT

"$BIN/parapet-bench" "$@" >>"$lines" || exit 1
for part in tests/bench/part_*.sh; do
	[ -x "$part" ] && "$part" "$@" >>"$lines"
done

jq -s . "$lines" >"$out" || exit 1
echo
jq -r '.[] | [.name, .value, .unit, (.target // "-"), (if .target == null then "" elif .ok then "ok" else "MISSED" end)] | @tsv' "$out" |
	awk -F'\t' 'BEGIN { printf "%-46s %12s %-10s %-10s\n", "name", "value", "unit", "target" }
		{ printf "%-46s %12s %-10s %-10s %s\n", $1, $2, $3, $4, $5 }'
missed=$(jq '[.[] | select(.ok | not)] | length' "$out")
echo "$(jq length "$out") figures in $out, $missed targets missed"
[ "$missed" = 0 ] || [ "${BENCH_STRICT:-0}" = 0 ]
