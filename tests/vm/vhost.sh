#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The card as a VM's disks: Debian's virtio-blk in a QEMU guest on the card's vhost-user-blk sockets, one disk protected with a split ring, one
# plain with a packed one, and NVMe/TCP to the same card beside them. Partitions, ext4, trim, growing, memory and a disk that come and go, a reboot; under writes the VM moves to the
# card's other shard and back, and the card is killed again and again, once in the middle of a move; then another VM process with the rings the other way round, which is killed, too.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/vm/guest.sh
guest_need
own_network "$0" "$@"
. tests/smoke/system.sh
begin=$SECONDS
KILLS_MIN=5 KILLS_MAX=12
dpu_args='--shards 2 -- --no-pci'
start_system 8 512M 4+2 # a shard has half of each
mkdir "$dir/vh" || bail "$dir/vh"
vm_add web1 1 --vhost "$dir/vh" --data-flash f0 --mode flag
{
	p device add web1 /dev/ecpool0 --size 96M --block 512 --layout fragments &&
		p device add web1 /dev/normal0 --size 48M &&
		p device add web1 /dev/ecpool1 --size 48M --layout fragments &&
		p ec set web1 --ec 1 && p ec set web1 --path /dev/normal --ec 0
} >"$dir/out" 2>&1 || bail "$(cat "$dir/out")"
in_sync
ok $? "a VM with three devices, as virtio-blk and over NVMe/TCP"
is "$(for d in ecpool0 normal0 ecpool1; do j .outcome explain web1 /dev/$d --card; done | xargs)" "protect plain protect" "two are protected, one is not"
is "$(cd "$dir/vh" && echo ./*)" "./web1.1.sock ./web1.2.sock ./web1.3.sock" "each has its socket"

# What the VM must see, read from what the card says.
device() { j ".items[] | select(.path == \"$1\") | .card.$2" device show; } # PATH MEMBER
serial() { device "$1" nguid | tr -d - | cut -c 1-20; }
count() { stat_of "vm web1" "vhost.$1"; }
did() { [ "$(count "$1")" -gt 0 ]; }
at_least() { [ "$(count "$1")" -ge "$2" ]; } # COUNTER N

shard_of() { j '.items[0].shard' vm show; }
all_connected() { [ "$(count connected)" = 2 ]; }

guest_begin vhost
guest_bin /usr/sbin/nvme /usr/sbin/mke2fs /usr/sbin/e2fsck /usr/sbin/resize2fs /usr/sbin/fstrim /usr/sbin/blkdiscard /usr/bin/dd
guest_mods virtio_pci virtio_console virtio_net virtio_blk nvme-tcp ext4 crc32c_generic
guest_init tests/vm/vhost.init
words="a=$(serial /dev/ecpool0) b=$(serial /dev/normal0) c=$(device /dev/ecpool1 nguid | tr -d -) port=$((tcp + 1)) nqn=nqn.2026-01.test:web1"
net=(-netdev user,id=n0 -device "virtio-net-pci,netdev=n0,romfile=")

# ---- a VM, and the card that is killed under it ---------------------------------------------------------------------
GUEST_MEM=640M,slots=1,maxmem=2G
second="num-queues=1,packed=on,bus=hot"
guest_vhost "$dir/vh/web1.1.sock,num-queues=2" "$dir/vh/web1.2.sock,$second"
GUEST_APPEND="$words arings=split brings=packed memhp_default_state=online" guest_start 300 -device pcie-root-port,id=hot,chassis=1,slot=1 "${net[@]}" "${GUEST_VHOST[@]}" -action reboot=reset
if guest_wait_said grow 100; then
	p device grow web1 /dev/normal0 64M >/dev/null
	ok $? "a disk grows while the VM has it mounted"
fi
if guest_wait_said memory 60; then # Linux prefers memory above 4 GB: from now on requests lie there
	guest_monitor "object_add memory-backend-memfd,id=more,size=256M,share=on" "device_add pc-dimm,id=dimm,memdev=more" >/dev/null
	ok $? "the VM is given memory while it runs"
fi
unplugged() { # QEMU lets go of the disk some time after the guest has
	guest_monitor "chardev-remove vb1" >/dev/null
	! guest_monitor "info chardev" | grep -q ^vb1
}
if guest_wait_said unplug 60; then
	guest_monitor "device_del disk1" >/dev/null
	guest_wait_said plug 30 && tp_wait 20 unplugged &&
		guest_monitor "chardev-add socket,id=again,path=$dir/vh/web1.2.sock,reconnect=1" \
			"device_add vhost-user-blk-pci,id=disk1,chardev=again,romfile=,$second" | sed -n 's/^./# QEMU: &/p'
	ok $? "a disk is taken out of the running VM and put in again"
