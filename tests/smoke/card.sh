#!/bin/bash
# Agent and card: push, compare-and-swap, refusals that leave nothing, loss and return, schedules. The card is its twin.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/lib.sh
start_agent
p node add n1 --address "$card" >/dev/null
for i in 0 1 2; do p flash add f$i --address mem:1G --domain d$i >/dev/null; done
is "$(j '.nodes[0].state' vm add web1 --data-flash f0 --intermediate-flash f1)" pending "without a card a change is kept as pending"
p pool create --ec 2+1 >/dev/null
p device add web1 /dev/ecpool0 --size 64M >/dev/null
is "$(j '.items[0].state' status)" unreachable "and the card is called unreachable"

start_twin
wait_until state_is in-sync
ok $? "a card that appears is brought up to date"
is "$(j '.items[0] | .version == .card_version' status)" true "it has the newest tables"
is "$(j '.items[0].card.state' pool show)" online "its pool was made"
is "$(j '.items[0].card.path' device show)" /dev/ecpool0 "and its device"
is "$(j '.items[0].on_card' table history)" true "the history shows which version is there"
is "$(j '.stats[0].value' stats)" 1 "counters are relayed"
is "$(j '.rules | length' flow show)" 0 "so are flow rules"
wait_until sh -c "'$BIN/parapet' --json events | jq -es 'map(.kind) | index(\"tables-applied\")'"
ok $? "so are events"

is "$(j '.nodes[0].state' ec set web1 --path /dev/ecpool --ec 1)" applied "a change goes out at once"
is "$(p table push)" "node n1: tables version $(j .version table show) was on the card already" "a push of the same is told so"
v=$(j .version table show)

is "$(rc_of pool open)" 5 "a pool that is open is not opened again"

# refused by the card: nothing is kept, neither here nor there
is "$(rc_of device add web1 /dev/full0 --size 64M)" 5 "the card's refusal is the command's"
like "$(cat "$dir/err")" "no room" "with the card's reason"
is "$(j '.items | length' device show)" 1 "the device is not kept"
is "$(j '.devices | length' --agent "$PARAPET_AGENT" table show 2>/dev/null; j '.body.devices | length' table show)" "0
1" "nor in the tables"
is "$(j .card_version table show)" "$(j .version table show)" "the card is back where it was"
is "$(j '.differences | length' table diff "$v")" 0 "with the same contents"
like "$(j '.items[1].what' table history)" "undone.*no room" "and the history tells"
is "$(j '.items[0].state' status)" in-sync "nothing is left open"
is "$(rc_of apply -f <(echo "{nodes: [{name: n1, address: '$card', vms: [{name: web2, data_flash: f0, devices: [{path: /dev/ok, size: 64M}, {path: /dev/full, size: 64M}]}]}]}"))" 5 "a document with one refused device"
is "$(j '.items | length' vm show) $(j '[.items[].card.path] | join(",")' device show)" "1 /dev/ecpool0" "leaves no VM and no device"
is "$(j '.stats[0].value' stats)" 1 "on the card neither"

# deleting
p device add web1 /dev/busy0 --size 64M >/dev/null
is "$(rc_of device del web1 /dev/busy0)" 5 "a device in use is not deleted"
like "$(cat "$dir/err")" "connected" "with the reason"
is "$(j '.items | length' device show)" 2 "and stays"
p device add web1 /dev/gone0 --size 64M >/dev/null
t "another is" p device del web1 /dev/gone0
is "$(j '.stats[0].value' stats)" 2 "on the card too"

# someone else has changed the card
kill -USR1 "$twin_pid"
sleep 0.3
is "$(j '.nodes[0].state' vm set web1 --cores 2)" pending "tables of another manager are not overwritten"
is "$(j '.items[0].state' status)" problem "it is a problem that status shows"
like "$(j '.items[0].problem' status)" "does not come from here" "with the reason"
is "$(rc_of table push)" 5 "a push is refused"
like "$(cat "$dir/err")" "fetch --adopt.*--force" "with both ways out"
is "$(j '.differences[] | select(.object | test("row")) | .change' table fetch)" removed "fetch shows what differs"
t "force replaces the card's" p table push --force
wait_until state_is in-sync
ok $? "and all is well again"
is "$(j '.differences | length' table fetch)" 0 "with our contents"
kill -USR1 "$twin_pid"
sleep 0.3
p vm set web1 --cores 3 >/dev/null
t "adopt takes the card's" p table fetch --adopt
is "$(j '.items | length' ec show)" 0 "its rows are ours now"
is "$(j '[.items[].size] | unique[]' device show)" 67108864 "devices keep their sizes"
wait_until state_is in-sync
ok $? "and all is well again"
is "$(j '.nodes[0].state' ec set web1 --path /dev/ecpool --ec 1)" applied "changes go out again"

# the card goes and comes back
kill_twin
wait_until state_is unreachable
ok $? "a lost card is noticed"
is "$(j '.nodes[0].state' vm set web1 --cores 4)" pending "changes are kept"
is "$(rc_of device del web1 /dev/ecpool0)" 7 "what needs the card says so"
rm -f "$dir/card.sock"
start_twin
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].card_version == .items[0].version'"
ok $? "a card that comes back gets the newest tables, though it had forgotten everything"
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].state == \"problem\"'"
like "$(j '.items[0].problem' status)" "no longer in the card's pool" "volumes that are gone are a problem, not made anew"
is "$(j '[.items[].card] | map(select(. != null)) | length' device show)" 0 "indeed"

