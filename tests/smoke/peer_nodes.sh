#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The pool lies on peers: three nodes as network namespaces, each with two NVMe/TCP targets of two namespaces. Cables are pulled and put
# back; one node dies under load, comes back and is made whole again; then another dies. VMs see no error, and everything is right.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/netns.sh
own_network "$0" "$@"
. tests/smoke/system.sh
start=$SECONDS
nodes=(a b c)

# A node's targets, A0 and A1, with namespaces 1 and 2 each; on nodes a and b the second has a volatile write cache.
node_start() { # NAME N
	local t
	for t in 0 1; do
		# shellcheck disable=SC2046
		tp_spawn "target-$1$t" "$dir/target-$1$t.log" ip netns exec "$(peer_ns "$1")" "$BIN/nvme/memtarget" \
			-a "10.77.$2.2" -p $((4420 + t)) -n "nqn.2026-11.io.parapet:$1$t" -s 384 \
			$([ $t = 1 ] && [ "$1" != c ] && echo -c) -f "$dir/$1$t.1" -f "$dir/$1$t.2"
		tp_wait 10 grep -q ready "$dir/target-$1$t.log" || bail "target $1$t does not start: $(cat "$dir/target-$1$t.log")"
	done
}
# As a power cut: nothing of it answers any more, and nobody is told.
node_kill() { # NAME
	peer_link "$1" down
	tp_end "target-${1}0" KILL
	tp_end "target-${1}1" KILL
	rm -f "$dir/target-${1}0.log" "$dir/target-${1}1.log"
}
node_back() { # NAME N
	peer_link "$1" up
	node_start "$1" "$2"
}
flash_of() { echo "${1}0 ${1}1"; } # NODE
all_have_state() { # STATE FLASH...
	local want=$1 f
	shift
	for f; do flash_has_state "$f" "$want" || return 1; done
}
all_in_use() { [ "$(j '[.items[] | select(.card.state | IN("healthy", "suspect") | not)] | length' flash show)" = 0 ]; } # one that was slow stays suspect for a while
never_failed() { # FLASH...: since the card started
	local f
	for f; do ! grep -q "flash-failed: flash $f:" "$dir/dpu.log" || return 1; done
}
card_says() { j ".items[0].card.$1" pool show; } # FIELD
pool_whole() { [ "$(card_says state)" = online ] && [ "$(j '[.tasks[]? | select((.state == "running" or .state == "waiting") and .reason != "clean")] | length' task show)" = 0 ]; }

for n in 1 2 3; do
	peer_add "${nodes[n - 1]}" $n || skip_all "a network namespace with a cable cannot be made"
	node_start "${nodes[n - 1]}" $n
done
start_node
# Every way of connecting: digests, several queues, namespace 1 of one target and 2 of the other.
opts=('' '?hdgst&ddgst' '?queues=2' '?ddgst' '?depth=64' '')
i=0
for n in 1 2 3; do
	for t in 0 1; do
		p flash add "${nodes[n - 1]}$t" --domain "${nodes[n - 1]}" \
			--address "nvme+tcp://10.77.$n.2:$((4420 + t))/nqn.2026-11.io.parapet:${nodes[n - 1]}$t#$((t + 1))${opts[i]}" >/dev/null ||
			bail "flash add ${nodes[n - 1]}$t"
		i=$((i + 1))
	done
done
node_connected
p pool create --ec 4+2 --segment 1M --same-flash >"$dir/out" 2>&1
ok $? "a pool of three nodes with two devices each"
[ $tap_bad = 0 ] || bail "$(cat "$dir/out")"
vm_add web1 1 --data-flash a0
p device add web1 /dev/ecpool0 --size 32M --layout fragments >/dev/null
vm_add web2 2 --data-flash a1
p device add web2 /dev/ecpool0 --size 32M >/dev/null
p ec set web1 --ec 1 >/dev/null
p ec set web2 --ec 1 >/dev/null
t "two VMs, one with a full copy on node a" in_sync
t "written and read back" io write web1 1 --size 16M --bs 64k --verify --flush
t "the other one, too" io write web2 2 --size 16M --bs mixed --verify --flush
is "$(card_says survives) $(card_says survives_nodes)" "2 1" "the pool survives the loss of two devices, or of a node"

# ---- weather --------------------------------------------------------------------------------------------------------
load_start web1 1 --size 32M --bs 64k --depth 8 --random --seed 11
load_start web2 2 --size 32M --bs mixed --depth 8 --random --seed 12
sleep 1
for round in 1 2; do
	peer_link c down
	sleep 3
	peer_link c up
	sleep 4
done
t "a cable that is out for three seconds, twice, costs no device" never_failed a0 a1 b0 b1 c0 c1
# A volatile cache: had the target restarted, what was in it would be gone. It cannot have, in so short a time.
peer_link b down
sleep 2
peer_link b up
sleep 3
t "neither does a short one cost the device with a volatile cache" never_failed b0 b1
t "web1 saw no error, and all of it is right" load_end web1
t "neither did web2" load_end web2
t "all devices are there" tp_wait 30 all_in_use
t "the pool is whole" tp_wait 30 pool_whole

# ---- a node dies ----------------------------------------------------------------------------------------------------
load_start web1 1 --size 32M --bs 64k --depth 8 --random --seed 21
load_start web2 2 --size 32M --bs mixed --depth 8 --random --seed 22
sleep 1
node_kill a
# shellcheck disable=SC2046
t "node a dies: both its devices are given up" tp_wait 30 all_have_state failed $(flash_of a)
sleep 1
t "web1 writes on" load_runs web1
t "web2, whose copy was there, too" load_runs web2
is "$(card_says state)" degraded "the pool says that it is degraded"
is "$(card_says 'nodes[] | select(.name == "a") | .state')" lost "... and which node is lost"
t "web1 saw no error, and all of it is right" load_end web1
t "neither did web2" load_end web2

# ---- and comes back -------------------------------------------------------------------------------------------------
load_start web1 1 --size 32M --bs 64k --depth 4 --random --seed 31
node_back a 1
node_is() { [ "$(card_says "nodes[] | select(.name == \"$1\") | .state")" = "$2" ]; }
t "node a comes back by itself" tp_wait 30 node_is a up
sleep 3
t "web1 saw nothing of it" load_end web1
t "what was written without it is made whole again" tp_wait 60 pool_whole
is "$(card_says survives_nodes)" 1 "the pool survives a node again"

# ---- another one dies -----------------------------------------------------------------------------------------------
load_start web1 1 --size 32M --bs 64k --depth 8 --random --seed 41
load_start web2 2 --size 32M --bs mixed --depth 8 --random --seed 42
sleep 1
node_kill c
# shellcheck disable=SC2046
t "node c dies" tp_wait 30 all_have_state failed $(flash_of c)
t "web1 saw no error, and all of it is right" load_end web1
t "neither did web2" load_end web2
kill_dpu 9
start_dpu
node_connected
t "the card, killed and started without node c, reads everything" io read web1 1 --size 32M --bs 64k
t "of web2, too" io read web2 2 --size 32M --bs 64k
t "and writes" io write web1 1 --size 16M --bs 64k --seed 51 --verify --flush
kill_dpu TERM
is "$dpu_rc" 0 "the card ends cleanly"
echo "# $((SECONDS - start)) s"
done_testing
