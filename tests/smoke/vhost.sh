#!/bin/bash
# A VM's devices as virtio-blk functions: our own vhost-user driver writes, verifies, breaks the rules, dies and comes back; the card dies and
# comes back. The same VM has its devices over NVMe/TCP beside that.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
drive() { # DEVICE(1,2) COMMAND OPTIONS...
	local sock=$dir/v/web1.$1.sock
	shift
	timeout 120 "$BIN/vhost-io" "$sock" "$@" --json >"$dir/drive.out" 2>"$dir/drive.err" && return 0
	jq -c '{command, error, status, requests, errors, wrong_sectors, note}' "$dir/drive.out" | sed 's/^/# vhost-io: /'
	sed 's/^/# vhost-io: /' "$dir/drive.err"
	return 1
}
in_background() { # DEVICE NAME COMMAND OPTIONS...: its pid is $bg
	local sock=$dir/v/web1.$1.sock name=$2
	shift 2
	"$BIN/vhost-io" "$sock" "$@" --json >"$dir/$name.out" 2>"$dir/$name.err" &
	bg=$!
	ours "$bg"
}
ended() { # PID NAME
	wait "$1"
	local rc=$?
	[ $rc = 0 ] || jq -c '{command, error, requests, errors, wrong_sectors, note}' "$dir/$2.out" | sed 's/^/# vhost-io: /'
	return $rc
}
out() { jq -r "$1" "$dir/drive.out"; }
disk() { j ".items[0].card.vms[0].vhost[] | select(.nsid == $1) | $2" status; } # NSID FILTER
counter() { disk "$1" ".counters[] | select(.name == \"$2\") | .value"; }

# ---- without DPDK it cannot be had ----
mkdir "$dir/v"
start_system 6 256M 4+1
like "$(rc_of vm add web1 --data-flash f0 --vhost "$dir/v")" '^[1-7]$' "a card without DPDK takes no VM with vhost"
like "$(cat "$dir/err")" "vhost: .*EAL arguments" "... and says what it needs"
kill_dpu TERM
dpu_args="-- --no-pci"
start_dpu
node_connected
like "$(rc_of vm add web1 --data-flash f0 --vhost run/v)" '^[24]$' "a relative directory is refused"
like "$(rc_of vm add web1 --data-flash f0 --vhost /run/../v)" '^[24]$' "... and one with '..'"
like "$(rc_of vm add web1 --data-flash f0 --vhost "$dir/none")" '^[1-7]$' "... and one that is not there"
vm_add web1 1 --memory 80M --data-flash f0 --intermediate-flash f1 --vhost "$dir/v"
in_sync
p device add web1 /dev/ecpool0 --size 64M >/dev/null
p device add web1 /dev/normal0 --size 64M >/dev/null
p ec set web1 --path /dev/ecpool --ec 1 >/dev/null
p ec set web1 --path /dev/normal --ec 0 >/dev/null
in_sync
ok $? "the card has its tables"
wait_until test -S "$dir/v/web1.2.sock"
ok $? "each device has a socket"

# ---- data ----
t "config space can be read" drive 1 config
is "$(out .capacity)" $((64 << 20)) "... and has the size"
t "get-id answers" drive 1 id
is "$(out .note)" "$(j '.items[] | select(.path == "/dev/ecpool0") | .card.nguid' device show | cut -c1-20)" "... with the beginning of the NGUID"
t "protected: split ring, written and verified" drive 1 verify --random --count 3000 --size 32M
t "protected: packed ring, large requests in segments" drive 1 verify --packed --block 64K --segments 8 --depth 8 --size 32M
t "protected: indirect descriptors, three queues" drive 1 verify --indirect --segments 4 --block 16K --depth 16 --queues 3 --size 32M
t "plain: packed and indirect, two queues" drive 2 verify --packed --indirect --queues 2 --random --count 3000 --size 32M
t "plain: sleeping for interrupts" drive 2 verify --irq --depth 4 --size 8M
t "flush" drive 1 flush
t "discard of four ranges" drive 1 discard --segments 4 --size 8M
t "... reads as zeros" drive 1 read --zero --size 8M
t "write zeroes" drive 1 zeroes --offset 8M --size 8M
t "write zeroes that may free" drive 1 unmap --offset 16M --size 8M
t "... reads as zeros" drive 1 read --zero --size 24M
t "memory is added while it runs" drive 2 hot-add
t "the other way in sees what was written" drive 1 write --size 4M --seed 5
n1=$(disk 1 .nsid)
t "... over NVMe/TCP" io verify web1 1 --nsid "$n1" --seed 5 --size 4M
is "$(j '.items[0].card.vms[0].access' status)" "socket 127.0.0.1:$((tcp + 1)), vhost $dir/v" "the status says both ways in"
p vm attach-xml web1 --json >"$dir/attach"
is "$(jq -r '.devices[0].socket' "$dir/attach")" "$dir/v/web1.1.sock" "attach-xml names the socket"
like "$(p vm attach-xml web1)" "vhostuser.*web1.1.sock.*reconnect.*vhost-user-blk-pci" "... in libvirt's words and in QEMU's"

