# In the guest: parapet-io over RDMA, and what the transport did for it. Put it behind guest-target.sh.
#
#	rdma_io NAME COMMAND OPTIONS...    to $TARGET_ADDR, $NQN; its JSON is /tmp/NAME.json
#	of NAME FILTER                     a value of it
#	holds NAME FILTER TEXT             a check: the filter gives true
#	wire NAME                          a NOTE with the counters
PATH=$PATH:/usr/local/bin
rdma_io() {
	io_name=$1
	io_command=$2
	shift 2
	timeout 100 parapet-io "$io_command" --transport rdma --addr "$TARGET_ADDR" --nqn "$NQN" --json "$@" >"/tmp/$io_name.json" 2>/tmp/io.err || {
		echo "parapet-io $io_command $*:"
		cat /tmp/io.err "/tmp/$io_name.json"
		return 1
	}
}
of() { jq -r "$2" "/tmp/$1.json"; }
holds() {
	jq -e "$2" "/tmp/$1.json" >/dev/null
	result $? "$3"
}
wire() {
	note "$1: $(jq -c '{MB_per_s: (.mb_per_s * 10 | floor / 10), ops} + .transport' "/tmp/$1.json")"
}
