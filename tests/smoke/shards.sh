#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A card of two shards: VMs spread over them, a flash that fails and returns is one flash, a push is on both or on none,
# VMs moved between them while they write, killed under load and opened again by a card that was not told how many there are.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
dpu_args="--shards 2"
start_system 6 256M 2+1

is "$(j '.items[0].card | "\(.shards) \(.state)"' pool show)" "2 online" "a card started with two shards makes a pool of two"
is "$(rc_of pool create --ec 2+1 --shards 17)" 4 "seventeen are refused"
for n in 1 2 3 4; do
	vm_add "web$n" $n --data-flash f0 --intermediate-flash f1
	p device add "web$n" /dev/ecpool0 --size $((8 * n))M >/dev/null
	p ec set "web$n" --ec 1 >/dev/null
done
in_sync
ok $? "four VMs with a device each"
shard_of() { j ".items[] | select(.name == \"web$1\") | .shard" vm show; }
is "$(j '[.shards[] | .vms | length] | join(" ")' shard show)" "2 2" "two of them are on each shard"
is "$(j '[.shards[] | .devices] | join(" ")' shard show)" "2 2" "so are their devices"
is "$(j '[.items[].shard] | sort | join(" ")' vm show)" "0 0 1 1" "which the VMs say, too"
like "$(p shard show)" "SHARD +CPU +LOAD" "for people there is a table"
like "$(p vm show web1)" "shard +[01]" "and a line at each VM"
is "$(j '[.items[].card.nsid] | join(" ")' device show)" "1 1 1 1" "devices of both are one list"

all() { # WHAT COMMAND OPTIONS...
	local what=$1 cmd=$2 n
	shift 2
	for n in 1 2 3 4; do t "web$n $what" io "$cmd" "web$n" $n --nsid 1 --size 6M "$@"; done
}
all "is written and read back" write --bs mixed --verify --flush
written() { j "[.stats[] | select(.object == \"vm web$1\" and .name == \"writes.protect\") | .value] | add" stats; }
for n in 1 2 3 4; do [ "$(written $n)" -gt 0 ] || break; done
ok $? "each has its counters"
is "$(j '[.items[] | .name] | join(" ")' flash show)" "f0 f1 f2 f3 f4 f5" "a flash is one flash"
is "$(j '.items[0].card | .size_bytes == ([.flashes[].size_bytes] | add)' pool show)" true "its size is that of all slices"

# limits are the card's
p task limits --share 1000 --ceiling 100MB/s >/dev/null
is "$(j '"\(.share_percent) \(.ceiling_bytes_per_s)"' task limits)" "1000 104857600" "a ceiling is shared by the shards"
p task limits --ceiling none >/dev/null
is "$(j '.ceiling_bytes_per_s' task limits)" 0 "and lifted"