# ---- a VM that means harm ----
in_background 2 other verify --random --seconds 15 --size 16M --seed 9
other=$bg
t "rings that break the rules stop the disk until its driver resets it" drive 1 bad --kind all
is "$(out .requests)" 25 "... all of them"
[ "$(counter 1 broken_rings)" -ge 20 ]
ok $? "... and are counted"
like "$(j 'select(.kind == "vhost-ring-broken") | .object' events)" ecpool0 "... and told of"
for what in memory inflight; do
	broken=$(counter 1 broken_rings)
	t "the $what goes away under its requests" drive 1 truncate --kind $what
	[ "$(counter 1 broken_rings)" -gt "$broken" ]
	ok $? "... which stops the disk"
	t "... until a driver connects anew" drive 1 verify --size 4M
done
ended "$other" other
ok $? "the other disk of the VM served all the while"

# ---- a driver that dies ----
in_background 1 dies bench-write --random --seconds 60
sleep 1
kill -9 "$bg"
wait "$bg" 2>/dev/null
wait_until sh -c "[ \"\$('$BIN/parapet' --json status | jq '.items[0].card.vms[0].vhost[0].connected')\" = false ]"
ok $? "a driver killed under load is gone"
is "$(disk 1 .in_flight)" 0 "... and nothing of it is in flight"
t "the next one works" drive 1 verify --size 8M

# ---- a size, a deletion ----
in_background 1 grow grow
wait_until sh -c "[ \"\$('$BIN/parapet' --json status | jq '.items[0].card.vms[0].vhost[0].connected')\" = true ]"
p device grow web1 /dev/ecpool0 80M >/dev/null
ended "$bg" grow
ok $? "a driver that is connected hears of the new size"
in_background 2 busy bench-read --seconds 3
wait_until sh -c "[ \"\$('$BIN/parapet' --json status | jq '.items[0].card.vms[0].vhost[1].connected')\" = true ]"
like "$(p device del web1 /dev/normal0 2>&1)" "connections use it" "a device in use is not deleted"
ended "$bg" busy

# ---- the card dies ----
killed() { # OPTIONS...: one kill under load; adds to $resumed what was taken up again
	in_background 1 killed verify --random --seconds 3 --size 32M --reconnect 60 "$@"
	sleep 1
	kill_dpu 9
	start_dpu
	ended "$bg" killed || return 1
	[ "$(jq .reconnects "$dir/killed.out")" -ge 1 ] || { echo "# the connection did not break"; return 1; }
	resumed=$((resumed + $(counter 1 resumed_requests)))
}
for how in "" "--packed" "--packed --indirect"; do
	# On a busy machine a kill may fall between two batches: then once more.
	resumed=0 rc=0
	for _ in $(seq 20); do
		# shellcheck disable=SC2086
		killed $how
		rc=$?
		[ $rc = 0 ] && [ $resumed = 0 ] || break
	done
	ok $rc "SIGKILL of the card under load, ${how:-split}: no request fails, all is right"
	[ $resumed -ge 1 ]
	ok $? "... and what was in flight was taken up again"
done

# ---- table 203 ----
node_connected
p vm set web1 --host-addr 0x1000 --guest-addr 0x100000 >/dev/null
in_sync
drive 1 config >/dev/null
is $? 1 "memory that is not where table 203 says is refused"
like "$(j 'select(.kind == "vhost-memory-refused") | .text' events)" "host_addr.*0x1000" "... with an event"
p vm set web1 --host-addr '' --guest-addr '' >/dev/null
in_sync
drive 1 verify --size 4M
ok $? "without the address it is accepted"
p vm set web1 --memory 32M >/dev/null
in_sync
drive 1 config >/dev/null
is $? 1 "more memory than table 203 says is refused"
p vm set web1 --vhost '' >/dev/null
in_sync
wait_until test ! -e "$dir/v/web1.1.sock"
ok $? "without the directory the sockets go"
io identify web1 1
ok $? "... and NVMe/TCP stays"
done_testing
