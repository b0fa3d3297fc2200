# In the guest: the card, its agent, a pool and a VM over kernel sockets. Put it behind guest-target.sh.
#
#	card_up                        card and agent; the card knows itself as n1
#	pool_up EC NAME=ADDRESS...     a pool of these, each a failure domain of its own but those of one peer; a VM on it
#	vm_io NAME COMMAND OPTIONS...  parapet-io of the VM; its JSON is /tmp/NAME.json
#	vm_load NAME OPTIONS... / vm_load_end NAME    the same in the background, checked, without a second try
#	flash_all FILTER               a check over all devices of "flash show": the filter gives true for each
#	card_kill                      as a crash; card_start starts it again
export PARAPET_AGENT=/run/agent.sock
p() { parapet "$@"; }
j() { # FILTER ARGUMENTS...
	f=$1
	shift
	parapet --json "$@" | jq -r "$f"
}
until_true() { # SECONDS COMMAND...
	end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		sleep 0.3
	done
}
card_start() {
	ready=$(grep -c "info dpu: ready," /tmp/dpu.log 2>/dev/null)
	parapet-dpu --state /run/state --control /run/card.sock --map-memory 64M >>/tmp/dpu.log 2>&1 &
	dpu=$!
	until_true 60 card_ready
}
card_ready() { [ "$(grep -c "info dpu: ready," /tmp/dpu.log)" -gt "${ready:-0}" ]; }
vm_io() { # NAME COMMAND OPTIONS...
	io_name=$1
	io_command=$2
	shift 2
	timeout 100 parapet-io "$io_command" --addr 127.0.0.1:4501 --nqn nqn.2026-01.test:web1 --json "$@" >"/tmp/$io_name.json" 2>/tmp/io.err || {
		cat /tmp/io.err "/tmp/$io_name.json"
		return 1
	}
}
load_end_with() { # PID
	kill -INT "$1" 2>/dev/null
	wait "$1"
}
vm_load() {
	load_name=$1
	shift
	parapet-io write --addr 127.0.0.1:4501 --nqn nqn.2026-01.test:web1 --mix --time-limit 3600 --verify --json "$@" \
		>"/tmp/$load_name.json" 2>/tmp/load.err &
	load=$!
}
vm_load_end() {
	load_end_with $load
	load_rc=$?
	note "$1: $(jq -c '{ops, mixed_reads, checked_sectors, mismatches, statuses, max_ms: (.latency_us.max / 1000 | floor)}' "/tmp/$1.json")"
	return $load_rc
}
flash_all() { parapet --json flash show | jq -e "[.items[] | .card | $1] | all" >/dev/null; }
card_kill() {
	kill -9 $dpu
	wait $dpu 2>/dev/null
	rm -f /run/card.sock
}
connected() { parapet --json status | jq -e '.items[0].connected'; }
in_sync() { parapet --json status | jq -e '.items[0].state == "in-sync"'; }
card_up() {
	mkdir -p /run/state
	card_start || return 1
	parapet-agent --api $PARAPET_AGENT --store /run/agent.db >/tmp/agent.log 2>&1 &
	until_true 20 test -S $PARAPET_AGENT && p node add n1 --address unix:/run/card.sock >/dev/null && until_true 20 connected
}
pool_up() { # EC NAME=ADDRESS...
	ec=$1
	shift
	for f; do
		p flash add "${f%%=*}" --address "${f#*=}" --domain "${f%%=*}" >/tmp/flash.log 2>&1 || { cat /tmp/flash.log; return 1; }
	done
	p pool create --ec "$ec" --segment 1M >/tmp/pool.log 2>&1 || { cat /tmp/pool.log; return 1; }
	p vm add web1 --listen 127.0.0.1:4501 --nqn nqn.2026-01.test:web1 --data-flash "${f%%=*}" >/dev/null &&
		p device add web1 /dev/ecpool0 --size 16M --layout fragments >/dev/null && p ec set web1 --ec 1 >/dev/null && until_true 30 in_sync
}
# What the transport did for a device, or for all of them: the counters' sum.
wire_sum() { parapet --json stats | jq -c '[.stats[] | select((.object | startswith("flash ")) and (.name | startswith("wire.")))] | group_by(.name) | map({(.[0].name): (map(.value) | add)}) | add'; }
