#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The whole card through testpmd: parapet-dpu configured by the CLI, parapet-io in the VMs. Two VMs with the very same
# addresses; what one does wrong does not touch the other; testpmd and card killed under I/O.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/testpmd/lib.sh
BIN=${BIN:-build/gcc/bin}
tp_init

CARD=10.1.0.1
cli() { "$BIN/parapet" --agent "$TP_DIR/agent.sock" "$@"; }
nqn() { echo "nqn.2026-11.io.parapet:$1"; }
io() { # VM COMMAND OPTIONS...
	local vm=$1 cmd=$2
	shift 2
	tp_run "$vm" timeout 120 "$BIN/parapet-io" "$cmd" --addr $CARD --nqn "$(nqn "$vm")" --json "$@" \
		>"$TP_DIR/io.$vm" 2>"$TP_DIR/io.$vm.err"
}
io_ok() { # DESCRIPTION VM COMMAND OPTIONS...
	local what=$1 rc
	shift
	io "$@"
	rc=$?
	[ $rc = 0 ] || sed 's/^/# /' "$TP_DIR/io.$1" "$TP_DIR/io.$1.err"
	ok $rc "$what"
}
card_start() {
	rm -f "$TP_DIR/card.sock"
	# shellcheck disable=SC2046
	"$BIN/parapet-dpu" --state "$TP_DIR/state" --control "$TP_DIR/card.sock" -- $(tp_eal) >>"$TP_DIR/card.log" 2>&1 </dev/null &
	tp_adopt card $!
	tp_wait 30 test -S "$TP_DIR/card.sock" || { tail "$TP_DIR/card.log" | sed 's/^/# /'; bail "the card did not start"; }
}
in_sync() { [ "$(cli status --json | jq -r '.items[0].state')" = in-sync ]; }
serves() { io "$1" read --count 1 --bs 4k; }
counter() { # OBJECT NAME
	cli stats --json | jq -r --arg o "$1" --arg n "$2" '[.. | objects | select(.object? == $o and .name? == $n) | .value] | add // 0'
}

# ---- configuration
flash=$(mktemp -d "${TMPDIR:-/var/tmp}/parapet-card.XXXXXX")
echo "$flash" >"$TP_DIR/flash.dir"
for i in 0 1 2 3 4; do truncate -s 1G "$flash/f$i"; done
tp_vf vm1 10.1.0.2/24
tp_vf vm2 10.1.0.2/24
tp_start
card_start
tp_spawn agent "$TP_DIR/agent.log" "$BIN/parapet-agent" --api "$TP_DIR/agent.sock" --store "$TP_DIR/agent.db"
tp_wait 10 test -S "$TP_DIR/agent.sock" || bail "the agent did not start"
cat >"$TP_DIR/card.yaml" <<EOT
nodes:
  - name: n1
    address: unix:$TP_DIR/card.sock
    flashes:
$(for i in 0 1 2 3 4; do echo "      - {name: f$i, address: \"file:$flash/f$i\"}"; done)
    pool: {ec: 2+1, segment_bytes: 1M}
    vms:
      - {name: vm1, vf: net_memif0, card_ip: $CARD/24, nqn: "$(nqn vm1)", data_flash: f0, intermediate_flash: f4,
         devices: [{path: /dev/ecpool0, size: 16M}], ec: [{ec: 1}]}
      - {name: vm2, vf: net_memif1, card_ip: $CARD/24, nqn: "$(nqn vm2)", data_flash: f0, intermediate_flash: f4,
         devices: [{path: /dev/ecpool0, size: 16M}], ec: [{ec: 1}]}
EOT
cli apply -f "$TP_DIR/card.yaml" >"$TP_DIR/apply.log" 2>&1
ok $? "the configuration is applied"
t "and reaches the card" tp_wait 30 in_sync
t "VM 1 can be served" tp_wait 15 serves vm1
t "VM 2 can be served" tp_wait 15 serves vm2