# lost in the middle of a change
kill -USR2 "$twin_pid"
is "$(rc_of vm set web1 --cores 5)" 0 "a card lost in the middle leaves the change pending"
is "$(j '.items[0].cores' vm show)" 5 "kept here"
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].card_version == .items[0].version'"
ok $? "and sent when it is back"

# schedules
is "$(rc_of node set n1 --schedule 'every 0')" 4 "a schedule that is none is refused"
t "a schedule is set" p node set n1 --schedule 'every 1'
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"
is "$(j '.nodes[0] | "\(.state) \(.reason)"' vm set web1 --cores 6)" "pending kept for the node's push schedule" "with a schedule a change waits"
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].card_version == .items[0].version'"
ok $? "until its time has come"
p node set n1 --schedule realtime >/dev/null

# a document for a new node, whose card is there and says no
"$BIN/card-twin" "$dir/card2.sock" &
second_pid=$!
ours $second_pid
wait_until test -S "$dir/card2.sock"
doc() { echo "{nodes: [{name: n2, address: 'unix:$dir/card2.sock', flashes: [{name: f0, address: 'mem:$1'}, {name: f1, address: 'mem:1G'}], pool: {ec: 1+1}, vms: [{name: w, data_flash: f0, devices: [{path: /dev/a, size: 64M}]}]}]}"; }
is "$(rc_of apply -f <(doc small))" 5 "a card that refuses the pool refuses the document"
is "$(j '[.items[].name] | join(",")' node show)" n1 "and its node is forgotten again"
is "$(j '.nodes[] | select(.node == "n2").state' apply -f <(doc 1G))" applied "the same with flash that fits is applied at once"
is "$(j '.items[0].card.path' device show --node n2)" /dev/a "with its device"
kill "$second_pid"

# many at once
first=$(j .version table show --node n1)
pids=()
for i in 1 2 3 4 5 6 7 8; do
	"$BIN/parapet" vm set web1 --node n1 --cores $((10 + i)) >/dev/null &
	pids+=($!)
done
bad=0
for i in "${pids[@]}"; do wait "$i" || bad=$((bad + 1)); done
is "$bad" 0 "eight changes at once all succeed"
is "$(j .version table show --node n1)" $((first + 8)) "each as a version of its own"
is "$(j '.items[0] | .version == .card_version' status --node n1)" true "and the card has the last"
pids=()
for i in 1 2 3 4 5 6 7 8; do
	"$BIN/parapet" vm set web1 --node n1 --cores $((20 + i)) --base $((first + 8)) >/dev/null 2>&1 &
	pids+=($!)
done
good=0
for i in "${pids[@]}"; do wait "$i" && good=$((good + 1)); done
is "$good" 1 "of eight changes from the same version one succeeds"

# a card that hangs
kill -STOP "$twin_pid"
is "$(j '.nodes[] | select(.node == "n1").state' vm set web1 --node n1 --cores 2)" pending "a card that hangs is a card that is not there"
kill -CONT "$twin_pid"
wait_until sh -c "'$BIN/parapet' --json status --node n1 | jq -e '.items[0] | .connected and .version == .card_version'"
ok $? "until it wakes up"

# the agent dies between a push and its commit
"$BIN/parapet" device add web1 /dev/slow0 --node n1 --size 64M >/dev/null 2>&1 &
adding=$!
wait_until grep -q slow0 "$dir/twin.log"
kill -9 "$agent_pid"
wait "$agent_pid" 2>/dev/null
wait "$adding"
is "$?" 1 "an agent dies during a change"
rm -f "$PARAPET_AGENT"
start_agent
wait_until sh -c "'$BIN/parapet' --json status --node n1 | jq -e '.items[0] | .connected and .version == .card_version'"
ok $? "the next one takes back what was pushed and never committed"
is "$(j '.body.devices[] | select(.path == "/dev/slow0")' table fetch --node n1)" "" "the card has no trace of it in its tables"
t "the same change can be made again" p device add web1 /dev/slow0 --node n1 --size 64M

# the agent's store is lost, the card is not
stop_agent
rm -f "$dir"/agent.db*
start_agent
p node add n1 --address "$card" >/dev/null
for i in 0 1 2; do p flash add f$i --address mem:1G --domain d$i >/dev/null; done
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"
p pool create --ec 2+1 >/dev/null
is "$(j '.items[0].state' status)" problem "an agent that knows nothing does not overwrite a card that does"
t "it adopts" p table fetch --adopt
is "$(j '.items[0].cores' vm show)" 2 "what the card has"
is "$(j '.items[0].state' status)" in-sync "and they agree"

# following events
"$BIN/parapet" --json events --follow >"$dir/events" &
ours $!
sleep 0.3
kill_twin
wait_until grep -q card-lost "$dir/events"
ok $? "events are followed as they come"
is "$(jq -s 'map(.seq) | . == sort and (unique | length) == length' "$dir/events")" true "in order, each once"

stop_agent
is "$agent_rc" 0 "the agent ends cleanly, also while someone follows events"
done_testing
