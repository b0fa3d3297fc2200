# For smoke tests of agent and CLI: source it, then start_agent, start_twin, p (the CLI), j (the CLI with jq).
. tests/lib/tap.sh
. tests/lib/procs.sh
BIN=${BIN:-build/gcc/bin}
command -v jq >/dev/null || skip_all "jq is not installed"
tp_begin
dir=$TP_DIR # recorded processes and files go with it, also when this shell is killed
export PARAPET_AGENT=$dir/agent.sock
card=unix:$dir/card.sock
agent_pid='' twin_pid=''

cleanup() {
	[ $tap_bad = 0 ] || sed 's/^/# agent: /' "$dir/agent.log" 2>/dev/null | tail -n 40
	tp_cleanup
}
trap cleanup EXIT

# Processes of the test's own that must not outlive it.
ours() { # PID...
	local pid
	for pid; do tp_adopt "own$pid" "$pid"; done
}
# Repeats a command until it succeeds, for at most ten seconds.
wait_until() { # COMMAND...
	local i
	for i in $(seq 100); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}
p() { "$BIN/parapet" "$@"; }
j() { # FILTER ARGUMENTS...
	local filter=$1
	shift
	"$BIN/parapet" --json "$@" | jq -r "$filter"
}
# What `parapet` ends with.
rc_of() {
	"$BIN/parapet" "$@" >"$dir/out" 2>"$dir/err"
	echo $?
}
start_agent() {
	"$BIN/parapet-agent" --api "$PARAPET_AGENT" --store "$dir/agent.db" 2>>"$dir/agent.log" &
	agent_pid=$!
	tp_adopt agent $agent_pid
	wait_until test -S "$PARAPET_AGENT" || bail "parapet-agent does not start"
}
stop_agent() {
	kill "$agent_pid"
	wait "$agent_pid"
	agent_rc=$?
	agent_pid=''
}
start_twin() {
	"$BIN/card-twin" "$dir/card.sock" 2>>"$dir/twin.log" &
	twin_pid=$!
	tp_adopt twin $twin_pid
	wait_until test -S "$dir/card.sock" || bail "card-twin does not start"
}
kill_twin() {
	kill -9 "$twin_pid"
	wait "$twin_pid" 2>/dev/null
	twin_pid=''
}
state_is() { [ "$(j '.items[0].state' status)" = "$1" ]; }
