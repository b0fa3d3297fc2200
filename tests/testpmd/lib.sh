# The loopback: VMs as network namespaces, their VFs as TAPs that one dpdk-testpmd carries to memif sockets, where the
# card (any program on DPDK) attaches as client. Source it after tap.sh; everything it starts ends with the shell.
#
#   tp_init                       checks what is needed (else skips), removes what killed runs left behind
#   tp_vf NAME [IP/PREFIX]        a VF: namespace $(tp_ns NAME), interface eth0, memif socket $TP_DIR/NAME.sock
#   tp_start                      testpmd for all of them; call again after tp_kill. With TP_WIRE=vhost it attaches by virtio_user to
#                                 vhost-user sockets of the card, which must be there first
#   tp_kill SIGNAL                ends testpmd
#   tp_heal                       starts testpmd again if it has died
#   tp_run NAME COMMAND...        runs it in the VM
#   tp_eal                        EAL arguments of the card: one net_memif per VF, in order: net_memif0, net_memif1, ...
#
# Processes, waiting and what a killed run leaves behind: tests/lib/procs.sh.
TP_BASE=${TP_BASE:-/run/parapet-loopback}
. tests/lib/procs.sh
TP_VFS=()
declare -A TP_IP=()

tp_init() {
	[ "$(id -u)" = 0 ] || skip_all "needs root: network namespaces and TAP devices"
	command -v dpdk-testpmd >/dev/null || skip_all "dpdk-testpmd is not installed (package dpdk)"
	[ -c /dev/net/tun ] || skip_all "/dev/net/tun is not there"
	tp_begin
}

tp_ns() { echo "pp$$-$1"; }

tp_namespace() { # NAME
	ip netns add "$(tp_ns "$1")"
	tp_ns "$1" >"$TP_DIR/$1.ns"
	ip -n "$(tp_ns "$1")" link set lo up
}

tp_vf() { # NAME [IP/PREFIX]
	tp_namespace "$1"
	# IPv6 would chatter; tests that want it turn it on.
	tp_run "$1" sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.all.disable_ipv6=1
	TP_VFS+=("$1")
	TP_IP[$1]=${2:-}
}

tp_run() { # NAME COMMAND...
	local name=$1
	shift
	ip netns exec "$(tp_ns "$name")" "$@"
}

# A locally administered address that stays the same over restarts of testpmd.
tp_mac() { # INDEX
	printf '02:56:4d:00:00:%02x' "$1"
}

tp_start() {
	local wire i=0 args=() cpus vf
	wire=$(tp_ns wire)
	[ -e "$TP_DIR/wire.ns" ] || tp_namespace wire
	for vf in "${TP_VFS[@]}"; do
		args+=(--vdev "net_tap$i,iface=tap$i")
		if [ "${TP_WIRE:-memif}" = vhost ]; then
			args+=(--vdev "net_virtio_user$i,path=$TP_DIR/$vf.sock,queues=1")
		else
			rm -f "$TP_DIR/$vf.sock"
			args+=(--vdev "net_memif$i,role=server,socket=$TP_DIR/$vf.sock,socket-abstract=no,id=$i")
		fi
		i=$((i + 1))
	done
	cpus="(0-$(($(nproc) - 1)))"
	local mem=(--in-memory --single-file-segments)
	tp_hugepages || mem=(--no-huge --no-shconf -m 256)
	local try
	for try in 1 2 3; do
		: >"$TP_DIR/testpmd.log"
		tp_spawn testpmd "$TP_DIR/testpmd.log" ip netns exec "$wire" dpdk-testpmd \
			--lcores "0@$cpus,1@$cpus" --no-pci "${mem[@]}" --file-prefix="pp$$" --no-telemetry "${args[@]}" \
			-- --forward-mode=io --nb-cores=1 --total-num-mbufs=32768 --auto-start --disable-link-check --stats-period 3600
		tp_wait 20 tp_forwarding && break
		# EAL 22.11 may panic when a client comes and goes during start.
		tp_end testpmd KILL
		[ $try != 3 ] || { sed 's/^/# /' "$TP_DIR/testpmd.log"; bail "testpmd did not start"; }
	done
	i=0
	for vf in "${TP_VFS[@]}"; do
		tp_plug "$vf" $i || bail "the TAP of $vf did not come up"
		i=$((i + 1))
	done
}

