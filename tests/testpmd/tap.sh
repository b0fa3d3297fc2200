#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The card on a TAP of its own, without testpmd: receive interrupts wake it, and rules fall back to software where the
# kernel cannot steer. (A kernel that can is booted by the guest test.)
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/testpmd/lib.sh
BIN=${BIN:-build/gcc/bin}
tp_init

CARD=10.1.0.1
tp_vf vm1 10.1.0.2/24
head -c 2000000 /dev/urandom >"$TP_DIR/data"
tp_spawn card "$TP_DIR/card.log" ip netns exec "$(tp_ns vm1)" "$BIN/portecho" --vdev net_tap0,iface=eth0 -- \
	interrupts=1 "stats=$TP_DIR/stats" net_tap0=$CARD/24
tp_wait 20 grep -q ready "$TP_DIR/card.log" || { sed 's/^/# /' "$TP_DIR/card.log"; bail "the card did not start"; }
tp_run vm1 ip addr add 10.1.0.2/24 dev eth0 || bail "the TAP did not come up"
stat_of() { # JQ
	rm -f "$TP_DIR/stats"
	kill -USR1 "$(tp_pid card)" && tp_wait 5 test -e "$TP_DIR/stats" && jq -r "$1" "$TP_DIR/stats"
}
echo_through() { # PORT
	tp_run vm1 timeout 20 socat -t 10 - "TCP:$CARD:$1,connect-timeout=5" <"$TP_DIR/data" | cmp -s - "$TP_DIR/data"
}
cpu_ticks() { awk '{print $14 + $15}' "/proc/$(tp_pid card)/stat"; }

is "$(stat_of .ports.net_tap0.interrupts)" true "TAP: the card receives by interrupts"
t "2 MB come back through the NVMe port" echo_through 4420
sleep 0.3
before=$(cpu_ticks)
sleep 1
used=$(($(cpu_ticks) - before))
[ $used -le 50 ]
ok $? "the idle card sleeps ($used of 100 ticks in a second)"
t "and wakes up" echo_through 8009
if grep -q 'flow support' "$TP_DIR/card.log"; then
	is "$(stat_of '[.vfs.net_tap0.rules[].provider] | unique | join(",")')" software \
		"this kernel does not steer: software takes every rule over"
	like "$(stat_of '.vfs.net_tap0.rules[1].reason')" . "and the listing says why hardware did not"
else
	skip "software takes over where the kernel does not steer" "this kernel steers"
fi
done_testing