# a device fails, is made again on both, and returns
open_tasks() { j '[.items[0].card.tasks[]? | select(.reason == "rebuild")] | length' status; }
rebuilds() { j '[.tasks[] | select(.reason == "rebuild") | .id] | sort | join(" ")' task show; }
none_open() { [ "$(j '[.tasks[] | select(.state == "running" or .state == "waiting")] | length' task show)" = 0 ]; }
p flash fail f2 >/dev/null
like "$(flash_state f2)" "failed|rebuilding" "a flash fails"
both_rebuild() { [ "$(rebuilds | wc -w)" = 2 ]; }
wait_until both_rebuild
ok $? "both shards rebuild"
read -r a b <<<"$(rebuilds)"
is "$((a % 16)) $((b % 16))" "0 1" "as tasks of different numbers"
p task watch >/dev/null
wait_until none_open
is "$(j "[.tasks[] | select(.id == $a or .id == $b) | .state] | join(\" \")" task show)" "done done" "which end well"
is "$(j ".tasks[] | select(.id == $b) | .object" task show)" "flash f2" "one can be looked at"
is "$(rc_of task show 47)" 3 "another one there is not"
all "is read without it" verify --bs mixed
t "it is returned" p flash return f2
wait_until flash_has_state f2 healthy
ok $? "and healthy again"
is "$(rc_of flash return f2)" 5 "it cannot be returned twice"
id=$(j '[.tasks[].id] | join(" ")' scrub)
is "$(wc -w <<<"$id")" 2 "a scrub is a task on each"
# shellcheck disable=SC2086
for i in $id; do p task watch "$i" >/dev/null || break; done
ok $? "and both succeed"
is "$(j "[.tasks[] | select(.reason == \"scrub\") | .unrecoverable] | add" task show)" 0 "nothing is lost"

# a push that fails on one shard
first='' second=''
for n in 1 2 3 4; do
	if [ "$(shard_of $n)" = 0 ]; then first=${first:-$n}; else second=${second:-$n}; fi
done
version_on() { j .version explain "web$1" /dev/ecpool0 --card; } # what the VM's shard has
python3 - $((tcp + 99)) <<'P' &
import socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
time.sleep(300)
P
ours $!
wait_until bash -c "exec 3<>/dev/tcp/127.0.0.1/$((tcp + 99))"
ok $? "an address is taken"
before=$(version_on "$first")
is "$(version_on "$second")" "$before" "both shards have the same tables"
for n in "$first" "$second"; do
	rc=$(rc_of vm set "web$n" --listen "127.0.0.1:$((tcp + 99))")
	t "an address that is taken is refused (of a VM on shard $(shard_of "$n"))" test "$rc" != 0
	is "$(version_on "$first") $(version_on "$second")" "$before $before" "and both keep the tables they had"
	p vm set "web$n" --listen "127.0.0.1:$((tcp + n))" >/dev/null
	in_sync
	before=$(version_on "$first")
done
all "goes on" verify --bs mixed
p vm set "web$second" --weight 50 >/dev/null
in_sync
is "$(version_on "$first")" "$(version_on "$second")" "the next push is on both"

# killed under load; the next one is not told how many shards there are
run() { # N SECONDS: writes in the background, comes back
	"$BIN/parapet-io" write --addr "127.0.0.1:$((tcp + $1))" --nqn "nqn.2026-01.test:web$1" --nsid 1 --seed "$1" \
		--size 6M --bs mixed --random --depth 8 --time-limit "$2" --reconnect 60 --verify --json >"$dir/run$1.json" 2>"$dir/run$1.err" &
	runs[$1]=$!
	ours $!
}
runs=()
for n in 1 2 3 4; do run $n 5; done
dpu_args=''
for _ in 1 2; do
	sleep 1
	kill_dpu 9
	start_dpu
done
for n in 1 2 3 4; do
	wait "${runs[$n]}"
	rc=$?
	[ $rc = 0 ] || { sed 's/^/# /' "$dir/run$n.err" | tail -n 5; jq -c '{statuses, findings}' "$dir/run$n.json" | sed 's/^/# /'; }
	ok $rc "web$n is written and verified over two SIGKILLs of the card"
	t "web$n: its connection broke and came back" test "$(jq .reconnects "$dir/run$n.json")" -ge 1
done
node_connected
is "$(j '.items[0].card | "\(.shards) \(.state)"' pool show)" "2 online" "opened again there are two"
is "$(j '[.items[].shard] | sort | join(" ")' vm show)" "0 0 1 1" "and the VMs are where they were"

# VMs move to the other shard while they are written: one and back, one into a SIGKILL
n=$first
to=$((1 - $(shard_of "$n")))
for shard in $to $((1 - to)); do
	run "$n" 8
	sleep 1
	id=$(j '.tasks[0].id' shard move "web$n" "$shard")
	is "$(j ".tasks[] | select(.id == $id) | .reason" task show)" move "web$n moves to shard $shard: a task"
	p task watch "$id" >/dev/null
	ok $? "which ends well"
	is "$(shard_of "$n")" "$shard" "it is there"
	wait "${runs[$n]}"
	ok $? "web$n was written and verified meanwhile"
	t "its connection broke and came back" test "$(jq .reconnects "$dir/run$n.json")" -ge 1
done
is "$(rc_of shard move "web$n" 7)" 4 "a shard that there is not is refused"
from=$(shard_of "$n")
p task limits --ceiling 1MB/s >/dev/null
run "$n" 5
sleep 1
p shard move "web$n" $((1 - from)) >/dev/null
sleep 1
kill_dpu 9
start_dpu
node_connected
wait "${runs[$n]}"
ok $? "web$n is written and verified over a SIGKILL in the middle of its move"
is "$(shard_of "$n")" "$from" "and is where it was"
is "$(j '[.shards[] | .devices] | join(" ")' shard show)" "2 2" "with its device, once"
p task limits --ceiling none >/dev/null

# the checker looks at every slice
all "is written once more" write --bs 64k --seed 9 --flush
kill_dpu TERM
is "$dpu_rc" 0 "it ends cleanly"
devs=()
for i in 0 1 2 3 4 5; do devs+=("f$i=file:$dir/f$i"); done
"$BIN/parapet-fsck" --deep "${devs[@]}" >"$dir/fsck" 2>&1
rc=$?
[ $rc = 0 ] || sed 's/^/# fsck: /' "$dir/fsck"
is $rc 0 "parapet-fsck finds nothing"

# another card, which remembers nothing
rm -rf "$dir/state"
start_dpu
node_connected
t "another card takes the pool over" p pool open --take-over
in_sync
is "$(j '.items[0].card | "\(.shards) \(.state)"' pool show)" "2 online" "and sees that it has two shards"
is "$(j '[.shards[] | .devices] | join(" ")' shard show)" "2 2" "with the devices where they were"
all "is there" verify --bs 64k --seed 9
done_testing
