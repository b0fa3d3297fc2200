#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a card costs that has nothing to do: CPU time over 5 s, as a part of one core.
#   idle.core_fraction          a connected vhost-user-blk disk, and a TAP as the VF of another VM (receive interrupts)
#   idle.memif.core_fraction    a memif as the VF: it has no interrupts, and is looked at for ever
set -u
cd "$(dirname "$0")/../.." || exit 1
PREFIXES=(idle.)
. tests/bench/lib.sh
TP_BASE=/run/parapet-bench
. tests/testpmd/lib.sh
CARD=10.1.0.1 NQN=nqn.2026-11.io.parapet:bench SECONDS_IDLE=5

wanted idle. || exit 0
tp_init
two_cores
cli() { "$BIN/parapet" --agent "$TP_DIR/$who.sock" "$@"; }
status() { cli status --json | jq -e ".items[0]$1" >/dev/null; }
in_sync() { status '.state == "in-sync"'; }
a_disk_is_connected() { status '.card.vms[] | .vhost[]? | .connected'; }

card() { # WHO COMMAND...: a card and its agent, with flash and a pool
	local i
	who=$1
	shift
	mkdir "$TP_DIR/$who"
	tp_spawn "$who" "$TP_DIR/$who.log" taskset -c "${cores[0]}" "$@"
	tp_wait 30 grep -q 'info dpu: ready,' "$TP_DIR/$who.log" || leave "not measured: $(tail -n 1 "$TP_DIR/$who.log")"
	tp_spawn "$who-agent" "$TP_DIR/agent.log" "$BIN/parapet-agent" --api "$TP_DIR/$who.sock" --store "$TP_DIR/$who.db"
	tp_wait 10 test -S "$TP_DIR/$who.sock" || leave "failed: the agent did not start"
	cli node add n1 --address "unix:$TP_DIR/$who.control" || leave "failed: node add"
	for i in 0 1 2 3; do
		cli flash add "f$i" --address mem:128M --domain "d$i" || leave "failed: flash add"
	done
	tp_wait 10 status .connected || leave "failed: the agent does not reach the card"
	cli pool create --ec 2+1 || leave "failed: pool create"
}
vm() { # NAME OPTIONS...
	cli vm add "$@" --data-flash f0 --intermediate-flash f1 || leave "failed: vm add"
	cli device add "$1" "/dev/$1" --size 64M || leave "failed: device add"
	tp_wait 30 in_sync || leave "failed: the tables did not reach the card"
}
dpu() { # WHO
	echo "$BIN/parapet-dpu --state $TP_DIR/$1 --control $TP_DIR/$1.control --"
}
idle() { # NAME [TARGET]
	local before
	sleep 2
	before=$(cpu_ns "$(tp_pid "$who")")
	sleep $SECONDS_IDLE
	result "$1" "$(jq -n "($(cpu_ns "$(tp_pid "$who")") - $before) / ${SECONDS_IDLE}e9")" "" "${2:-}"
}

echo "idle" >&2
exec 3>&1 >"${BENCH_LOG:-/dev/null}"
tp_namespace tap
mkdir "$TP_DIR/v"
# shellcheck disable=SC2046
card tap ip netns exec "$(tp_ns tap)" $(dpu tap) --no-pci --vdev net_tap0,iface=eth0
vm net --vf net_tap0 --card-ip $CARD/24 --nqn $NQN
vm virtio --vhost "$TP_DIR/v"
tp_wait 10 test -S "$TP_DIR/v/virtio.1.sock" || leave "failed: no socket"
tp_spawn driver "$TP_DIR/driver.log" "$BIN/vhost-io" "$TP_DIR/v/virtio.1.sock" grow
tp_wait 10 a_disk_is_connected || leave "failed: the driver does not connect"
idle idle.core_fraction "< 0.02" >&3
tp_end driver
tp_end tap

tp_vf vm1 10.1.0.2/24
tp_start
# shellcheck disable=SC2046
card memif $(dpu memif) $(tp_eal)
vm net --vf net_memif0 --card-ip $CARD/24 --nqn $NQN
tp_wait 20 tp_run vm1 "$BIN/parapet-io" identify --addr $CARD --nqn $NQN || leave "failed: the card is not seen through testpmd"
idle idle.memif.core_fraction >&3
