#!/bin/bash
# The main job over sockets: written protected, the data flash and two holders of its stripes lost, read back, written on,
# killed, opened again without them, read back.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
start_system 8 256M 4+2

t "a VM with EC, layout copy" vm_add web1 1 --data-flash f0 --intermediate-flash f1
t "a VM with EC, layout fragments" vm_add web2 2 --data-flash f0 --intermediate-flash f1
t "a VM in mode path: what no row names is intermediate" vm_add db1 3 --data-flash f0 --intermediate-flash f1
t "a VM without rows is plain" vm_add log1 4 --data-flash f0
p device add web1 /dev/ecpool0 --size 64M >/dev/null
p device add web2 /dev/ecpool0 --size 64M --layout fragments >/dev/null
p device add db1 /dev/normal0 --size 64M >/dev/null
p device add log1 /dev/log0 --size 64M >/dev/null
p ec set web1 --ec 1 >/dev/null
p ec set web2 --ec 1 >/dev/null
p ec set db1 --path /dev/ecpool --ec 1 >/dev/null
in_sync
is "$(j '[.items | sort_by(.vm)[] | .card.outcome] | join(" ")' device show)" "intermediate plain protect protect" "the card says so too"

t "web1 is written and read back" io write web1 1 --size 16M --bs mixed --verify --flush
t "web2 is" io write web2 2 --size 16M --bs 64k --depth 64 --verify --flush
t "db1 is" io write db1 3 --size 16M --bs 16k --verify --flush
t "log1 is" io write log1 4 --size 8M --bs 64k --verify --flush
is "$(stat_of 'vm web1' writes.plain) $(stat_of 'vm log1' writes.protect) $(stat_of 'vm db1' writes.protect)" "0 0 0" \
	"every write got the outcome of its VM"
t "in layout copy there were full stripes" \
	test "$(j '.items[0].card.stripes[] | select(.k == 4) | .stripes' pool show)" -gt 10

for f in f0 f3 f5; do p flash fail $f >/dev/null; done
is "$(j '.items[0].card.state' pool show)" degraded "a pool that has lost three of eight says so"
t "web1 is read back from what is left" io verify web1 1 --size 16M --bs mixed
t "so is web2" io verify web2 2 --size 16M --bs 64k
t "so is db1, whose intermediate flash lives" io verify db1 3 --size 16M --bs 16k
t "plain data on the dead flash is a media error" io read log1 4 --size 8M --bs 64k --expect-media-error
t "blocks were decoded" test "$(j '.items[0].card.counters[] | select(.name == "decoded_blocks") | .value' pool show)" -gt 0
t "web1 is written on" io write web1 1 --offset 16M --size 8M --bs mixed --seed 5 --verify --flush
t "web2 is" io write web2 2 --offset 16M --size 8M --bs 64k --seed 5 --verify --flush

kill_dpu 9
mkdir "$dir/gone"
for f in f0 f3 f5; do mv "$dir/$f" "$dir/gone/"; done
start_dpu
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"
is "$(j '.items[0].card.state' pool show)" degraded "killed and started without the three files, the pool opens degraded"
t "web1 is what it was" io verify web1 1 --size 16M --bs mixed
t "also what was written without them" io verify web1 1 --offset 16M --size 8M --bs mixed --seed 5
t "web2 is" io verify web2 2 --size 16M --bs 64k
t "also what was written without them" io verify web2 2 --offset 16M --size 8M --bs 64k --seed 5
t "db1 is" io verify db1 3 --size 16M --bs 16k
t "log1 is a media error and nothing worse" io read log1 4 --size 8M --bs 64k --expect-media-error
t "web1 is written on" io write web1 1 --offset 24M --size 8M --seed 6 --verify --flush

kill_dpu TERM
is "$dpu_rc" 0 "the card ends cleanly"
start_dpu
t "and opens what it closed" io verify web1 1 --offset 24M --size 8M --seed 6
done_testing
