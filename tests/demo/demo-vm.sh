#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A virtual machine whose disks are the card's: Debian's kernel in QEMU, its stock virtio-blk driver on vhost-user-blk sockets. It writes, two
# flash devices break, the card is killed; the VM has every byte. The last line is DEMO-VM OK.
set -u
cd "$(dirname "$0")/../.." || exit 1
BIN=${BIN:-build/gcc/bin}
TP_BASE=${TMPDIR:-/tmp}/parapet-demo-vm.$(id -u)
. tests/lib/tap.sh
. tests/vm/guest.sh
. tests/demo/steps.sh
LOST=(f0 f1)

skip_all() { # what guest_need calls when something cannot be had
	echo "parapet demo-vm: $1"
	echo "DEMO-VM SKIPPED"
	exit 0
}
bail() { fail "$@"; }

card_start() {
	tp_spawn card "$TP_DIR/card.log" "$BIN/parapet-dpu" --state "$TP_DIR/state" --control "$TP_DIR/card.sock" --map-memory 64M -- --no-pci
	tp_wait 30 test -S "$TP_DIR/card.sock" || fail "the card did not start"
}
config() {
	local i
	cat <<-EOT
	nodes:
	  - name: n1
	    address: unix:$TP_DIR/card.sock
	    flashes:
	EOT
	for i in 0 1 2 3 4 5 6 7; do echo "      - {name: f$i, address: \"file:$FLASH_DIR/f$i\", domain: d$i}"; done
	cat <<-EOT
	    pool: {ec: 4+2, on_degraded: allow, segment_bytes: 1M}
	    vms:
	      - name: vm1
	        mode: flag
	        memory: 640M
	        data_flash: f7
	        vhost: $TP_DIR/vhost
	        devices: [{path: /dev/ecpool0, size: 128M, layout: fragments}, {path: /dev/normal0, size: 64M}]
	        ec: [{ec: 1}, {path: /dev/normal, ec: 0}]
	EOT
}
in_vm() { # LINE: shown, done in the VM, and what it printed
	local n said rc
	echo "vm1# $1"
	n=$(($(grep -ac '^SHOT did-' "$GUEST_DIR/results") + 1))
	said=$(grep -ac '^SAY ' "$GUEST_DIR/results")
	guest_tell "$1" && guest_wait_said "did-$n" 90 || fail "the VM does not answer: $(tail -n 5 "$GUEST_DIR/console" "$GUEST_DIR/qemu.log")"
	grep -a '^SAY ' "$GUEST_DIR/results" | tail -n "+$((said + 1))" | sed 's/^SAY //' | tr -d '\r'
	rc=$(grep -a "^SHOT did-$n " "$GUEST_DIR/results" | tr -d '\r' | cut -d' ' -f3)
	[ "$rc" = 0 ] || fail "in the VM: $1"
}
counted() { cli stats --json | jq -r --arg n "vhost.$1" '[.stats[] | select(.object == "vm vm1" and .name == $n) | .value] | add // 0'; }
busy() { [ "$(counted in_flight)" -ge 2 ]; }
wrote_more() { [ "$(counted writes)" -ge 8 ]; }
verify() { in_vm 'sync; echo 3 >/proc/sys/vm/drop_caches; cd /mnt && sha256sum -c /tmp/sums && cd /'; }

bring_up() {
	step "a card (parapet-dpu) with eight flash files, 4+2, and the host agent; a VM with two devices, as vhost-user-blk sockets"
	flash_files
	mkdir -p "$TP_DIR/state" "$TP_DIR/vhost"
	card_start
	tp_spawn agent "$TP_DIR/agent.log" "$BIN/parapet-agent" --api "$TP_DIR/agent.sock" --store "$TP_DIR/agent.db"
	tp_wait 10 test -S "$TP_DIR/agent.sock" || fail "the agent did not start"
	config >"$TP_DIR/demo.yaml"
	shown apply -f "$TP_DIR/demo.yaml"
	tp_wait 30 in_sync || fail "the tables did not reach the card"
	ls "$TP_DIR/vhost"
	shown explain vm1 /dev/ecpool0 --card
	shown explain vm1 /dev/normal0 --card
	[ "$(cli explain vm1 /dev/ecpool0 --card --json | jq -r .outcome)" = protect ] || fail "writes would not be protected"
}

