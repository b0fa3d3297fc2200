#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Settings that are given by the CLI and must be in effect on a real card: queue, device, geometry of flash.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
flash_files 3 64M
dpu_args='-- --no-huge --no-pci'
start_dpu
like "$(cat "$dir/dpu.log")" "warn .*ordinary memory.*a fifth more.*nr_hugepages" "without huge pages the card starts and says what that costs"
start_agent
p node add n1 --address "$card" >/dev/null

# f0 tears at 512 bytes, f1 at 4096, both with blocks of 512
t "flash with its atomic write and block size" p flash add f0 --address "file:$dir/f0" --atomic 512 --block 512
t "and with another atomic write size" p flash add f1 --address "file:$dir/f1" --atomic 4096 --block 512
p flash add f2 --address "file:$dir/f2" --atomic 4K --block 512 >/dev/null
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"
if grep -q '^HugePages_Total: *0$' /proc/meminfo; then
	like "$(p status)" "warning: .*no huge pages: copies cost about a fifth more" "status says it of a machine without them"
else
	skip "status says it of a machine without them" "this machine has huge pages"
fi
t "make a pool" p pool create --ec 1+1 --segment 1M
vm_add small 1 --data-flash f0 --intermediate-flash f2
vm_add large 2 --data-flash f1 --intermediate-flash f2
p device add small /dev/a --size 8M >/dev/null
p device add large /dev/b --size 8M >/dev/null
p device add large /dev/c --size 4M --block 512 >/dev/null
in_sync
ok $? "the card has it all"
block_of() { j ".items[] | select(.path == \"$1\").card.block_bytes" device show; }
is "$(block_of /dev/a)" 512 "on flash that tears at 512 a device has blocks of 512"
is "$(block_of /dev/b)" 4096 "on the other one of 4096"
is "$(block_of /dev/c)" 512 "unless it was asked for"
io identify small 1 --json
is "$(jq '.namespaces[0].block_bytes' "$dir/io.out")" 512 "which is what the VM sees"
t "small blocks are written and verified" io write small 1 --size 1M --bs 512 --verify
rc=$(rc_of device add large /dev/d --size 4M --block 1K)
like "$rc $(cat "$dir/err")" "^[45] .*(512|4096)" "a device's block size that is none is refused, with those there are"

# a device's access method decides: table rows name one
p vm set small --mode method >/dev/null
p ec set small --method object --ec 1 >/dev/null
outcome() { j '.items[] | select(.path == "/dev/a").card.outcome' device show; }
is "$(outcome)" intermediate "a device of another method is intermediate"
t "the device's method is set" p device set small /dev/a --method object
is "$(j '.items[] | select(.path == "/dev/a").method_in_effect' device show) $(outcome)" "object protect" "and the card protects it"
is "$(rc_of device set small /dev/none --method object)" 3 "a device there is none of cannot be set"

# the queue controller: unset, each option alone, all together, unset again
queue() { j ".items[0].card.queue | [.bytes, .count, .age_us, .each, .per_vm, .group_commit] | join(\" \")" status; }
default=$(queue)
like "$default" ".* false false true$" "the card tells its queue's defaults"
batches() { j '.items[0].card.counters[] | select(.name == "closed_request") | .value' pool show; }
before=$(batches)
t "queue set --each" p queue set --each on
is "$(queue)" "${default/false false true/true false true}" "reaches the card"
t "writes are batches of their own then" io write small 1 --size 1M --bs 4k --verify
t "which the card counts" test "$(($(batches) - before))" -ge 256
t "queue set --per-vm" p queue set --per-vm on
is "$(queue)" "${default/false false true/true true true}" "reaches the card and leaves the rest"
t "queue set --group-commit" p queue set --group-commit off --each off
is "$(queue)" "${default/false false true/false true false}" "reaches the card"
t "queue set with sizes" p queue set --bytes 128K --count 16 --age-us 300
is "$(queue)" "131072 16 300 false true false" "reaches the card"
is "$(j '.items[0] | "\(.bytes) \(.count) \(.age_us) \(.each) \(.per_vm) \(.group_commit)"' queue show)" "131072 16 300 false true false" "queue show says the same"
t "I/O goes on" io write small 1 --size 1M --bs 4k --verify
is "$(rc_of queue set --each maybe)" 4 "a value that is none is refused"
is "$(queue)" "131072 16 300 false true false" "and changes nothing"
done_testing
