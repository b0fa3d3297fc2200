#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Devices as virtio-blk functions: a card on memory flash, pinned to one core, our own vhost-user driver on another; a bare streaming
# copy beside them on the card's core. Rates by the clock are reported; ratios are of bytes per CPU time of the card, which what else
# the machine does disturbs less. Sides run in turns; each figure is the median of its rounds.
set -u
cd "$(dirname "$0")/../.." || exit 1
PREFIXES=(vhost.)
. tests/bench/lib.sh
TP_BASE=/tmp/parapet-bench.$(id -u)
. tests/lib/procs.sh
MS=${BENCH_MS:-300}
FLASH=640M VOLUME=128M GUEST=320M # each larger than the caches

wanted vhost. || exit 0
two_cores
cli() { "$BIN/parapet" --agent "$TP_DIR/agent.sock" "$@"; }
in_sync() { [ "$(cli status --json | jq -r '.items[0].state')" = in-sync ]; }

ratio() { # NAME OVER UNDER [TARGET]: medians of bytes per CPU second
	result "$1" "$(jq -n "$(of "$2.cpu") / $(of "$3.cpu")")" "" "${4:-}"
}
card_cpu_ns() { cpu_ns "$card"; }

# ---- the card and its devices ----
setup() {
	local i
	tp_begin
	mkdir "$TP_DIR/state" "$TP_DIR/v"
	# shellcheck disable=SC2086
	tp_spawn card "$TP_DIR/card.log" taskset -c "${cores[0]}" "$BIN/parapet-dpu" --state "$TP_DIR/state" \
		--control "$TP_DIR/card.sock" -- --no-pci
	card=$(tp_pid card)
	tp_wait 30 grep -q 'info dpu: ready,' "$TP_DIR/card.log" || leave "not measured: $(tail -n 1 "$TP_DIR/card.log")"
	tp_spawn agent "$TP_DIR/agent.log" taskset -c "${cores[1]}" "$BIN/parapet-agent" --api "$TP_DIR/agent.sock" --store "$TP_DIR/agent.db"
	tp_wait 10 test -S "$TP_DIR/agent.sock" || leave "failed: the agent did not start"
	cli node add n1 --address "unix:$TP_DIR/card.sock" || leave "failed: node add"
	for i in 0 1 2 3 4 5 6; do
		cli flash add "f$i" --address "mem:$FLASH" --domain "d$i" || leave "failed: flash add"
	done
	tp_wait 10 sh -c "'$BIN/parapet' --agent '$TP_DIR/agent.sock' --json status | jq -e '.items[0].connected'"
	cli pool create --ec 4+2 || leave "failed: pool create"
	cli vm add vm1 --data-flash f0 --intermediate-flash f1 --vhost "$TP_DIR/v" || leave "failed: vm add"
	device plain --layout fragments
	device fragments --layout fragments
	device mirror --layout fragments --ec 1+1
	device copy --layout copy
	for i in fragments mirror copy; do
		cli ec set vm1 --path "/dev/$i" --ec 1 || leave "failed: ec set"
	done
	tp_wait 30 in_sync || leave "failed: the tables did not reach the card"
	tp_wait 10 test -S "$TP_DIR/v/vm1.${#sockets[@]}.sock" || leave "failed: no sockets"
}
declare -A sockets=()
device() { # NAME OPTIONS...
	local name=$1
	shift
	cli device add vm1 "/dev/${name}" --size $VOLUME "$@" || leave "failed: device add"
	sockets[$name]=$TP_DIR/v/vm1.$((${#sockets[@]} + 1)).sock
}

# ---- measuring ----
# Adds to MEASURE.cpu bytes per CPU second of the card, to .wall by the clock, to .iops.
drive() { # MEASURE DEVICE COMMAND OPTIONS...
	local m=$1 sock=${sockets[$2]}
	shift 2
	on_client "$BIN/vhost-io" "$sock" "$@" --spread --memory $GUEST --cpu-of "$card" --json >"$TP_DIR/out" 2>"$TP_DIR/err" ||
		leave "failed: $m: $(jq -c "{error, errors}" "$TP_DIR/out") $(tail -n 1 "$TP_DIR/err")"
	jq '.bytes / .cpu_ns * 1e9' "$TP_DIR/out" >>"$TP_DIR/$m.cpu"
	jq '.cpu_ns / .requests' "$TP_DIR/out" >>"$TP_DIR/$m.ns"
	jq .mb_per_s "$TP_DIR/out" >>"$TP_DIR/$m.wall"
	jq .iops "$TP_DIR/out" >>"$TP_DIR/$m.iops"
}
bare() { # MEASURE BYTES own|guest
	on_card "$BIN/parapet-bench" --bare-copy "$2" "$MS" "$3" | jq '.bytes / .cpu_ns * 1e9' >>"$TP_DIR/$1.cpu"
}
# 320 MiB of guest memory are touched once before the clock starts: the card has mapped them then.
options_of() { # 128k|4k
	case $1 in
	128k) echo "--block 128K --warm 2600 --count $((MS * 25))" ;;
	4k) echo "--block 4K --random --warm 84000 --count $((MS * 400))" ;;
	esac
}
# First as much as the log holds and more: the steady state is measured, on memory that has its pages.
fill() {
	local d
	for d in plain copy mirror fragments; do
		drive "fill.$d" $d bench-write --block 128K --depth 32 --count 2048
	done
	drive fill.log fragments bench-write --block 128K --depth 32 --count 24000
}
measure() { # SIZE
	local size=$1 opts d
	opts=$(options_of "$size")
	for _ in $(seq "$ROUNDS"); do
		bare "bare.$size" $((${size%k} * 1024)) own
		bare "bare.guest.$size" $((${size%k} * 1024)) guest
		for d in plain fragments mirror copy; do
			# shellcheck disable=SC2086
			drive "$d.$size" $d bench-write --depth 32 $opts
		done
		# shellcheck disable=SC2086
		drive "read.$size" plain bench-read --depth 32 $opts
	done
}
report() { # SIZE
	local size=$1 d name
	for d in plain fragments mirror copy read; do
		name=vhost.$d.$size
		[ $d != fragments ] || name=vhost.protected.$size
		[ $d != copy ] || name=vhost.protected.copy.$size
		result "$name.rate" "$(of "$d.$size.wall")" MB/s
		result "$name.cpu_rate" "$(jq -n "$(of "$d.$size.cpu") / 1e6")" MB/s
		result "$name.kiops" "$(jq -n "$(of "$d.$size.iops") / 1e3")" /ms
		result "$name.card_ns" "$(of "$d.$size.ns")" ns
	done
	result "vhost.bare.copy.$size" "$(jq -n "$(of "bare.$size.cpu") / 1e6")" MB/s
	result "vhost.bare.guest.copy.$size" "$(jq -n "$(of "bare.guest.$size.cpu") / 1e6")" MB/s
}

echo "vhost-user-blk" >&2
setup >"${BENCH_LOG:-/dev/null}"
fill
measure 128k
report 128k
ratio vhost.plain.128k.copy_ratio plain.128k bare.128k ">= 0.7"
ratio vhost.plain.128k.guest_copy_ratio plain.128k bare.guest.128k
ratio vhost.protected.128k.plain_ratio fragments.128k plain.128k ">= 0.55"
ratio vhost.protected.copy.128k.plain_ratio copy.128k plain.128k
ratio vhost.protected.128k.mirror_ratio fragments.128k mirror.128k ">= 0.9"
measure 4k
report 4k
ratio vhost.protected.4k.plain_ratio fragments.4k plain.4k ">= 0.5"
ratio vhost.protected.4k.mirror_ratio fragments.4k mirror.4k ">= 0.9"
