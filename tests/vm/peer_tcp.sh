#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The pool lies on an unmodified kernel target: Debian's nvmet-tcp in a guest exports the devices; card and agent run here. Namespaces go
# away and come back, connections drop, paths change, the card is killed; a VM writes meanwhile.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/vm/guest.sh
guest_need
own_network "$0" "$@"
. tests/smoke/system.sh
start=$SECONDS
NQN=nqn.2026-11.io.parapet:peer
PEER=10.78.0.2

[ -c /dev/net/tun ] && ip tuntap add q0 mode tap 2>/dev/null || skip_all "no TAP device can be made"
ip addr add 10.78.0.1/24 dev q0
ip link set q0 up
guest_begin peer
guest_target
guest_init tests/vm/guest-target.sh tests/vm/peer_tcp.init
GUEST_MEM=1300M guest_start 280 -netdev tap,id=n0,ifname=q0,script=no,downscript=no -device virtio-net-pci,netdev=n0,romfile=
start_node
guest_wait_said ready 60
ok $? "the guest exports its devices"

never_failed() { # FLASH...: since the card started
	local f
	for f; do ! grep -q "flash-failed: flash $f:" "$dir/dpu.log" || return 1; done
}
all_in_use() { [ "$(j '[.items[] | select(.card.state | IN("healthy", "suspect") | not)] | length' flash show)" = 0 ]; }
card_says() { j ".items[0].card.$1" pool show; } # FIELD
pool_whole() { [ "$(card_says state)" = online ] && [ "$(j '[.tasks[]? | select((.state == "running" or .state == "waiting") and .reason != "clean")] | length' task show)" = 0 ]; }
direct() { # COMMAND OPTIONS...: our initiator against the namespace that nobody has
	timeout 60 "$BIN/parapet-io" "$1" --addr $PEER:4420 --nqn $NQN --nsid 7 "${@:2}" >"$dir/io.out" 2>&1 || {
		sed 's/^/# io: /' "$dir/io.out"
		return 1
	}
}
disk_did() { # DISK FIELD: 1 reads, 2 writes, 3 discards, 4 flushes
	guest_does target_stat "$1" && grep -a "^SHOT $1-stat" "$GUEST_DIR/results" | tail -n 1 | tr -d '\r' | cut -d' ' -f$(($2 + 2))
}

# ---- the initiator alone --------------------------------------------------------------------------------------------
t "the kernel's namespace is written and read back" direct write --size 8M --bs 64k --verify --flush
t "with both digests" direct write --size 4M --bs mixed --seed 2 --digests hdr,data --verify
t "deallocate" direct trim --size 4M --bs 1M
t "... reached the device" test "$(disk_did d7 3)" -gt 0
t "write zeroes" direct zero --offset 4M --size 4M --bs 64k
t "... did, too" direct verify --zeros --offset 4M --size 4M --bs 64k

node_connected
# ---- a pool of them -------------------------------------------------------------------------------------------------
t "the card lists what the peer offers" test "$(j '[.found[].nsid] | length' flash discover $PEER:4420)" -ge 7
# Two devices have one way only: port 1.
both=$PEER:4420,$PEER:4421
i=0
for at in "$both/$NQN#1" "$PEER:4420/$NQN#2?ddgst" "$both/$NQN#3?hdgst&ddgst" "$PEER:4420/$NQN#4?hdgst" \
	"$both/$NQN#5?queues=2" "$both/$NQN#6"; do
	i=$((i + 1))
	p flash add "p$i" --address "nvme+tcp://$at" --domain "d$i" >/dev/null || bail "flash add p$i"
done
p pool create --ec 4+2 --segment 1M --same-flash >"$dir/out" 2>&1
ok $? "a pool of six namespaces"
[ $tap_bad = 0 ] || bail "$(cat "$dir/out")"
vm_add web1 1 --data-flash p1
p device add web1 /dev/ecpool0 --size 32M --layout fragments >/dev/null
p ec set web1 --ec 1 >/dev/null
t "a VM on it" in_sync
t "written and read back" io write web1 1 --size 16M --bs 64k --verify --flush
t "in pieces of all sizes" io write web1 1 --offset 16M --size 4M --bs mixed --seed 2 --verify --flush
t "there were full stripes" test "$(card_says 'stripes[] | select(.k == 4) | .stripes')" -gt 10
t "flushes reached the devices with a write cache" test "$(disk_did d2 4)" -gt 0

load_start web1 1 --size 32M --bs 64k --depth 4 --random --seed 11
sleep 1
t "a namespace is taken away" guest_does target_toggle $NQN 3 0
t "... its device fails" tp_wait 30 grep -q "flash-failed: flash p3:" "$dir/dpu.log"
sleep 1
t "it is there again" guest_does target_toggle $NQN 3 1
sleep 2
t "the VM saw no error, and all of it is right" load_end web1
t "the device has come back by itself" tp_wait 40 all_in_use
t "the pool is made whole" tp_wait 60 pool_whole

load_start web1 1 --size 32M --bs 64k --depth 4 --random --seed 12
sleep 1
t "port 1 is gone, and every connection over it" guest_does target_withdraw 1 $NQN
sleep 2
t "... and there again" guest_does target_export 1 $NQN
sleep 4
t "what has another way was not lost for it" never_failed p1 p5 p6
t "the preferred path of a namespace goes" guest_does target_ana_state 1 2 inaccessible
sleep 1
t "and the other one becomes the better" guest_does target_ana_state 2 2 optimized
sleep 1
t "that costs no device" never_failed p1 p5 p6
is "$(j '.items[] | select(.name == "p1") | .card.paths | map(.state) | join(" ")' flash show)" "inaccessible optimized" "its paths say so"
t "the VM saw no error, and all of it is right" load_end web1
t "the devices with one way have come back by themselves" tp_wait 40 all_in_use

losses() { j '[.stats[] | select(.name == "wire.losses") | .value] | add' stats; }
before=$(losses)
sleep 3 # idle: only keep-alive goes over the wire
is "$(losses)" "$before" "idle connections stay"
kill_dpu 9
start_dpu
node_connected
t "the card, killed and started, reads everything" io read web1 1 --size 32M --bs 64k
t "and writes" io write web1 1 --size 8M --bs 64k --seed 21 --verify --flush
kill_dpu TERM
is "$dpu_rc" 0 "the card ends cleanly"
guest_stop
echo "# $((SECONDS - start)) s"
done_testing
