#!/bin/bash
# The job with the real card over kernel sockets: a table decides, the card obeys, and what it says is what the agent said.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/lib.sh
[ -x "$BIN/parapet-dpu" ] && [ -x "$BIN/parapet-io" ] || skip_all "parapet-dpu or parapet-io is not built"
port=$((20000 + $$ % 20000))
nqn=nqn.2026-11.io.parapet:smoke

card_start() {
	"$BIN/parapet-dpu" --state "$dir/state" --control "$dir/card.sock" >>"$dir/card.log" 2>&1 &
	card_pid=$!
	ours $card_pid
	wait_until test -S "$dir/card.sock" || bail "parapet-dpu does not start: $(tail -n 3 "$dir/card.log")"
}
card_kill() {
	kill -9 "$card_pid"
	wait "$card_pid" 2>/dev/null
	card_pid=''
	rm -f "$dir/card.sock"
	wait_until state_is unreachable
}
doc() { # FLASH-6-ADDRESS
	echo "nodes:"
	echo "  - name: n1"
	echo "    address: $card"
	echo "    flashes:"
	for i in 0 1 2 3 4 5; do echo "      - {name: f$i, address: \"file:$dir/f$i\", domain: d$i}"; done
	echo "      - {name: f6, address: \"$1\", domain: d6}"
	cat <<-EOT
	    pool: {ec: 4+2, on_degraded: allow, segment_bytes: 1M}
	    queue: {bytes: 256K, count: 32, age_us: 1000}
	    vms:
	      - name: web1
	        data_flash: f0
	        intermediate_flash: f1
	        listen: 127.0.0.1:$port
	        nqn: $nqn
	        devices:
	          - {path: /dev/ecpool0, size: 16M}
	          - {path: /dev/frag0, size: 16M, layout: fragments}
	          - {path: /dev/normal0, size: 16M}
	        ec:
	          - {path: /dev/ecpool, ec: 1}
	          - {path: /dev/frag*, ec: 1}
	EOT
}
nsid() { j ".items[] | select(.path == \"$1\").card.nsid" device show; }
io() { # COMMAND DEVICE ARGUMENTS...
	local cmd=$1 dev=$2
	shift 2
	"$BIN/parapet-io" "$cmd" --addr 127.0.0.1:$port --nqn $nqn --nsid "$(nsid "$dev")" "$@" >"$dir/io.out" 2>&1
}
written() { j ".items[] | select(.name == \"$1\").card.written.$2" flash show; }
sum() { j "[.items[].card.written.$1] | add" flash show; }

for i in 0 1 2 3 4 5 6; do truncate -s 512M "$dir/f$i"; done
truncate -s 64K "$dir/tiny"
start_agent
card_start

# the pool's bad inputs
is "$(rc_of apply -f <(doc "file:$dir/none"))" 3 "a flash file that is not there is refused"
rc_of apply -f <(doc "file:$dir/tiny") >/dev/null
like "$(cat "$dir/err")" "f6|tiny|small" "one that is too small, too, by its name"
is "$(j '.items | length' node show)" 0 "and nothing of the document is kept"

t "the document is applied" p apply -f <(doc "file:$dir/f6")
is "$(j '.items[0].state' status)" in-sync "the card has it all"
is "$(p apply -f <(doc "file:$dir/f6"))" "nothing to do" "the second time there is nothing to do"
is "$(j '[.items[] | select(.card.nsid)] | length' device show)" 3 "three namespaces"

for what in '/dev/ecpool0 --write' '/dev/frag0 --write' '/dev/normal0 --write' '/dev/ecpool0 --read'; do
	# shellcheck disable=SC2086
	mine=$(j '"\(.outcome)|\(.mode)|\(.result)|\([.steps[].text] | join("|"))"' explain web1 $what)
	# shellcheck disable=SC2086
	theirs=$(j '"\(.outcome)|\(.mode)|\(.result)|\([.steps[].text] | join("|"))"' explain web1 $what --card)
	is "$theirs" "$mine" "agent and card explain $what with the same words"
done

# where writes go
data=$(written f0 data)
t "normal0: 4M are written and verified" io write /dev/normal0 --size 4M --verify
t "... to the intermediate flash" test "$(written f1 intermediate)" -ge $((4 << 20))
is "$(written f0 data)" "$data" "... not to the data area"
t "ecpool0: 4M are written and verified" io write /dev/ecpool0 --size 4M --bs 64k --verify --flush
t "... to the data area" test "$(($(written f0 data) - data))" -ge $((4 << 20))
t "... and at 4+2 to the redundancy areas" test "$(sum redundancy)" -ge $((6 << 20))
data=$(written f0 data)
t "frag0: 4M are written and verified" io write /dev/frag0 --size 4M --bs 64k --verify --flush
is "$(written f0 data)" "$data" "... with layout fragments not to the data area"

# a device in use
io write /dev/ecpool0 --offset 8M --size 1M --time-limit 4 --count 16000 --bs 4k --depth 1 &
busy=$!
wait_until sh -c "'$BIN/parapet' --json device show | jq -e '[.items[].card.connections] | add > 0'"
is "$(rc_of device del web1 /dev/frag0)" 5 "a device is not deleted while it is connected"
is "$(j '.items | length' device show)" 3 "and stays"
# the agent goes and comes back: the card does not need it
kill -9 "$agent_pid"
wait "$agent_pid" 2>/dev/null
rm -f "$PARAPET_AGENT"
start_agent
wait_until state_is in-sync
ok $? "an agent that was killed finds its card again"
# the policy of a live volume
like "$(p ec set web1 --path /dev/ecpool0 --ec 0)" "ecpool0 of web1: protect -> intermediate" "the policy changes under it"
p ec clear web1 --path /dev/ecpool0 >/dev/null
wait $busy
is $? 0 "its writes do not notice"
t "and every byte is there" io verify /dev/ecpool0 --size 4M --bs 64k

# power gone
card_kill
card_start
wait_until state_is in-sync
ok $? "after SIGKILL the same pool opens and the tables are the same"
is "$(j '.items[0] | .version == .card_version' status)" true "... by number"
for dev in ecpool0 frag0; do
	t "$dev: every byte is there" io verify /dev/$dev --size 4M --bs 64k
done
t "normal0: every byte is there" io verify /dev/normal0 --size 4M
p flash fail f0 >/dev/null
p flash fail f2 >/dev/null
for dev in ecpool0 frag0; do
	t "$dev: also without its data flash and one more" io verify /dev/$dev --size 4M --bs 64k
done
like "$(j '.items[0].card.pool.degraded | join(" ")' status)" . "status tells that the pool is degraded"
wait_until sh -c "'$BIN/parapet' --json events | jq -es 'map(select(.severity != \"info\")) | length > 0'"
ok $? "and there are events"
t "a device is deleted when nobody is connected" p device del web1 /dev/frag0
[ $tap_bad = 0 ] || sed 's/^/# card: /' "$dir/card.log" | tail -n 30
done_testing
