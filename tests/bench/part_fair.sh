#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fairness as VMs see it: two of them over vhost-user-blk, then over NVMe/TCP sockets, on a card pinned to one core, their drivers on another.
# Frontends have buffers of their own before the place where turns are taken; this says what comes through them.
#   fair.WAY.share_of_3.128k    both write all they can with weights 100 and 300: the bytes of the second over the first's, over 3.
#                               (With 4 KiB two drivers on one core do not fill the card: nobody waits for a turn.)
#   fair.WAY.light_ratio        writes a second of a light disk (4 KiB, one at a time) beside a heavy one of another VM, over beside one of its own VM
#   fair.WAY.heavy_kept         what the heavy one keeps of its rate beside a light one of another VM
#   fair.WAY.busy               how much of its core the card had while weights were measured
# All of one run; the card's counters and clock.
set -u
cd "$(dirname "$0")/../.." || exit 1
PREFIXES=(fair.)
. tests/bench/lib.sh
TP_BASE=/tmp/parapet-bench.$(id -u)
. tests/lib/procs.sh
NQN=nqn.2026-11.io.parapet
ROUNDS=${BENCH_ROUNDS:-3}
SPAN=2 # seconds of a look

wanted fair. || exit 0
two_cores
cli() { "$BIN/parapet" --agent "$TP_DIR/agent.sock" "$@"; }
in_sync() { [ "$(cli status --json | jq -r '.items[0].state')" = in-sync ]; }
free_port() {
	"$BIN/parapet-bench" --echo-server 127.0.0.1 >"$TP_DIR/port" &
	tp_wait 5 grep -q ready "$TP_DIR/port"
	kill $! && sed 's/ready //' "$TP_DIR/port"
}
declare -A port=()
setup() {
	local i vm
	tp_begin
	mkdir "$TP_DIR/state" "$TP_DIR/v"
	tp_spawn card "$TP_DIR/card.log" taskset -c "${cores[0]}" "$BIN/parapet-dpu" --state "$TP_DIR/state" --control "$TP_DIR/card.sock" -- --no-pci
	tp_wait 30 grep -q 'info dpu: ready,' "$TP_DIR/card.log" || leave "not measured: $(tail -n 1 "$TP_DIR/card.log")"
	tp_spawn agent "$TP_DIR/agent.log" taskset -c "${cores[1]}" "$BIN/parapet-agent" --api "$TP_DIR/agent.sock" --store "$TP_DIR/agent.db"
	tp_wait 10 test -S "$TP_DIR/agent.sock" || leave "failed: the agent did not start"
	cli node add n1 --address "unix:$TP_DIR/card.sock" || leave "failed: node add"
	for i in 0 1 2 3 4 5 6; do
		cli flash add "f$i" --address mem:512M --domain "d$i" || leave "failed: flash add"
	done
	tp_wait 10 sh -c "'$BIN/parapet' --agent '$TP_DIR/agent.sock' --json status | jq -e '.items[0].connected'"
	cli pool create --ec 4+2 || leave "failed: pool create"
	for vm in a b; do
		port[$vm]=$(free_port)
		cli vm add $vm --data-flash f0 --intermediate-flash f1 --vhost "$TP_DIR/v" --listen "127.0.0.1:${port[$vm]}" --nqn "$NQN:$vm" || leave "failed: vm add"
		for i in 1 2; do
			cli device add $vm "/dev/$vm$i" --size 64M --layout fragments || leave "failed: device add"
			cli ec set $vm --path "/dev/$vm$i" --ec 1 || leave "failed: ec set"
		done
	done
	tp_wait 30 in_sync || leave "failed: the tables did not reach the card"
	tp_wait 10 test -S "$TP_DIR/v/b.2.sock" || leave "failed: no sockets"
}

# ---- drivers ----
writes() { # WAY NAME VM DISK SIZE DEPTH: until it is ended
	local nsid
	if [ "$1" = vhost ]; then
		tp_spawn "$2" "$TP_DIR/$2.log" taskset -c "${cores[1]}" "$BIN/vhost-io" "$TP_DIR/v/$3.$4.sock" bench-write --block "$5" --random --depth "$6" \
			--ring 1024 --memory 128M --seconds 600
	else
		nsid=$(cli device show --json | jq -r --arg p "/dev/$3$4" '.items[] | select(.path == $p) | .card.nsid // .nsid')
		tp_spawn "$2" "$TP_DIR/$2.log" taskset -c "${cores[1]}" "$BIN/parapet-io" write --addr "127.0.0.1:${port[$3]}" --nqn "$NQN:$3" --nsid "$nsid" \
			--bs "${5,,}" --random --depth "$6" --time-limit 600
	fi
}
look() { # sets $busy
	local before
	sleep 1.5 # the window has found its size
	before=$(cpu_ns "$(tp_pid card)")
	cli top --once --interval $SPAN --sort name --json >"$TP_DIR/top" || leave "failed: top"
	busy=$(jq -n "($(cpu_ns "$(tp_pid card)") - $before) / ${SPAN}e9")
}
of_vm() { jq ".vms[] | select(.name == \"$1\") | $2" "$TP_DIR/top"; } # VM FILTER

weights() { # WAY DEPTH
	local i
	for i in $(seq "$ROUNDS"); do
		writes "$1" wa a 1 128K "$2"
		writes "$1" wb b 1 128K "$2"
		look
		jq -n "$(of_vm b .bytes_per_s) / $(of_vm a .bytes_per_s) / 3" >>"$TP_DIR/share.$1"
		echo "$busy" >>"$TP_DIR/busy.$1"
		tp_end wa
		tp_end wb
	done
	result "fair.$1.share_of_3.128k" "$(of "share.$1")" ""
	result "fair.$1.busy" "$(of "busy.$1")" ""
}
# The light one's rate is what its VM does beyond nothing, or beyond the heavy one of the same VM: requests of 4 KiB against 128 KiB.
light() { # WAY DEPTH
	local i alone beside other own
	for i in $(seq "$ROUNDS"); do
		writes "$1" heavy a 1 128K "$2"
		look
		alone=$(of_vm a .bytes_per_s)
		writes "$1" light b 1 4K 1
		look
		beside=$(of_vm a .bytes_per_s) other=$(of_vm b .write.iops)
		tp_end light
		writes "$1" light a 2 4K 1
		look
		# iops x 128 KiB - bytes = light x 124 KiB
		own=$(jq -n "($(of_vm a .write.iops) * 131072 - $(of_vm a .bytes_per_s)) / 126976")
		tp_end light
		tp_end heavy
		jq -n "$other / ([$own, 1] | max)" >>"$TP_DIR/light.$1"
		jq -n "$beside / $alone" >>"$TP_DIR/kept.$1"
	done
	result "fair.$1.light_ratio" "$(of "light.$1")" ""
	result "fair.$1.heavy_kept" "$(of "kept.$1")" ""
}

echo "fairness over frontends" >&2
setup >"${BENCH_LOG:-/dev/null}"
light vhost 256
light sockets 128
cli vm set b --weight 300 >/dev/null
cli vm set a --weight 100 >/dev/null
for way in vhost sockets; do
	depth=128
	[ $way != vhost ] || depth=256
	weights $way $depth
done
