# For smoke tests of the whole system over sockets: source it instead of lib.sh. Agent, CLI, a real card, parapet-io.
. tests/smoke/lib.sh
dpu_pid='' dpu_args=''
tcp=$((20000 + RANDOM % 8000)) # VMs listen on this port and the ones above it

cleanup_system() {
	[ $tap_bad = 0 ] || sed 's/^/# card: /' "$dir/dpu.log" 2>/dev/null | tail -n 40
	cleanup
}
trap cleanup_system EXIT

flash_files() { # COUNT SIZE: $dir/f0 ...
	local i
	for ((i = 0; i < $1; i++)); do truncate -s "$2" "$dir/f$i"; done
}
start_dpu() {
	local before
	rm -f "$dir/card.sock"
	before=$(grep -c "info dpu: ready," "$dir/dpu.log" 2>/dev/null)
	# shellcheck disable=SC2086
	"$BIN/parapet-dpu" --state "$dir/state" --control "$dir/card.sock" $dpu_args >>"$dir/dpu.log" 2>&1 &
	dpu_pid=$!
	tp_adopt dpu $dpu_pid
	wait_until card_ready "${before:-0}" || bail "parapet-dpu does not start: $(tail -n 3 "$dir/dpu.log")"
}
# The control socket is there before the pool is open; the log says when VMs can come.
card_ready() { # TIMES BEFORE
	[ "$(grep -c "info dpu: ready," "$dir/dpu.log")" -gt "$1" ]
}
kill_dpu() { # SIGNAL
	kill "-$1" "$dpu_pid"
	wait "$dpu_pid" 2>/dev/null
	dpu_rc=$?
	dpu_pid=''
}
# Card and agent know each other.
start_node() {
	start_dpu
	start_agent
	p node add n1 --address "$card" >/dev/null || bail "node add"
}
node_connected() { wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"; }
# ... and the pool is made of the flash files.
start_system() { # COUNT SIZE K+M
	local i
	flash_files "$1" "$2"
	start_node
	for ((i = 0; i < $1; i++)); do
		p flash add "f$i" --address "file:$dir/f$i" --domain "d$i" >/dev/null || bail "flash add"
	done
	node_connected
	p pool create --ec "$3" --segment 1M >/dev/null || bail "pool create"
}
# A VM whose number is its place: listens on $tcp + N.
vm_add() { # NAME N OPTIONS...
	local name=$1 n=$2
	shift 2
	p vm add "$name" --listen "127.0.0.1:$((tcp + n))" --nqn "nqn.2026-01.test:$name" "$@" >/dev/null
}
# parapet-io against a VM of vm_add().
io() { # COMMAND VM N OPTIONS...
	local cmd=$1 vm=$2 n=$3
	shift 3
	timeout 120 "$BIN/parapet-io" "$cmd" --addr "127.0.0.1:$((tcp + n))" --nqn "nqn.2026-01.test:$vm" "$@" \
		>"$dir/io.out" 2>&1 || {
		local rc=$?
		sed 's/^/# io: /' "$dir/io.out"
		return $rc
	}
}
# The same in the background, checking what it writes until load_end; NAME may be what you like. VMs see no error: nothing is tried again.
load_start() { # VM N OPTIONS...
	local vm=$1 n=$2
	shift 2
	"$BIN/parapet-io" write --addr "127.0.0.1:$((tcp + n))" --nqn "nqn.2026-01.test:$vm" --mix --time-limit 86400 --verify --json "$@" \
		>"$dir/load.$vm" 2>"$dir/load.$vm.err" &
	load_pid[$vm]=$!
	tp_adopt "load-$vm" $!
}
declare -A load_pid=()
load_runs() { kill -0 "${load_pid[$1]}" 2>/dev/null; }
load_end() { # VM: 0 when nothing went wrong and all that was written is right
	local rc
	kill -INT "${load_pid[$1]}" 2>/dev/null
	wait "${load_pid[$1]}"
	rc=$?
	[ $rc = 0 ] || { tail -n 5 "$dir/load.$1.err"; jq -c '{statuses, findings}' "$dir/load.$1"; } | sed 's/^/# load: /'
	echo "# $1: $(jq -c '{ops, mixed_reads, checked_sectors, mismatches, max_ms: (.latency_us.max / 1000 | floor)}' "$dir/load.$1")"
	return $rc
}
flash_state() { j ".items[] | select(.name == \"$1\") | .card.state // .state" flash show; }
flash_has_state() { [ "$(flash_state "$1")" = "$2" ]; } # FLASH STATE
# A counter of the card.
stat_of() { # OBJECT NAME
	j ".stats[] | select(.object == \"$1\" and .name == \"$2\") | .value" stats
}
in_sync() {
	wait_until state_is in-sync && return 0
	p status | sed 's/^/# /'
	return 1
}