fi
if guest_wait_said ready 150; then
	for c in reads writes flushes discards write_zeroes get_ids; do
		t "the card has had requests of this kind: $c" did $c
	done
	is "$(count failed_requests) $(count unsupported_requests) $(count broken_rings)" "0 0 0" "none failed, no ring was broken"
	# Down on one shard, up on the other: QEMU finds new sockets in the place of the old, and its rings and inflight areas as the first shard left them.
	home=$(shard_of)
	for to in $((1 - home)) "$home"; do
		tp_wait 3 at_least in_flight 3
		task=$(j '.tasks[0].id' shard move web1 "$to")
		p task watch "$task" >/dev/null
		ok $? "the VM moves to shard $to while it writes"
		is "$(shard_of)" "$to" "it is there"
		t "both its disks are connected again" tp_wait 15 all_connected
		t "and it writes there" tp_wait 30 at_least writes 100
		is "$(count resumed_requests)" 0 "nothing was left over: each request ended where it began"
		is "$(count failed_requests) $(count unsupported_requests) $(count broken_rings)" "0 0 0" "none failed, no ring was broken"
		j "select(.kind == \"task-done\") | .text" events | tail -n 1 | sed 's/^/# /'
	done
	guest_tell moved
	guest_wait_said looked 60
	ok $? "the guest has looked at its disks"
	p task limits --ceiling 1MB/s >/dev/null
	task=$(j '.tasks[0].id' shard move web1 $((1 - home)))
	moves() { [ "$(j ".tasks[] | select(.id == $task) | (.state == \"running\" or .state == \"waiting\") and .bytes > 0" task show)" = true ]; }
	t "a move is in its middle" tp_wait 20 moves
	kill_dpu KILL
	start_dpu
	t "when the card is killed and starts again: the VM writes" tp_wait 30 at_least writes 40
	is "$(shard_of) $(j '[.shards[].devices] | add' shard show)" "$home 3" "where it was, and its devices are there once"
	p task limits --ceiling none >/dev/null
	kills=0 resumed=$(count resumed_requests)
	while [ $kills -lt $KILLS_MIN ] || { [ "$resumed" = 0 ] && [ $kills -lt $KILLS_MAX ]; }; do
		tp_wait 3 at_least in_flight 3
		kill_dpu KILL
		start_dpu
		kills=$((kills + 1))
		tp_wait 30 at_least writes 40 || break
		resumed=$((resumed + $(count resumed_requests)))
	done
	[ $kills -ge $KILLS_MIN ]
	ok $? "the card is killed under the VM's writes and starts again, $kills times"
	[ "$resumed" -gt 0 ]
	ok $? "requests that were in flight then were taken up again: $resumed"
	guest_tell stop
else
	ok 1 "the guest came as far as writing"
fi
guest_wait

# ---- another process, other rings, on the other shard -----------------------------------------------------------------------
p task watch "$(j '.tasks[0].id' shard move web1 $((1 - home)))" >/dev/null
is "$? $(shard_of)" "0 $((1 - home))" "the VM moves while it is off"
GUEST_MEM=640M
guest_vhost "$dir/vh/web1.1.sock,num-queues=1,packed=on,queue-size=256" "$dir/vh/web1.2.sock,num-queues=3"
GUEST_APPEND="$words arings=packed brings=split" guest_start 100 "${net[@]}" "${GUEST_VHOST[@]}"
guest_wait_said ready 90
ok $? "the guest came as far as writing"
tp_wait 3 at_least in_flight 3
guest_kill
guest_collect
idle() { [ "$(count in_flight) $(count connected)" = "0 0" ]; }
t "the VM's process is killed under its writes: nothing of it stays with the card" tp_wait 10 idle
GUEST_APPEND="$words arings=packed brings=split" guest_boot 100 "${net[@]}" "${GUEST_VHOST[@]}"
is "$(count failed_requests) $(count unsupported_requests) $(count broken_rings)" "0 0 0" "no request failed, no ring was broken"
wide=$(j '[.. | .stripes? // empty | arrays | .[] | select(.k == 4) | .stripes] | add // 0' pool show)
[ "$wide" -gt 0 ]
ok $? "what the VM wrote became 4+2 stripes: $wide"
kill_dpu TERM
is "$dpu_rc" 0 "the card ends cleanly"
echo "# $((SECONDS - begin)) s"
done_testing
