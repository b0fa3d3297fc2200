#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Caps and weights of VMs, changed while they run, judged by the card's own counters and clock; and `parapet top`.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
start_system 4 512M 2+1
vm_add slow 1 --data-flash f0 --bandwidth 100
vm_add free 2 --data-flash f1
t "devices for both" eval 'p device add slow /dev/s0 --size 64M && p device add free /dev/f0 --size 64M'
t "writes are protected" eval 'p ec set slow --path /dev/s --ec 1 && p ec set free --path /dev/f --ec 1'
in_sync
ok $? "the card has it"

# ---- settings
is "$(rc_of vm set slow --bandwidth 150)" 4 "a bandwidth between two steps is refused"
like "$(cat "$dir/err")" "vm slow: bandwidth_mbps: 150 is between two steps" "object, field and reason are named"
like "$(cat "$dir/err")" "allowed: multiples of 100 up to 1000000" "and what is allowed"
is "$(rc_of vm set slow --weight 1001)" 4 "a weight out of range is refused"
is "$(rc_of vm set slow --burst-ms 0)" 4 "a burst of nothing is refused"
is "$(j '.items[0] | "\(.bandwidth_mbps) \(.iops)"' vm show slow)" "100 null" "nothing has changed"
like "$(p vm show slow)" "bandwidth cap .Mbit/s. *100" "people see the cap"

# ---- a capped VM beside a free one
look() { # SECONDS: one line of JSON about so long
	j . top --once --interval "$1" --sort name >"$dir/top.json"
}
of() { # VM FILTER
	jq -r ".vms[] | select(.name == \"$1\") | $2" "$dir/top.json"
}
within() { # VALUE FROM TO
	awk -v v="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(v >= a && v <= b) }' || {
		echo "# $1 is not within $2..$3"
		return 1
	}
}
load_start slow 1 --bs 64k --depth 32
load_start free 2 --bs 64k --depth 32
wait_until sh -c "'$BIN/parapet' --json top --once --interval 0.2 | jq -e '[.vms[] | select(.write.iops > 0)] | length == 2'"
ok $? "both are at work"
look 1 # the burst is over then
look 3
echo "# $(jq -c '.vms[] | [.name, .bytes_per_s, .p99_us, .capped_percent, .waiting]' "$dir/top.json" | tr '\n' ' ')"
t "the capped one gets what its cap says" within "$(of slow .bytes_per_s)" 4000000 14500000
t "most of the time its cap holds it back" within "$(of slow .capped_percent)" 10 100
is "$(of free .capped_percent)" 0 "the other one has none"
t "the card keeps percentiles of each operation" within "$(stat_of "vm slow" latency_ns_p99.write)" "$(stat_of "vm slow" latency_ns_p50.write)" 100000000000
accepted=$(stat_of "vm slow" accepted)
connects=$(stat_of "vm slow" connects)

t "the cap is doubled while it runs" p vm set slow --bandwidth 200
look 1
look 3
before=$(of slow .bytes_per_s)
t "it gets more than before, and at most the double" within "$before" 8000000 29000000
t "a cap of requests holds beside that of bytes" p vm set slow --iops 50 --bandwidth 0
look 1
look 3
echo "# $(jq -c '.vms[] | [.name, .iops]' "$dir/top.json" | tr '\n' ' ')"
t "fifty a second" within "$(of slow .iops)" 25 58
t "both caps are taken off" p vm set slow --iops '' --bandwidth ''
look 1
look 2
t "it is far beyond them now" within "$(of slow .iops)" 100 100000000
is "$(stat_of "vm slow" accepted) $(stat_of "vm slow" connects)" "$accepted $connects" "and was never disconnected"
t "a weight is set while they compete" p vm set free --weight 300
look 2
is "$(of free .weight) $(of slow .weight)" "300 100" "and in force"

# ---- top
t "a table is shown where there is no terminal" eval 'p top --once --interval 0.5 >"$dir/top.txt"'
like "$(cat "$dir/top.txt")" "^card n1: .* IOPS, .* MB/s in the last" "of the card"
like "$(cat "$dir/top.txt")" "batches: .*/s of .* writes, stripes of .* blocks \(.* % full\)" "of its batches and stripes"
for title in "VM .*P99-W.*CAPPED" "^free " "protect *device .*%" "protect *queue" "FLASH .*UTIL" "^f0 "; do
	grep -Eq "$title" "$dir/top.txt"
	ok $? "it has '$title'"
done
is "$(p top --count 3 --interval 0.2 | grep -c '^card n1:')" 3 "as often as asked for"
is "$(p --json top --count 2 --interval 0.2 | jq -s 'length')" 2 "with --json a line each"
look 1
is "$(jq '[.stages[] | select(.stage == "wait" or .stage == "admit" or .stage == "device" or .stage == "finish") | .share_percent] | add | round' "$dir/top.json")" 100 "the stages' shares are all there is"
is "$(jq '[.vms[].write | .p50_us > 0 and .p50_us <= .p99_us and .p99_us <= .max_us] | all' "$dir/top.json")" true "percentiles are in order"
is "$(jq '.card | .write_amplification > 1 and .batch_writes >= 1 and .stripe_blocks >= 1' "$dir/top.json")" true "the card's figures make sense"
is "$(jq '[.flashes[] | .util_percent > 0 and .util_percent <= 100] | all' "$dir/top.json")" true "every flash is at work"
is "$(rc_of top --interval 0)" 2 "an interval of nothing is wrong usage"
is "$(rc_of top --sort size)" 2 "an unknown order as well"
if command -v script >/dev/null; then
	# A terminal of 24 lines and 100 columns; the answer to q is that it ends.
	{
		sleep 1.5
		printf i
		sleep 0.5
		printf q
	} | timeout 30 script -qec "stty rows 24 cols 100; '$BIN/parapet' top --interval 0.3" /dev/null >"$dir/screen"
	is "$?" 0 "on a terminal it runs until q is pressed"
	like "$(tr -d '\n' <"$dir/screen")" $'\033\\[\\?1049h.*\033\\[\\?1049l' "on a screen of its own, and leaves it"
	like "$(tr -d '\n' <"$dir/screen")" "sorted by bytes.*sorted by iops" "keys change the order"
	grep -q "P99-W" "$dir/screen"
	ok $? "the table is there"
else
	skip "on a terminal it is a screen" "script(1) is not installed"
fi

# ---- to the end
load_end slow
ok $? "what the capped one wrote is right"
load_end free
ok $? "so is the other's"
t "a cap for the next start" p vm set slow --bandwidth 300 --burst-ms 20
kill_dpu KILL
start_dpu
in_sync
wait_until sh -c "'$BIN/parapet' --json top --once --interval 0.2 | jq -e '.vms[] | select(.name == \"slow\") | .mbps_cap == 300'"
ok $? "is in force after it"
t "a VM with a cap is deleted" eval 'p ec clear slow && p device del slow /dev/s0 && p vm del slow'
done_testing