# ---- I/O, both at once
io vm2 write --seed 2 --bs mixed --random --depth 8 --verify & two=$!
io_ok "VM 1 writes and verifies with digests" vm1 write --seed 1 --bs 32k --depth 8 --verify --digests hdr,data --flush
wait $two
ok $? "VM 2 writes and verifies mixed sizes at the same time"
io_ok "each has its own data: VM 1" vm1 verify --seed 1 --bs 64k
io_ok "each has its own data: VM 2" vm2 verify --seed 2 --bs 64k
[ "$(cli flow show --json | jq '[.rules[] | select(.port == "net_memif0" and (.match | test("port 4420"))) | .packets] | add')" -gt 100 ]
ok $? "flow show counts VM 1's frames"

# ---- one VM's misdeeds
tp_run vm1 "$BIN/parapet-io" read --addr $CARD --nqn "$(nqn vm2)" --count 1 >/dev/null 2>&1
is $? 2 "VM 1 cannot connect to VM 2's subsystem"
tp_run vm1 "$BIN/parapet-io" discover --addr $CARD --json >"$TP_DIR/discover" 2>&1
grep -q "$(nqn vm1)" "$TP_DIR/discover" && ! grep -q "$(nqn vm2)" "$TP_DIR/discover"
ok $? "discovery shows VM 1 its own subsystem only"
io vm2 verify --seed 2 --bs 16k --depth 4 --time-limit 3 & two=$!
errors=$(counter "vm vm1" pdu_errors)
for _ in 1 2 3 4 5; do
	head -c 3000 /dev/urandom | tp_run vm1 timeout 5 socat -t 0.2 - TCP:$CARD:4420,connect-timeout=2 >/dev/null 2>&1
done
wait $two
ok $? "garbage from VM 1 does not disturb VM 2"
is "$(($(counter "vm vm1" pdu_errors) - errors)) $(counter "vm vm2" pdu_errors)" "5 0" "each piece of garbage is counted as a PDU error, for VM 1 only"
io_ok "and VM 1 can still connect" vm1 verify --seed 1 --bs 64k

# ---- testpmd and card killed under I/O
io vm1 write --seed 5 --bs 16k --depth 8 --time-limit 6 --reconnect 60 --verify & one=$!
sleep 1.5
tp_kill KILL
sleep 0.5
tp_start
wait $one
ok $? "I/O outlives a testpmd that is killed and started again"
[ "$(jq .errors "$TP_DIR/io.vm1")" = 0 ] || sed 's/^/# /' "$TP_DIR/io.vm1"
io vm2 write --seed 6 --bs 16k --depth 8 --time-limit 6 --reconnect 60 --verify & two=$!
sleep 1.5
tp_end card KILL
card_start
while kill -0 $two 2>/dev/null; do
	tp_heal
	sleep 0.5
done
wait $two
ok $? "I/O outlives a card that is killed and started again"
[ "$(jq .reconnects "$TP_DIR/io.vm2")" -ge 1 ]
ok $? "the VM has connected anew"
t "the agent finds the card again" tp_wait 30 in_sync

# ---- reception
for how in polling interrupt adaptive; do
	cli node set n1 --reception $how >"$TP_DIR/set.log" 2>&1
	ok $? "reception $how is set"
	t "reception $how: the card has its tables" tp_wait 10 in_sync
	is "$(cli status --json | jq -r '.items[0].card.reception')" $how "reception $how: the card says so"
	io_ok "reception $how: I/O goes on" vm1 write --seed 9 --bs 32k --depth 4 --verify
done

pid=$(tp_pid card)
kill -TERM "$pid"
wait "$pid"
rc=$?
[ $rc = 0 ] || tail -n 40 "$TP_DIR/card.log" | sed 's/^/# /'
is $rc 0 "the card ends in order on SIGTERM"
done_testing
