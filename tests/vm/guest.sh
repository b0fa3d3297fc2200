# Test guests: Debian's kernel and an initramfs of Debian's and our programs, under QEMU's software emulation.
# Source it after tests/lib/tap.sh (and tests/testpmd/lib.sh). What is downloaded is kept in $GUEST_CACHE, outside the tree.
#
#	guest_need                            host packages and the kernel, or the whole test is skipped with the reason
#	guest_begin NAME                      a new, empty initramfs tree
#	guest_bin PATH...                     programs with the libraries they need
#	guest_lib PATH...                     libraries that are opened at run time, kept where they are
#	guest_file SRC DST                    one file
#	guest_mods NAME...                    kernel modules with what they depend on
#	guest_verbs                           libibverbs and librdmacm with the provider of rdma_rxe
#	guest_target [rdma]                   what a guest needs that exports flash devices (guest-target.sh, inside it)
#	guest_vhost SOCKET[,PROPERTY=V...]... vhost-user-blk disks: fills GUEST_VHOST, options for guest_start; the memory is shared with the card
#	guest_init FILE...                    the script that is the guest's test (several are put one behind the other); guest-prelude.sh comes first
#	guest_boot SECONDS QEMU-OPTIONS...    builds, boots, waits; its RESULT lines become TAP; the log is $GUEST_DIR/console
#	guest_start / guest_wait              the same in two halves, for tests that do things meanwhile
#	guest_kill                            as a power cut; guest_start boots it again. guest_collect before that: its results so far
#	guest_does COMMAND...                 a guest that serves (target_serve in it) does it; its exit status
#	guest_monitor COMMAND...              commands to QEMU's monitor, one each; what it says (with guest_vhost)
#	guest_stop                            ends such a guest, and collects
#	guest_use NAME                        with several guests: the one that is meant from now on
#
# In the guest: result RC TEXT (one check), note TEXT, shot KEY [VALUE] (tells the host), guest_asked (the next line of the host: guest_tell),
# finish. A guest that exports flash devices: guest-target.sh.

. tests/lib/procs.sh
. tests/lib/netns.sh
GUEST_CACHE=${GUEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/parapet/guest}
guest_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

guest_host_packages() {
	local want have missing
	want=$(grep -v '^#' "$guest_here/packages.txt")
	have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' | sed -n 's/ installed$//p' | sort -u)
	missing=$(comm -23 <(sort -u <<<"$want") <(cat <<<"$have"))
	[ -z "$missing" ] && return 0
	[ "$(id -u)" = 0 ] || return 1
	# shellcheck disable=SC2086
	{ apt-get -o DPkg::Lock::Timeout=300 update -qq &&
		DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing; } >&2
}

