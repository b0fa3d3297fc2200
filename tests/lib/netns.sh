# Network namespaces of a test.
#
#	own_network "$0" "$@"         first thing of a test: it goes on in a network namespace of its own with nothing but lo in it. What runs there
#	                              reaches nobody, and the namespace vanishes with its processes, however they end
#	peer_add NAME N               after tp_begin: a node in a namespace, 10.77.N.2, joined to us (10.77.N.1) by a cable of its own: NAME
#	peer_run NAME COMMAND...      runs it there
#	peer_link NAME up|down        the cable
own_network() {
	[ -z "${OWN_NETWORK:-}" ] || { ip link set lo up; return; }
	if [ "$(id -u)" != 0 ] || ! unshare --net true 2>/dev/null; then
		echo "needs root and network namespaces"
		exit 77
	fi
	OWN_NETWORK=1 exec unshare --net "$@"
}

peer_ns() { echo "pp$$-$1"; }

peer_add() { # NAME N
	local ns
	ns=$(peer_ns "$1")
	ip netns add "$ns" || return 1
	echo "$ns" >"$TP_DIR/$1.ns"
	ip link add name "$1" type veth peer name eth0 netns "$ns" &&
		ip addr add "10.77.$2.1/24" dev "$1" && ip link set dev "$1" up &&
		ip -n "$ns" addr add "10.77.$2.2/24" dev eth0 && ip -n "$ns" link set lo up && ip -n "$ns" link set eth0 up
}

peer_run() { # NAME COMMAND...
	local name=$1
	shift
	ip netns exec "$(peer_ns "$name")" "$@"
}

peer_link() { ip link set dev "$1" "$2"; }