# The last thing testpmd does with its ports before it forwards is to make them promiscuous. A TAP moved
# earlier would be one without queues.
tp_forwarding() {
	local i
	for i in "${!TP_VFS[@]}"; do
		ip -n "$(tp_ns wire)" link show "tap$i" | grep -q PROMISC || return 1
	done
}

tp_plug() { # NAME INDEX: moves the TAP into the VM
	local ns
	ns=$(tp_ns "$1")
	ip -n "$(tp_ns wire)" link set "tap$2" netns "$ns" name eth0 address "$(tp_mac "$2")" &&
		{ [ -z "${TP_IP[$1]}" ] || ip -n "$ns" addr add "${TP_IP[$1]}" dev eth0; } &&
		ip -n "$ns" link set eth0 up
}

tp_kill() { # SIGNAL
	tp_end testpmd "${1:-INT}"
}

# After the card was killed: DPDK 22.11's memif server frees the shared rings of a peer that vanished while its
# forwarding core may still be on them, so testpmd itself dies now and then. The wire is replaced, like a cable.
tp_heal() {
	local pid start
	read -r pid start <"$TP_DIR/testpmd.pid"
	tp_gone "$pid" "$start" || return 0
	echo "# testpmd died with its peer: started again"
	tp_start
}

tp_hugepages() { # 512 MiB of them: the card wants some too
	local f size kb=0
	for f in /sys/devices/system/node/node*/hugepages/hugepages-*/free_hugepages; do
		[ -r "$f" ] || continue
		size=${f##*hugepages-}
		kb=$((kb + $(cat "$f") * ${size%%kB*}))
	done
	[ $kb -ge 524288 ]
}

tp_eal() {
	local i=0 vf
	for vf in "${TP_VFS[@]}"; do
		[ "${TP_WIRE:-memif}" = vhost ] && printf -- '--vdev net_vhost%d,iface=%s,queues=1 ' $i "$TP_DIR/$vf.sock"
		[ "${TP_WIRE:-memif}" = vhost ] || printf -- '--vdev net_memif%d,role=client,socket=%s,socket-abstract=no,id=%d ' $i "$TP_DIR/$vf.sock" $i
		i=$((i + 1))
	done
}

# Listens in VMs while something is sent: tp_sniff_start TOKEN VM..., then tp_sniffed VM: frames seen with the token.
tp_sniff_start() { # TOKEN VM...
	local token=$1 vm fd
	shift
	for vm; do
		rm -f "$TP_DIR/sniff.$vm".*
		mkfifo "$TP_DIR/sniff.$vm.in"
		ip netns exec "$(tp_ns "$vm")" python3 tests/testpmd/frames.py sniff eth0 "$token" \
			"$TP_DIR/sniff.$vm.ready" <"$TP_DIR/sniff.$vm.in" >"$TP_DIR/sniff.$vm.out" &
		exec {fd}>"$TP_DIR/sniff.$vm.in"
		TP_SNIFF_FD[$vm]=$fd
		TP_SNIFF_PID[$vm]=$!
	done
	for vm; do tp_wait 5 test -e "$TP_DIR/sniff.$vm.ready" || bail "cannot listen in $vm"; done
}
declare -A TP_SNIFF_FD=() TP_SNIFF_PID=()

tp_sniff_stop() { # VM...: the fifos are inherited by later sniffers, so all are closed before one is waited for
	local vm
	for vm; do eval "exec ${TP_SNIFF_FD[$vm]}>&-"; done
	for vm; do wait "${TP_SNIFF_PID[$vm]}"; done
}

tp_sniffed() { cat "$TP_DIR/sniff.$1.out"; }

tp_send() { # VM KIND KEY=VALUE...
	local vm=$1
	shift
	tp_run "$vm" python3 tests/testpmd/frames.py send eth0 "$@"
}
