#!/bin/bash
# The card is killed again and again while a VM writes: the initiator comes back, checks what was acknowledged, goes on.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
start_system 6 256M 2+1
vm_add web1 1 --data-flash f0 --intermediate-flash f1
p device add web1 /dev/ecpool0 --size 16M >/dev/null
p device add web1 /dev/normal0 --size 12M >/dev/null
p ec set web1 --path /dev/ecpool --ec 1 >/dev/null
p ec set web1 --path /dev/normal --ec 0 >/dev/null
in_sync
ok $? "the card has its tables"

run() { # NSID SEED: writes in the background
	"$BIN/parapet-io" write --addr "127.0.0.1:$((tcp + 1))" --nqn nqn.2026-01.test:web1 --nsid "$1" --seed "$2" \
		--bs mixed --random --depth 16 --time-limit 6 --count 16000 --reconnect 60 --verify --json >"$dir/run$1.json" 2>"$dir/run$1.err" &
}
nsid() { # BYTES: namespaces are told apart by their size
	io identify web1 1 --json
	jq ".namespaces[] | select(.bytes == $1) | .nsid" "$dir/io.out"
}
protected=$(nsid $((16 << 20))) plain=$(nsid $((12 << 20)))
run "$protected" 11
a=$!
run "$plain" 12
b=$!
ours "$a" "$b"
for _ in 1 2 3; do
	sleep 1
	kill_dpu 9
	start_dpu
done
for run in "$a $protected a protected device" "$b $plain a plain device"; do
	read -r pid ns what <<<"$run"
	wait "$pid"
	rc=$?
	json=$dir/run$ns.json
	[ $rc = 0 ] || { sed 's/^/# /' "$dir/run$ns.err" | tail -n 5; jq -c '{statuses, findings}' "$json" | sed 's/^/# /'; }
	ok $rc "$what is written and verified over three SIGKILLs of the card"
	echo "# $what: $(jq -c '{ops, retries, reconnects, rechecked, mismatches, generation_max}' "$json")"
	[ "$(jq .reconnects "$json")" -ge 1 ]
	ok $? "$what: the connection broke and came back"
	[ "$(jq .rechecked "$json")" -ge 1 ]
	ok $? "$what: acknowledged data was checked after it"
done
t "a read beyond the end gets its status" io read web1 1 --nsid "$protected" --offset 16M --size 4K --expect-status 0x80
t "digests make no difference" io write web1 1 --nsid "$protected" --seed 3 --digests hdr,data --queues 2 --verify
done_testing
