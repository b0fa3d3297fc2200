#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool on the flash of three peers, over NVMe/TCP: discovered, added, a node lost under load and back by itself. The peers are cards themselves.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh

# A card whose VM offers two plain devices on 127.0.0.N: the peer.
declare -A peer_pid
peer_start() { # N
	"$BIN/parapet-dpu" --state "$dir/peer$1" --control "$dir/peer$1.sock" >>"$dir/peer$1.log" 2>&1 &
	peer_pid[$1]=$!
	tp_adopt "peer$1" "${peer_pid[$1]}"
	wait_until test -S "$dir/peer$1.sock" || bail "peer $1 does not start"
}
peer_kill() { # N
	kill -9 "${peer_pid[$1]}"
	wait "${peer_pid[$1]}" 2>/dev/null
	rm -f "$dir/peer$1.sock"
}
peer_make() { # N
	local i
	mkdir -p "$dir/flash$1"
	peer_start "$1"
	p node add "peer$1" --address "unix:$dir/peer$1.sock" >/dev/null || bail "node add"
	for i in 0 1; do
		truncate -s 96M "$dir/flash$1/f$i"
		p flash add --node "peer$1" "f$i" --address "file:$dir/flash$1/f$i" >/dev/null || bail "flash add"
	done
	wait_until sh -c "'$BIN/parapet' --json status --node peer$1 | jq -e '.items[0].connected'"
	p pool create --node "peer$1" --ec 1+1 --segment 1M >/dev/null || bail "pool create"
	p vm add disk --node "peer$1" --listen "127.0.0.$1:$tcp" --nqn "nqn.2026-01.test:peer$1" --data-flash f0 >/dev/null || bail "vm add"
	for i in 0 1; do p device add --node "peer$1" disk "/dev/d$i" --size 32M >/dev/null || bail "device add"; done
}
start_dpu
start_agent
p node add n1 --address "$card" >/dev/null
for n in 2 3 4; do peer_make $n; done
wait_until sh -c "'$BIN/parapet' --json status --node n1 | jq -e '.items[0].connected'"

# discover
found() { j "$1" flash discover --node n1 "127.0.0.2:$tcp"; }
is "$(found '[.found[].nsid] | join(",")')" 1,2 "both namespaces of a peer are found"
is "$(found '.found[0] | "\(.transport) \(.size_bytes) \(.subnqn)"')" "tcp $((32 << 20)) nqn.2026-01.test:peer2" "with size and name"
is "$(found '.found[1].flash_address')" "nvme+tcp://127.0.0.2:$tcp/nqn.2026-01.test:peer2#2" "and the address to add"
is "$(rc_of flash discover --node n1 127.0.0.9:$tcp)" 3 "a host without a discovery controller is told"
like "$(cat "$dir/err")" "host 127.0.0.9: host: .*no discovery controller" "with object, field and reason"
is "$(rc_of flash discover --node n1 peer.example)" 4 "a name is no numeric address"
is "$(rc_of flash discover --node n1 127.0.0.2 --transport fc)" 4 "nor is every transport known"
like "$(cat "$dir/err")" "allowed: tcp, rdma" "what is allowed is"

# addresses
is "$(rc_of flash add x --node n1 --address "nvme+tcp://127.0.0.2:$tcp/nqn.2026-01.test:peer2")" 4 "an address without its namespace is refused"
like "$(cat "$dir/err")" "flash x: address: .*#NSID" "and says so"
for n in 2 3 4; do
	for i in 1 2; do
		p flash add "p$n$i" --node n1 --address "nvme+tcp://127.0.0.$n:$tcp/nqn.2026-01.test:peer$n#$i" >/dev/null || bail "flash add"
	done
done
t "a pool is made of six devices on three nodes" p pool create --node n1 --ec 4+2 --segment 1M --timeout-ms 1500 --suspect-ms 500
is "$(j '[.items[].domain] | unique | join(",")' flash show --node n1)" 127.0.0.2,127.0.0.3,127.0.0.4 "a device's node is its first host"
is "$(found '[.found[].member] | join(",")')" p21,p22 "what is a member already is told"
pool() { j ".items[0].card | $1" pool show --node n1; }
is "$(pool '"\(.survives) \(.survives_nodes)"')" "2 1" "the pool survives two devices, or one node"
is "$(pool '[.nodes[].state] | join(",")')" up,up,up "all nodes are up"
p vm add web1 --node n1 --listen "127.0.0.1:$((tcp + 1))" --nqn nqn.2026-01.test:web1 --data-flash p21 >/dev/null
p device add --node n1 web1 /dev/ecpool0 --size 8M --layout fragments >/dev/null
p ec set web1 --node n1 --path /dev/ecpool --ec 1 >/dev/null
t "a VM writes protected data" io write web1 1 --bs 64k --flush
is "$(pool '"\(.survives) \(.survives_nodes)"')" "2 1" "the same with data"
is "$(pool '.flashes[0].paths[0] | "\(.address) \(.usable)"')" "127.0.0.2:$tcp true" "paths are told"
is "$(pool '.flashes[0].latency[] | select(.op == "write") | .count > 0 and .p99_us >= .p50_us and .max_us >= .p50_us')" true "and latencies"

# a node goes
p pool set --node n1 --rebuild-delay 1h >/dev/null
peer_kill 3
t "every byte is right without a node" io verify web1 1 --bs 64k
is "$(pool '"\(.survives) \(.survives_nodes)"')" "0 0" "nothing more may go"
t "and writes go on" io write web1 1 --bs 64k --seed 2 --flush
lost() { [ "$(pool '.nodes[] | select(.name == "127.0.0.3") | .state')" = "$1" ]; }
wait_until lost lost
ok $? "its node is lost"
wait_until sh -c "'$BIN/parapet' --json events | grep -q node-lost"
ok $? "an event says so"
is "$(pool '"\(.survives) \(.survives_nodes)"')" "1 0" "what was written since has its parity; superblocks are on four devices, three have to stay"
is "$(p events | grep -c 'node-lost')" 1 "once, for both devices"
like "$(p status --node n1)" "node 127.0.0.3: lost" "status shows it"

# and comes back
peer_start 3
wait_until lost up
ok $? "its devices are returned by themselves when it is there again"
wait_until sh -c "'$BIN/parapet' --json events | grep -q node-back"
ok $? "an event says so"
better() { [ "$(pool '"\(.survives) \(.survives_nodes)"')" = "$1" ]; }
healthy() { [ "$(pool '[.flashes[].state] | unique | join(",")')" = healthy ]; }
wait_until healthy
ok $? "they are healthy once they have been checked"
t "every byte is right" io verify web1 1 --bs 64k --seed 2

# not what the operator took out
t "an operator takes one out" p flash fail --node n1 p21
sleep 3
is "$(pool '.flashes[] | select(.flash.name == "p21") | .state')" failed "it does not come back by itself"
t "but when asked to" p flash return --node n1 p21
t "auto-return is switched off" p pool set --node n1 --auto-return off
is "$(pool '.settings.auto_return')" false "and shown"

# a start without a node
kill_dpu TERM
peer_kill 4
start_dpu
wait_until sh -c "'$BIN/parapet' --json pool show --node n1 | jq -e '.items[0].card.state == \"degraded\"'"
ok $? "the pool opens without a node"
t "every byte is right then, too" io verify web1 1 --bs 64k --seed 2
peer_start 4
sleep 3
is "$(pool '[.flashes[] | select(.state == "missing")] | length')" 2 "with auto-return off nothing comes back"
p pool set --node n1 --auto-return on >/dev/null
wait_until healthy
ok $? "with it on both do"
done_testing
