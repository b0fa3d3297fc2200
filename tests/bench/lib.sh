# What the scripts of the bench share. Source it at the top of the tree, with PREFIXES: those of the names the script has figures for.
#
#   wanted NAME                       whether NAME (a prefix) was asked for on the command line; without arguments all are
#   result NAME VALUE UNIT [TARGET]   a figure for the table; a target is ">= X" or "< X"
#   leave TEXT                        says why there are no figures, and ends the script without failing it
#   median <FILE                      of numbers, one a line
#   of MEASURE                        the median of what was measured: "$TP_DIR/MEASURE"
#   two_cores                         the card's and the client's core, for on_card and on_client; leaves where there is one only
BIN=${BIN:-build/gcc/bin}
ROUNDS=${BENCH_ROUNDS:-5}
names=("$@")
[ $# != 0 ] || names=("${PREFIXES[@]}")

wanted() { # NAME
	local want
	for want in "${names[@]}"; do
		[[ $1 == "$want"* || $want == "$1"* ]] && return 0
	done
	return 1
}
result() { # NAME VALUE UNIT [TARGET]
	jq -cn --arg n "$1" --argjson v "$2" --arg u "$3" --arg t "${4:-}" '($t | split(" ")) as $w
		| {name: $n, value: ($v * 10000 | round / 10000), unit: $u, target: (if $t == "" then null else $t end),
		   ok: (if $t == "" then true elif $w[0] == ">=" then $v >= ($w[1] | tonumber) else $v < ($w[1] | tonumber) end)}'
}
leave() { # TEXT
	echo "bench: ${PREFIXES[0]%.}: $*" >&2
	exit 0
}
# In the words of tests/lib and tests/testpmd.
bail() { leave "failed: $*"; }
skip_all() { leave "not measured: $1"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
of() { median <"$TP_DIR/$1"; } # MEASURE
two_cores() {
	mapfile -t cores < <(taskset -cp $$ | sed 's/.*: //' | tr , '\n' |
		awk -F- '{ for (i = $1; i <= (NF > 1 ? $2 : $1); i++) print i }')
	[ ${#cores[@]} -ge 2 ] || leave "not measured: it takes two cores"
}
on_card() { taskset -c "${cores[0]}" "$@"; }
on_client() { taskset -c "${cores[1]}" "$@"; }
cpu_ns() { "$BIN/parapet-bench" --cpu-of "$1"; } # PID