# Unpacks Debian's current kernel once: $GUEST_CACHE/VERSION/{vmlinux,lib/modules/VERSION}.
guest_kernel() {
	local pkg dir deb off
	pkg=$(apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
	if [ -z "$pkg" ]; then
		apt-get update -qq >&2 || return 1
		pkg=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
		[ -n "$pkg" ] || return 1
	fi
	GUEST_KVER=${pkg#linux-image-}
	dir=$GUEST_CACHE/$GUEST_KVER
	GUEST_KERNEL=$dir/vmlinux GUEST_MODULES=$dir
	[ -f "$dir/ready" ] && return 0
	rm -rf "$dir" "$dir.part"
	mkdir -p "$dir.part" || return 1
	(cd "$dir.part" && chmod 777 . && apt-get download -qq "$pkg" >&2) || return 1
	deb=$(echo "$dir.part"/*.deb)
	dpkg-deb -x "$deb" "$dir.part" || return 1
	rm -f "$deb"
	[ -d "$dir.part/lib/modules" ] || { mkdir -p "$dir.part/lib" && mv "$dir.part/usr/lib/modules" "$dir.part/lib/"; }
	depmod -b "$dir.part" "$GUEST_KVER" || return 1
	# The ELF image inside the bzImage boots faster (PVH) than the bzImage.
	off=$(LC_ALL=C grep -abo -m 1 -P '\xfd7zXZ\x00' "$dir.part/boot/vmlinuz-$GUEST_KVER" | head -n 1 | cut -d: -f1)
	if [ -n "$off" ]; then
		tail -c +$((off + 1)) "$dir.part/boot/vmlinuz-$GUEST_KVER" | xz -dc --single-stream >"$dir.part/vmlinux" 2>/dev/null
	fi
	readelf -h "$dir.part/vmlinux" >/dev/null 2>&1 || cp "$dir.part/boot/vmlinuz-$GUEST_KVER" "$dir.part/vmlinux"
	touch "$dir.part/ready"
	mv "$dir.part" "$dir"
}

guest_need() {
	guest_host_packages || skip_all "the guest's host packages (tests/vm/packages.txt) cannot be installed"
	mkdir -p "$GUEST_CACHE" || skip_all "$GUEST_CACHE cannot be made"
	exec 8>"$GUEST_CACHE/lock"
	flock 8
	guest_kernel || skip_all "Debian's kernel package cannot be downloaded"
	flock -u 8
}

declare -A GUEST_PIDS=()
guest_use() {
	GUEST_NAME=$1
	GUEST_DIR=${TMPDIR:-/tmp}/parapet-guest-$1.$$
	GUEST_TREE=$GUEST_DIR/tree
	GUEST_PID=${GUEST_PIDS[$1]:-}
}

guest_begin() {
	local d
	[ -n "${TP_DIR:-}" ] || tp_begin
	guest_use "$1"
	echo "$GUEST_DIR" >"$TP_DIR/guest-$1.dir"
	rm -rf "$GUEST_DIR"
	mkdir -m 700 "$GUEST_DIR" || bail "$GUEST_DIR cannot be made"
	for d in bin sbin dev proc sys tmp run etc lib lib64 mnt root usr/bin usr/sbin usr/lib var; do
		mkdir -p "$GUEST_TREE/$d"
	done
	ln -s /run "$GUEST_TREE/var/run"
	cp /bin/busybox "$GUEST_TREE/bin/busybox"
	: >"$GUEST_DIR/mods"
}

guest_file() {
	mkdir -p "$GUEST_TREE/$(dirname "$2")"
	cp -L "$1" "$GUEST_TREE/$2"
}

guest_needs_of() { # the files ldd names
	ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' | while read -r lib; do
		[ -e "$GUEST_TREE/$lib" ] || guest_file "$lib" "$lib"
	done
}

guest_bin() {
	local b
	for b in "$@"; do
		guest_file "$b" "/usr/bin/$(basename "$b")"
		chmod 755 "$GUEST_TREE/usr/bin/$(basename "$b")"
		guest_needs_of "$b"
	done
}

guest_lib() {
	local l
	for l in "$@"; do
		guest_file "$l" "$l"
		guest_needs_of "$l"
	done
}

guest_verbs() {
	local d=/usr/lib/x86_64-linux-gnu
	guest_lib $d/libibverbs/librxe-rdmav34.so $d/librdmacm.so.1
	guest_file /etc/libibverbs.d/rxe.driver /etc/libibverbs.d/rxe.driver
	guest_bin /usr/bin/rdma
}

guest_target() { # [rdma]: what guest-target.sh needs in the guest
	guest_mods virtio_pci virtio_console virtio_net nvmet nvmet-tcp null_blk configfs crc32c_generic
	[ "${1:-}" = rdma ] || return 0
	guest_verbs
	guest_mods nvmet-rdma rdma_rxe rdma_ucm ib_uverbs crc32_generic # rxe asks for crc32 at run time
}

guest_vhost() {
	local disk i=0 ram=${GUEST_MEM:-640M}
	ram=${ram%%,*} # "640M,slots=2,maxmem=2G" has room for more
	GUEST_VHOST=(-object "memory-backend-memfd,id=ram,size=$ram,share=on" -machine memory-backend=ram
		-qmp "unix:$GUEST_DIR/monitor,server=on,wait=off")
	for disk; do
		GUEST_VHOST+=(-chardev "socket,id=vb$i,path=${disk%%,*},reconnect=1")
		GUEST_VHOST+=(-device "vhost-user-blk-pci,id=disk$i,chardev=vb$i,romfile=${disk#"${disk%%,*}"}")
		i=$((i + 1))
	done
}

guest_mods() {
	local m f
	for m in "$@"; do
		echo "$m" >>"$GUEST_DIR/mods"
		modprobe -d "$GUEST_MODULES" -S "$GUEST_KVER" --show-depends "$m" 2>/dev/null | awk '$1 == "insmod" { print $2 }' |
			while read -r f; do
				f=${f#"$GUEST_MODULES"}
				[ -e "$GUEST_TREE/$f" ] || guest_file "$GUEST_MODULES/$f" "$f"
			done
	done
}

guest_init() {
	cat "$guest_here/guest-prelude.sh" "$@" >"$GUEST_TREE/init"
	chmod 755 "$GUEST_TREE/init"
}

guest_pack() {
	local d=$GUEST_TREE/lib/modules/$GUEST_KVER f
	[ -d "$GUEST_TREE" ] || return 0 # it boots again
	mkdir -p "$d"
	for f in modules.order modules.builtin modules.builtin.modinfo; do
		cp "$GUEST_MODULES/lib/modules/$GUEST_KVER/$f" "$d/"
	done
	depmod -b "$GUEST_TREE" "$GUEST_KVER"
	mkdir -p "$GUEST_TREE/etc"
	ldconfig -r "$GUEST_TREE" 2>/dev/null
	(cd "$GUEST_TREE" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet | gzip -1) >"$GUEST_DIR/initramfs"
	rm -rf "$GUEST_TREE"
}

guest_start() { # SECONDS QEMU-OPTIONS...; GUEST_WRAP: words before qemu (ip netns exec ...)
	local limit=$1
	shift
	guest_pack
	: >"$GUEST_DIR/results"
	rm -f "$GUEST_DIR/ask.in" "$GUEST_DIR/ask.out"
	mkfifo "$GUEST_DIR/ask.in" "$GUEST_DIR/ask.out"
	# shellcheck disable=SC2086
	${GUEST_WRAP:-} timeout -k 5 "$limit" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -smp 2 \
		-m "${GUEST_MEM:-640M}" -nodefaults -no-user-config -no-reboot -display none \
		-kernel "$GUEST_KERNEL" -initrd "$GUEST_DIR/initramfs" \
		-append "console=ttyS0 quiet panic=-1 ${GUEST_APPEND:-}" \
		-serial "file:$GUEST_DIR/console" \
		-device virtio-serial-pci -chardev "file,id=res,path=$GUEST_DIR/results" \
		-device virtserialport,chardev=res,name=results \
		-chardev "pipe,id=ask,path=$GUEST_DIR/ask" -device virtserialport,chardev=ask,name=ask \
		-device isa-debug-exit,iobase=0xf4,iosize=0x04 "$@" 2>"$GUEST_DIR/qemu.log" &
	GUEST_PID=$!
	GUEST_PIDS[$GUEST_NAME]=$GUEST_PID
	tp_adopt "guest-$GUEST_NAME" $GUEST_PID # timeout: it passes the signal on to QEMU
}

guest_kill() {
	kill -KILL -- "-$GUEST_PID" 2>/dev/null # timeout leads a process group
	wait "$GUEST_PID" 2>/dev/null
}

guest_tell() { # WORD: to a guest that runs
	kill -0 "$GUEST_PID" 2>/dev/null && timeout 5 sh -c 'echo "$1" >"$2"' - "$1" "$GUEST_DIR/ask.in"
}

guest_monitor() {
	jq -nc '{execute: "qmp_capabilities"}, ($ARGS.positional[] | {execute: "human-monitor-command", arguments: {"command-line": .}})' --args "$@" |
		socat -t 1 - "UNIX-CONNECT:$GUEST_DIR/monitor" | jq -r '.return? | strings, (.desc? // empty)' | tr -d '\r'
}

guest_does() { # COMMAND...: a guest in target_serve does it; its answer is ours
	local n
	n=$(($(grep -ac '^SHOT did-' "$GUEST_DIR/results") + 1)) # one at a time
	guest_tell "$*" && guest_wait_said "did-$n" 20 && grep -aq "^SHOT did-$n 0" "$GUEST_DIR/results"
}

guest_stop() {
	guest_tell end
	guest_wait
}

guest_said() { # KEY: has the guest told us (shot KEY)?
	grep -aq "^SHOT $1\b" "$GUEST_DIR/results"
}

guest_wait_said() { # KEY SECONDS
	local i
	for ((i = 0; i < $2 * 5; i++)); do
		guest_said "$1" && return 0
		kill -0 "$GUEST_PID" 2>/dev/null || return 1
		sleep 0.2
	done
	return 1
}

guest_collect() {
	local word code text
	while read -r word code text; do
		[ "$word" = RESULT ] && ok "$code" "$text"
		[ "$word" = NOTE ] && echo "# $code $text"
	done < <(tr -d '\r' <"$GUEST_DIR/results")
}

guest_wait() { # collects the results; a guest that did not reach its end is a failure
	local rc
	wait "$GUEST_PID"
	rc=$?
	guest_collect
	# isa-debug-exit turns the value v into exit status 2v + 1; the prelude writes 0.
	[ "$rc" = 1 ]
	ok $? "the guest came to its end (QEMU's status $rc)"
	if [ "$rc" != 1 ]; then
		tail -n 30 "$GUEST_DIR/console" "$GUEST_DIR/qemu.log" | sed 's/^/# /'
	fi
}

guest_boot() {
	guest_start "$@"
	guest_wait
}

guest_end() { # the test's EXIT trap
	[ -z "${KEEP:-}" ] || [ -z "${TP_DIR:-}" ] || rm -f "$TP_DIR"/guest-*.dir
	[ -z "${TP_DIR:-}" ] || tp_cleanup
}
