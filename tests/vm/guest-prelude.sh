#!/bin/busybox sh
# Stands before every guest's init: mounts, modules' path, and how results reach the host.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/usr/sbin:/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
modprobe -a virtio_pci virtio_console virtio_net
results=/tmp/results
for i in 1 2 3 4 5 6 7 8 9 10; do
	for p in /sys/class/virtio-ports/*; do
		[ "$(cat "$p/name" 2>/dev/null)" = results ] && results=/dev/$(basename "$p")
	done
	[ "$results" = /tmp/results ] || break
	sleep 0.2
done
exec 9>"$results"
for p in /sys/class/virtio-ports/*; do
	[ "$(cat "$p/name" 2>/dev/null)" = ask ] && ask=/dev/$(basename "$p")
done
result() { # RC TEXT
	rc=$1
	shift
	[ "$rc" = 0 ] || { echo "FAILED: $*"; dmesg | tail -n 15; }
	[ "$rc" = 0 ] || rc=1
	echo "RESULT $rc $* ($(cut -d" " -f1 /proc/uptime) s)" >&9
}
note() { echo "NOTE $*" >&9; }
shot() { echo "SHOT $*" >&9; }
# Waits for the next word of the host.
guest_asked() { head -n 1 <"$ask"; }
finish() {
	sync
	printf '\000' | dd of=/dev/port bs=1 seek=$((0xf4)) count=1 2>/dev/null
	poweroff -f
}
ip link set lo up
