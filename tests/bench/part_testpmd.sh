#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# NVMe/TCP through the testpmd loopback: VM (namespace with a TAP) - testpmd - memif - card - lwIP - storage on memory; beside it a
# kernel TCP echo from the VM to the LAN behind the uplink, which goes through the card's bridge and crosses testpmd twice.
# Wall-clock figures of four programs that share the cores: for orientation.
set -u
cd "$(dirname "$0")/../.." || exit 1
PREFIXES=(nvme_tcp.testpmd.)
. tests/bench/lib.sh
TP_BASE=/run/parapet-bench
. tests/testpmd/lib.sh
CARD=10.1.0.1 LAN=10.1.0.3 NQN=nqn.2026-11.io.parapet:bench
COUNT=4000

wanted nvme_tcp.testpmd. || exit 0

cli() { "$BIN/parapet" --agent "$TP_DIR/agent.sock" "$@"; }
in_sync() { [ "$(cli status --json | jq -r '.items[0].state')" = in-sync ]; }
nsid_of() { # PATH
	cli device show --json | jq -r --arg p "$1" '.items[] | select(.path == $p) | .card.nsid // .nsid'
}
config() {
	local i
	printf 'nodes:\n  - name: n1\n    address: unix:%s\n    uplink: net_memif1\n    flashes:\n' "$TP_DIR/card.sock"
	for i in 0 1 2 3 4 5 6 7; do
		echo "      - {name: f$i, address: \"file:$FLASH/f$i\", domain: d$i}"
	done
	cat <<-EOT
	    pool: {ec: 4+2, segment_bytes: 1M}
	    vms:
	      - name: vm1
	        mode: flag
	        cores: 1
	        memory: 1G
	        data_flash: f0
	        vf: net_memif0
	        card_ip: $CARD/24
	        nqn: $NQN
	        devices: [{path: /dev/ecpool0, size: 64M, layout: fragments}, {path: /dev/normal0, size: 64M}]
	        ec: [{ec: 1}, {path: /dev/normal, ec: 0}]
	EOT
}
io() { # NAME DEVICE COMMAND OPTIONS...
	local name=$1 nsid=$2 out
	shift 2
	out=$(tp_run vm1 "$BIN/parapet-io" "$@" --addr $CARD --nqn $NQN --nsid "$nsid" --depth 32 --json) ||
		{ echo "bench: $name: parapet-io failed" >&2; return 1; }
	result "nvme_tcp.testpmd.$name.rate" "$(jq .mb_per_s <<<"$out")" MB/s
	result "nvme_tcp.testpmd.$name.iops" "$(jq .iops <<<"$out")" /s
}
echo_through() { # NAME BYTES
	local out
	out=$(tp_run vm1 "$BIN/parapet-bench" --echo-client $LAN "$port" "$2" 32 2) || return 1
	result "nvme_tcp.testpmd.$1.rate" "$(jq .mb_s <<<"$out")" MB/s
	result "nvme_tcp.testpmd.$1.iops" "$(jq .iops <<<"$out")" /s
}

tp_init
# Flash in memory: the storage is not what is measured.
FLASH=$(mktemp -d /dev/shm/parapet-bench.XXXXXX) || leave "no place for the flash files"
trap 'rm -rf "$FLASH"; tp_cleanup' EXIT
for i in 0 1 2 3 4 5 6 7; do truncate -s 192M "$FLASH/f$i"; done
tp_vf vm1 10.1.0.2/24
tp_vf lan $LAN/24
echo "NVMe/TCP through testpmd" >&2
tp_start
mkdir -p "$TP_DIR/state"
# shellcheck disable=SC2046
tp_spawn card "$TP_DIR/card.log" "$BIN/parapet-dpu" --state "$TP_DIR/state" --control "$TP_DIR/card.sock" \
	--uplink net_memif1 -- $(tp_eal)
tp_wait 30 test -S "$TP_DIR/card.sock" || { tail -5 "$TP_DIR/card.log" >&2; leave "the card did not start"; }
tp_spawn agent "$TP_DIR/agent.log" "$BIN/parapet-agent" --api "$TP_DIR/agent.sock" --store "$TP_DIR/agent.db"
tp_wait 10 test -S "$TP_DIR/agent.sock" || leave "the agent did not start"
config >"$TP_DIR/bench.yaml"
cli apply -f "$TP_DIR/bench.yaml" >&2 || leave "apply"
tp_wait 30 in_sync || leave "the tables did not reach the card"
plain=$(nsid_of /dev/normal0) protected=$(nsid_of /dev/ecpool0)

tp_spawn echo "$TP_DIR/echo.log" ip netns exec "$(tp_ns lan)" "$BIN/parapet-bench" --echo-server $LAN
tp_wait 10 grep -q ready "$TP_DIR/echo.log" || leave "the echo did not start"
port=$(sed -n 's/^ready //p' "$TP_DIR/echo.log")
echo_through echo.128k 131072
echo_through echo.4k 4096
io plain.write.128k "$plain" write --bs 128k --size 64M
io plain.write.4k "$plain" write --bs 4k --random --count $COUNT --generation 2
io protected.write.128k "$protected" write --bs 128k --size 64M
io protected.write.4k "$protected" write --bs 4k --random --count $COUNT --generation 2
io read.128k "$protected" verify --bs 128k --size 64M --generation 1..2
io read.4k "$protected" verify --bs 4k --random --count $COUNT --generation 1..2
