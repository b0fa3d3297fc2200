#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The other kind of loopback: the card's VF port is a vhost-user server, testpmd attaches by virtio_user.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/testpmd/lib.sh
BIN=${BIN:-build/gcc/bin}
tp_init

CARD=10.1.0.1
TP_WIRE=vhost
tp_vf vm1 10.1.0.2/24
tp_vf vm2 10.1.0.2/24
head -c 2000000 /dev/urandom >"$TP_DIR/data"
# shellcheck disable=SC2046
tp_spawn card "$TP_DIR/card.log" "$BIN/portecho" $(tp_eal) -- interrupts=1 "stats=$TP_DIR/stats" \
	net_vhost0=$CARD/24 net_vhost1=$CARD/24
tp_wait 20 grep -q ready "$TP_DIR/card.log" || { sed 's/^/# /' "$TP_DIR/card.log"; bail "the card did not start"; }
stat_of() { # JQ
	rm -f "$TP_DIR/stats"
	kill -USR1 "$(tp_pid card)" && tp_wait 5 test -e "$TP_DIR/stats" && jq -r "$1" "$TP_DIR/stats"
}
links_up() { [ "$(stat_of '[.ports[] | select(.link)] | length')" = 2 ]; }
echo_through() { # VM PORT
	tp_run "$1" timeout 20 socat -t 10 - "TCP:$CARD:$2,connect-timeout=5" <"$TP_DIR/data" | cmp -s - "$TP_DIR/data"
}
tp_start
t "links come up when testpmd attaches" tp_wait 15 links_up
t "VM 1 echoes 2 MB" echo_through vm1 4420
t "VM 2, with the same addresses, too" echo_through vm2 8009
is "$(stat_of '[.ports[].interrupts] | unique | join(",")')" true "the ports can wake the card"
sleep 1
t "and do" echo_through vm1 8009
tp_kill KILL
t "the card sees testpmd go" tp_wait 10 eval '! links_up'
tp_start
t "and come back" tp_wait 15 links_up
t "and goes on" echo_through vm2 4420
done_testing