boot() {
	step "the VM: QEMU (software emulation), Debian's kernel $GUEST_KVER, its own virtio_blk"
	guest_begin vm1
	guest_bin /usr/sbin/mke2fs /usr/sbin/e2fsck /usr/sbin/fstrim /usr/sbin/blkdiscard /usr/bin/dd
	guest_mods virtio_pci virtio_console virtio_net virtio_blk ext4 crc32c_generic
	guest_init tests/demo/demo-vm.init
	local attach
	shown vm attach-xml vm1
	mapfile -t attach < <(cli vm attach-xml vm1 --json | jq -r '.memory_qemu[], .devices[].qemu[]')
	GUEST_MEM=640M guest_start 600 "${attach[@]}"
	guest_wait_said ready 120 || { tail -n 10 "$GUEST_DIR/console" "$GUEST_DIR/qemu.log" >&2; fail "the VM did not start"; }
	in_vm 'uname -sr; grep . /sys/block/vd?/serial /sys/block/vd?/size /sys/block/vd?/queue/write_cache'
}

write_in_vm() {
	step "the VM writes: ext4 on the protected disk, files, checksums"
	in_vm 'mke2fs -q -t ext4 /dev/vda && mount -t ext4 -o discard /dev/vda /mnt'
	in_vm 'for i in 1 2 3 4; do dd if=/dev/urandom of=/mnt/file$i bs=64k count=$((i * 32)) conv=fsync 2>/dev/null || break; done; ls -l /mnt'
	in_vm 'cd /mnt && sha256sum file? | tee /tmp/sums; cd /'
	step "where it went: fragments on six of eight flash devices, no second copy anywhere"
	shown flash show
	shown pool show
	local wide
	wide=$(cli pool show --json | jq '[.. | .stripes? // empty | arrays | .[] | select(.k == 4 and .m == 2) | .stripes] | add // 0')
	[ "$wide" -gt 0 ] || fail "no full 4+2 stripe was written"
	[ "$(cli flash show --json | jq '[.items[].card.written.data // 0] | add')" = 0 ] || fail "something was written to a data area"
	echo "full 4+2 stripes: $wide; requests the VM made: $(counted writes) writes, $(counted flushes) flushes"
}

break_flash() {
	local f
	step "two flash devices break under the VM: ${LOST[*]}"
	for f in "${LOST[@]}"; do shown flash fail "$f"; done
	shown status
	verify
	step "it goes on writing; what the two held is made again on the others"
	in_vm 'dd if=/dev/urandom of=/mnt/file5 bs=64k count=64 conv=fsync 2>/dev/null && cd /mnt && sha256sum file5 | tee -a /tmp/sums; cd /'
	for f in $(tasks_of rebuild); do watch_tasks "$f"; done
	shown task show
	verify
}

kill_under_it() {
	step "the card is killed (SIGKILL) while the VM writes, and started again: a pause, not an error"
	in_vm '(for i in $(seq 40); do dd if=/mnt/file4 of=/mnt/copy bs=64k conv=fsync 2>&1 || echo bad; done >/tmp/copying) & echo $! >/tmp/pid'
	tp_wait 10 busy
	tp_end card KILL
	rm -f "$TP_DIR/card.sock" "${LOST[@]/#/$FLASH_DIR/}"
	card_start
	tp_wait 40 wrote_more || fail "the VM does not write after the restart"
	echo "requests that were in flight and were taken up again: $(counted resumed_requests)"
	in_vm 'while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.5; done; ! grep -iE "bad|error" /tmp/copying && cmp /mnt/file4 /mnt/copy && echo "40 copies, no error"'
	verify
	in_vm 'umount /mnt && e2fsck -fn /dev/vda && ! dmesg | grep -iE "I/O error|EXT4-fs error"'
}

guest_need
tp_begin
trap guest_end EXIT
SECONDS=0
bring_up
boot
write_in_vm
break_flash
kill_under_it
guest_tell end
wait "$GUEST_PID"
[ $? = 1 ] || fail "the VM did not end well"
step "summary"
echo "a VM with its stock driver; what it wrote survived the loss of ${LOST[*]} and a SIGKILL of the card"
echo "$SECONDS seconds"
echo "DEMO-VM OK"
