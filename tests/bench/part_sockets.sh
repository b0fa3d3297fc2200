#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# NVMe/TCP over kernel sockets on this machine: the storage stack on memory behind the target on one core, parapet-io as the initiator on
# another; beside it a bare TCP echo of messages as large. Sides run in turns, each figure is the median of its rounds. Rates by the clock are of
# two programs that share the machine with all others: for orientation. Ratios are of bytes per CPU time of the server's process; an
# echo moves each byte twice, a write or a read once.
set -u
cd "$(dirname "$0")/../.." || exit 1
PREFIXES=(nvmetcp.sockets. read.)
. tests/bench/lib.sh
. tests/lib/procs.sh
TP_BASE=/tmp/parapet-bench.$(id -u)
NQN=nqn.2026-11.io.parapet:bench
SIDES=(plain protected read)

declare -A port=()
start() { # SIDE ARGS...: a server on the card's core
	local side=$1
	shift
	tp_spawn "$side" "$TP_DIR/$side.log" taskset -c "${cores[0]}" "$BIN/parapet-bench" "$@"
	tp_wait 60 grep -q '^ready' "$TP_DIR/$side.log" || leave "failed: $* did not start: $(tail -n 1 "$TP_DIR/$side.log")"
	port[$side]=$(sed -n 's/^ready //p' "$TP_DIR/$side.log")
}
io() { # SIDE COMMAND OPTIONS...
	local side=$1
	shift
	on_client "$BIN/parapet-io" "$@" --addr "127.0.0.1:${port[$side]}" --nqn $NQN --json
}

# Reads with their CRC checked over reads without: the target changes over every 8 MiB.
crc_ratio() { # NAME BYTES COUNT DEPTH
	local json
	start reads --serve reads
	io reads read --depth "$4" --bs "$2" --count "$3" >/dev/null || leave "failed: $1: parapet-io"
	tp_end reads
	json=$(tail -n 1 "$TP_DIR/reads.log")
	echo "  $1: $json" >&2
	jq -c --arg n "$1" '{name: $n, value: .ratio, unit: "", target: ">= 0.9", ok: (.slices >= 50 and .ratio >= 0.9)}' <<<"$json"
}

# Adds to MEASURE.rate, .iops and .cpu: bytes per CPU second of the server.
keep() { # MEASURE SERVER CPU-BEFORE MB_PER_S IOPS BYTES
	echo "$4" >>"$TP_DIR/$1.rate"
	echo "$5" >>"$TP_DIR/$1.iops"
	jq -n "$6 / ($(cpu_ns "$(tp_pid "$2")") - $3) * 1e9" >>"$TP_DIR/$1.cpu"
}
echo_once() { # SIZE
	local out before
	before=$(cpu_ns "$(tp_pid echo)")
	out=$(on_client "$BIN/parapet-bench" --echo-client 127.0.0.1 "${port[echo]}" $((${1%k} * 1024)) 32 1) || leave "failed: echo"
	keep "echo.$1" echo "$before" "$(jq .mb_s <<<"$out")" "$(jq .iops <<<"$out")" "$(jq .bytes <<<"$out")"
}
io_once() { # SIDE SIZE ROUND
	local server=$1 out before opts command=write
	case $2 in
	128k) opts=(--bs 128k --count 2048) ;;
	4k) opts=(--bs 4k --random --count 32768) ;;
	esac
	[ "$1" != read ] || { server=plain command=read; }
	before=$(cpu_ns "$(tp_pid "$server")")
	out=$(io "$server" $command "${opts[@]}" --depth 32 --generation "$3") || leave "failed: $1.$2: parapet-io"
	keep "$1.$2" "$server" "$before" "$(jq .mb_per_s <<<"$out")" "$(jq .iops <<<"$out")" "$(jq .bytes <<<"$out")"
}
report() { # SIZE
	local side
	for side in echo "${SIDES[@]}"; do
		result "nvmetcp.sockets.$side.$1.rate" "$(of "$side.$1.rate")" MB/s
		result "nvmetcp.sockets.$side.$1.iops" "$(of "$side.$1.iops")" /s
		result "nvmetcp.sockets.$side.$1.cpu_rate" "$(jq -n "$(of "$side.$1.cpu") / 1e6")" MB/s
	done
	for side in "${SIDES[@]}"; do
		result "nvmetcp.sockets.$side.$1.echo_ratio" "$(jq -n "$(of "$side.$1.cpu") / $(of "echo.$1.cpu")")" ""
	done
	result "nvmetcp.sockets.protected.$1.plain_ratio" "$(jq -n "$(of "protected.$1.cpu") / $(of "plain.$1.cpu")")" ""
}

wanted nvmetcp.sockets. || wanted read.crc_ratio || exit 0
two_cores
tp_begin
if wanted read.crc_ratio; then
	crc_ratio read.crc_ratio 4096 300000 32
	crc_ratio read.crc_ratio.128k 131072 12288 8
fi
wanted nvmetcp.sockets. || exit 0
echo "NVMe/TCP over kernel sockets" >&2
start echo --echo-server 127.0.0.1
start plain --serve plain
start protected --serve protected
# First writes are another thing than the rewrites that are measured.
for side in plain protected; do
	io $side write --bs 128k --count 1024 --depth 32 >/dev/null || leave "failed: $side: parapet-io"
done
for size in 128k 4k; do
	for round in $(seq "$ROUNDS"); do
		echo_once $size
		for side in "${SIDES[@]}"; do io_once "$side" $size $((round + 1)); done
	done
	report $size
done
