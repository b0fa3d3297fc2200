#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two guests on one wire: the kernel's nvmet-rdma in one, our programs on libibverbs in the other. The target's guest is cut off like a machine
# without power while it is written to, and boots again.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/vm/guest.sh
guest_need
tp_begin
trap guest_end EXIT
start=$SECONDS
wire=$TP_DIR/wire
for i in 1 2; do truncate -s 128M "$TP_DIR/disk$i"; done
peer_boot() {
	guest_use two-peer
	GUEST_MEM=512M guest_start 280 -netdev "stream,id=n0,server=off,addr.type=unix,addr.path=$wire" \
		-device virtio-net-pci,netdev=n0,romfile=,mac=02:56:4d:00:02:01 \
		-drive "file=$TP_DIR/disk1,format=raw,if=none,id=d1" -device virtio-blk-pci,drive=d1,logical_block_size=4096,physical_block_size=4096 \
		-drive "file=$TP_DIR/disk2,format=raw,if=none,id=d2" -device virtio-blk-pci,drive=d2,logical_block_size=4096,physical_block_size=4096
}
guest_begin two-peer
guest_target rdma
guest_mods virtio_blk
guest_init tests/vm/guest-target.sh tests/vm/rdma_two_target.init
guest_begin two-card
guest_target rdma
guest_bin /usr/bin/jq "$BIN/parapet-io" "$BIN/parapet-dpu" "$BIN/parapet-agent" "$BIN/parapet"
guest_init tests/vm/guest-target.sh tests/vm/guest-rdma.sh tests/vm/guest-card.sh tests/vm/rdma_two.init
GUEST_MEM=1200M guest_start 280 -netdev "stream,id=n0,server=on,addr.type=unix,addr.path=$wire" \
	-device virtio-net-pci,netdev=n0,romfile=,mac=02:56:4d:00:02:02
tp_wait 20 test -S "$wire"
peer_boot
guest_wait_said ready 90
ok $? "the peer exports its disks"
guest_use two-card
guest_wait_said up 60 && guest_tell go
if guest_wait_said loading 150; then
	guest_use two-peer
	guest_kill
	ok 0 "the peer dies under load"
	sleep 3
	peer_boot
	guest_wait_said ready 90
	ok $? "and boots again"
	guest_use two-card
	guest_tell back
else
	ok 1 "the card's guest came as far as writing"
fi
guest_wait
guest_use two-peer
guest_stop
echo "# $((SECONDS - start)) s"
done_testing
