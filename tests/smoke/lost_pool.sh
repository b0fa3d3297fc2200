#!/bin/bash
# A pool that lost more than it can do without: the card says so, the agent keeps everything, and only force opens it.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/lib.sh
[ -x "$BIN/parapet-dpu" ] && [ -x "$BIN/parapet-io" ] || skip_all "parapet-dpu or parapet-io is not built"
port=$((20000 + ($$ + 7) % 20000))
nqn=nqn.2026-11.io.parapet:lost

card_start() {
	"$BIN/parapet-dpu" --state "$dir/state" --control "$dir/card.sock" >>"$dir/card.log" 2>&1 &
	card_pid=$!
	ours $card_pid
	wait_until test -S "$dir/card.sock" || bail "parapet-dpu does not start"
}
for i in 0 1 2 3 4 5 6 7; do truncate -s 48M "$dir/f$i"; done
{
	echo "nodes: [{name: n1, address: '$card', pool: {ec: 4+2, on_degraded: allow, segment_bytes: 1M}, flashes: ["
	for i in 0 1 2 3 4 5 6 7; do echo "  {name: f$i, address: 'file:$dir/f$i', domain: d$i},"; done
	echo "], vms: [{name: web1, data_flash: f0, intermediate_flash: f1, listen: '127.0.0.1:$port', nqn: '$nqn',"
	echo "  devices: [{path: /dev/ecpool0, size: 8M}], ec: [{path: /dev/ecpool, ec: 1}]}]}]"
} >"$dir/all.yaml"
start_agent
card_start
t "a pool, a VM, a device" p apply -f "$dir/all.yaml"
"$BIN/parapet-io" write --addr 127.0.0.1:$port --nqn $nqn --bs 64k --flush >/dev/null
ok $? "with data"
kill -9 "$card_pid"
wait "$card_pid" 2>/dev/null
rm -f "$dir/card.sock" "$dir"/f[0234]
card_start
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].problem'"
like "$(j '.items[0].problem' status)" "could not open its pool.*pool open --force" "four of eight lost: the pool is a problem, with the ways out"
is "$(j '.items[0].card.pool.state' status)" failed "and the card says so itself"
is "$(rc_of device del web1 /dev/ecpool0)" 5 "a device is not taken for gone while the pool is closed"
is "$(j '.items | length' device show)" 1 "and stays"
is "$(j '.nodes[0].state' vm set web1 --cores 2)" applied "what does not need the pool can still be changed"
is "$(rc_of pool open)" 1 "without force it is not opened"
like "$(cat "$dir/err")" "lost more devices" "with the reason"
t "with force it is" p pool open --force
is "$(j '.items[0].card.pool.state' status)" degraded "degraded"
wait_until state_is in-sync
ok $? "and the card is up to date"
is "$(j '.items[0].card.path' device show)" /dev/ecpool0 "the device is there again"
"$BIN/parapet-io" read --addr 127.0.0.1:$port --nqn $nqn --bs 64k >"$dir/io.out" 2>&1
is "$?" 3 "its lost blocks are errors, not zeros"
[ $tap_bad = 0 ] || sed 's/^/# card: /' "$dir/card.log" | tail -n 30
done_testing
