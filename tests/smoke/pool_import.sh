#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A pool is taken over by another card: refused while it is owned, where members are of two pools, or too few are there; then with all its bytes.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
start_system 4 64M 2+1
vm_add web1 1 --data-flash f0
p device add web1 /dev/ecpool0 --size 8M >/dev/null
p ec set web1 --path /dev/ecpool --ec 1 >/dev/null
in_sync
t "a VM writes to the first card" io write web1 1 --bs 64k --flush

# another card and, as a node of its own, another pool
start_second() {
	rm -f "$dir/card2.sock"
	"$BIN/parapet-dpu" --state "$dir/state2" --control "$dir/card2.sock" >>"$dir/dpu2.log" 2>&1 &
	second=$!
	ours $second
	wait_until test -S "$dir/card2.sock" || bail "the second card does not start"
}
start_second
p node add n2 --address "unix:$dir/card2.sock" >/dev/null
wait_until sh -c "'$BIN/parapet' --json status --node n2 | jq -e '.items[0].connected'"
all=(f0=file:$dir/f0 f1=file:$dir/f1 f2=file:$dir/f2 f3=file:$dir/f3)
import() { rc_of pool import --node n2 "$@"; }
is "$(rc_of pool import --node n2)" 2 "an import of nothing is wrong usage"
is "$(import f0)" 4 "a member without an address is refused"
like "$(cat "$dir/err")" "NAME=ADDRESS" "and what is allowed is named"
is "$(import f0=floppy:0)" 4 "an address that is none, too"
is "$(import "${all[@]}")" 5 "the pool is owned: refused"
like "$(cat "$dir/err")" "flash f0: .*f0" "with the flash and the reason"
is "$(j '.items | length' flash show --node n2)" 0 "nothing was kept of it"
is "$(j '.items[0].card.pool.state' status --node n2)" none "nor on the card"
t "the owner still reads it" io verify web1 1 --bs 64k

# members of two pools
mkdir "$dir/other"
for i in 0 1 2; do truncate -s 64M "$dir/other/g$i"; done
"$BIN/parapet-dpu" --state "$dir/state3" --control "$dir/card3.sock" >>"$dir/dpu3.log" 2>&1 &
third=$!
ours $third
wait_until test -S "$dir/card3.sock"
p node add n3 --address "unix:$dir/card3.sock" >/dev/null
for i in 0 1 2; do p flash add --node n3 g$i --address "file:$dir/other/g$i" >/dev/null; done
wait_until sh -c "'$BIN/parapet' --json status --node n3 | jq -e '.items[0].connected'"
p pool create --node n3 --ec 2+1 --segment 1M >/dev/null
kill $third
wait $third 2>/dev/null
kill_dpu KILL
is "$(import "${all[@]:0:3}" g0=file:$dir/other/g0)" 5 "members of two pools are refused"
like "$(cat "$dir/err")" "g0|another pool|other pool" "and the one that does not belong is named"
: >"$dir/empty" && truncate -s 64M "$dir/empty"
import f0=file:$dir/empty >/dev/null
like "$(cat "$dir/err")" "superblock|no pool|not.*pool" "an empty device is no pool"

# too few of them
like "$(import --take-over "${all[@]:0:1}")" "^[15]$" "one of four for 2+1 is refused"
like "$(cat "$dir/err")" "f1, f2, f3" "and those that are missing are named"

# one is missing: that is what the parity is for
is "$(import "${all[@]:0:3}")" 5 "its last owner is another card: nobody has said that it is off"
like "$(cat "$dir/err")" "last owner is card .*--take-over" "the reason, and what is allowed"
is "$(j '.error.code' pool import --node n2 "${all[@]:0:3}")" EOWNERDEAD "programs are told, too"
is "$(j '.items | length' flash show --node n2)" 0 "nothing was kept of it"
on_terminal() { # ANSWER
	printf '%s\n' "$1" | timeout 60 script -qec "'$BIN/parapet' pool import --node n2 ${all[*]:0:3}" /dev/null >"$dir/out" 2>&1
}
on_terminal no
is $? 5 "on a terminal it is asked: no"
like "$(cat "$dir/out")" "Is the former owner off" "with what is at stake"
is "$(j '.items[0].card.pool.state' status --node n2)" none "and nothing is opened"
on_terminal yes
ok $? "three of four are taken over: yes"
is "$(j '[.items[].name] | sort | join(",")' flash show --node n2)" f0,f1,f2,f3 "all four are known, from the pool itself"
is "$(j '.items[] | select(.name == "f3") | .card.state' flash show --node n2)" missing "one is missing"
is "$(j '.items[0] | "\(.ec) \(.card.state)"' pool show --node n2)" "2+1 degraded" "the pool has its code, and is degraded"
is "$(rc_of pool import --node n2 "${all[@]}")" 5 "a second import is refused"
p vm add web1 --node n2 --data-flash f0 --listen "127.0.0.1:$((tcp + 2))" --nqn nqn.2026-01.test:web1 >/dev/null
t "the same device is attached, not made" p device add --node n2 web1 /dev/ecpool0 --size 8M
t "its bytes are right on the other card" io verify web1 2 --bs 64k
t "and it takes new ones" io write web1 2 --bs 64k --offset 4M --size 4M --seed 7 --flush
kill -9 $second
wait $second 2>/dev/null
start_second
wait_until sh -c "'$BIN/parapet' --json status --node n2 | jq -e '.items[0].card.pool.state == \"degraded\"'"
ok $? "the other card remembers it"
wait_until io verify web1 2 --bs 64k --offset 4M --size 4M --seed 7
ok $? "with its bytes"

# the former owner comes back when the new one is off: it does not take the pool back by itself
kill -9 $second
wait $second 2>/dev/null
start_dpu
wait_until sh -c "'$BIN/parapet' --json status --node n1 | jq -e '.items[0].card.pool.state == \"failed\"'"
ok $? "the former owner does not open what another card has had since"
like "$(j '.items[0].card.pool.reason' status --node n1)" "last owner is card .*--take-over" "and says why"
kill_dpu TERM
start_second
wait_until io verify web1 2 --bs 64k --offset 4M --size 4M --seed 7
ok $? "the new owner has it again"

# the former owner comes back: it is refused while the new one has it
start_dpu
wait_until sh -c "'$BIN/parapet' --json status --node n1 | jq -e '.items[0].card.pool.state == \"failed\"'"
ok $? "the former owner does not get it"
like "$(j '.items[0].card.pool.reason' status --node n1)" "f0" "and says why"
done_testing
