# In the guest: the kernel's NVMe-oF target by configfs, as an operator sets it up (hwdocs/peers.md). Put it before the test's init
# (guest_init tests/vm/guest-target.sh tests/vm/X.init) and
# give the guest what it needs (guest_target [rdma] in guest.sh).
#
#	target_begin                       configfs, modules
#	target_rxe NETDEV                  an RDMA device over a network device
#	target_null NAME MIB [CACHE_MIB]   a disk in memory, $DEV; with a volatile cache when CACHE_MIB is given
#	target_subsystem NQN               which any host may use
#	target_namespace NQN NSID DEV      exported; its NGUID is made of NSID, so that it is the same after a restart
#	target_toggle NQN NSID 0|1         the namespace is away, there
#	target_ana NQN NSID GROUP          its ANA group; target_ana_state PORT GROUP STATE
#	target_port N tcp|rdma ADDR PORT   a port; target_export N NQN, target_withdraw N NQN: connections end
nvmet=/sys/kernel/config/nvmet

target_begin() { # [rdma]
	echo /bin/modprobe >/proc/sys/kernel/modprobe # the kernel loads by itself what it finds missing
	modprobe -a configfs crc32c_generic nvmet nvmet-tcp || return 1
	modprobe null_blk nr_devices=0 || return 1
	if [ "${1:-}" = rdma ]; then
		modprobe -a crc32_generic rdma_rxe rdma_ucm ib_uverbs nvmet-rdma || return 1
	fi
	[ -d $nvmet ] || mount -t configfs config /sys/kernel/config
}

target_rxe() { # NETDEV
	rdma link add rxe0 type rxe netdev "$1"
}

target_null() { # NAME MIB [CACHE_MIB]
	d=/sys/kernel/config/nullb/$1
	mkdir "$d" && echo "$2" >"$d/size" && echo 4096 >"$d/blocksize" && echo 1 >"$d/memory_backed" && echo 1 >"$d/discard" || return 1
	[ -z "${3:-}" ] || echo "$3" >"$d/cache_size" || return 1
	echo 1 >"$d/power" || return 1
	DEV=/dev/$1
	[ -b "$DEV" ] || DEV=/dev/nullb$(cat "$d/index") # kernels differ
}

target_subsystem() { # NQN
	mkdir "$nvmet/subsystems/$1" && echo 1 >"$nvmet/subsystems/$1/attr_allow_any_host"
}

target_namespace() { # NQN NSID DEV
	n=$nvmet/subsystems/$1/namespaces/$2
	mkdir "$n" && echo -n "$3" >"$n/device_path" &&
		printf '00000000-0000-4000-8000-%012x' "$2" >"$n/device_uuid" &&
		printf '00000000-0000-4000-8000-%012x' "$2" >"$n/device_nguid" && echo 1 >"$n/enable"
}

target_toggle() { # NQN NSID 0|1
	echo "$3" >"$nvmet/subsystems/$1/namespaces/$2/enable"
}

target_port() { # N tcp|rdma ADDR PORT
	p=$nvmet/ports/$1
	mkdir "$p" && echo ipv4 >"$p/addr_adrfam" && echo "$2" >"$p/addr_trtype" && echo "$3" >"$p/addr_traddr" && echo "$4" >"$p/addr_trsvcid"
}

target_ana() { # NQN NSID GROUP
	echo "$3" >"$nvmet/subsystems/$1/namespaces/$2/ana_grpid"
}

target_ana_state() { # PORT GROUP optimized|non-optimized|inaccessible|...
	[ -d "$nvmet/ports/$1/ana_groups/$2" ] || mkdir "$nvmet/ports/$1/ana_groups/$2"
	echo "$3" >"$nvmet/ports/$1/ana_groups/$2/ana_state"
}

target_export() { # PORT NQN
	ln -s "$nvmet/subsystems/$2" "$nvmet/ports/$1/subsystems/$2"
}

target_withdraw() { # PORT NQN
	rm "$nvmet/ports/$1/subsystems/$2"
}

# Commands a disk has carried out, to the host: SHOT NAME-stat READS WRITES DISCARDS FLUSHES
target_stat() { # NAME
	set -- "$1" $(cat "/sys/class/block/$1/stat" 2>/dev/null || cat "/sys/class/block/nullb$(cat "/sys/kernel/config/nullb/$1/index")/stat")
	shot "$1-stat $2 $6 ${13} ${17}"
}

# Serves until the host writes "end". Words of the host: "COMMAND ARGUMENT..." of the functions above; each is answered by a
# SHOT did-N.
target_serve() {
	i=0
	while read -r line; do
		[ "$line" = end ] && break
		i=$((i + 1))
		$line
		shot "did-$i $?"
	done <"$ask"
}
