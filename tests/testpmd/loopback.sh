#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Ports, bridge, classifier and lwIP through testpmd: two VMs with the very same addresses, a LAN behind the uplink, and a
# card with an echo service in place of storage.
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/testpmd/lib.sh
BIN=${BIN:-build/gcc/bin}
tp_init

CARD=10.1.0.1
tp_vf vm1 10.1.0.2/24
tp_vf vm2 10.1.0.2/24
tp_vf lan 10.9.0.1/24
LAN_MAC=$(tp_mac 2) VM1_MAC=$(tp_mac 0) VM2_MAC=$(tp_mac 1)
BCAST=ff:ff:ff:ff:ff:ff
head -c 3000000 /dev/urandom >"$TP_DIR/data1"
head -c 2000000 /dev/urandom >"$TP_DIR/data2"

card_start() { # [EXTRA...]
	: >"$TP_DIR/card.log"
	# shellcheck disable=SC2046
	"$BIN/portecho" $(tp_eal) -- uplink=net_memif2 "stats=$TP_DIR/stats" "$@" \
		net_memif0=$CARD/24 net_memif1=$CARD/24 >>"$TP_DIR/card.log" 2>&1 </dev/null &
	tp_adopt card $!
	tp_wait 20 grep -q ready "$TP_DIR/card.log" || { sed 's/^/# /' "$TP_DIR/card.log"; bail "the card did not start"; }
}
links_up() { [ "$(stat_of '[.ports[] | select(.link)] | length')" = 3 ]; }
stat_of() { # JQ
	rm -f "$TP_DIR/stats"
	kill -USR1 "$(tp_pid card)" && tp_wait 5 test -e "$TP_DIR/stats" && jq -r "$1" "$TP_DIR/stats"
}
echo_through() { # VM PORT FILE: the file comes back unchanged
	tp_run "$1" timeout 20 socat -t 10 - "TCP:$CARD:$2,connect-timeout=5" <"$3" | cmp -s - "$3"
}
connects() { # VM IP PORT
	tp_run "$1" timeout 3 socat -u /dev/null "TCP:$2:$3,connect-timeout=1" 2>/dev/null
}

card_start # before its peers are there
tp_start
t "every port's link comes up, although the card was there first" tp_wait 15 links_up

# ---- the card on a VF
t "VM 1 echoes 3 MB through the NVMe port" echo_through vm1 4420 "$TP_DIR/data1"
t "VM 2, with the same addresses, through the discovery port" echo_through vm2 8009 "$TP_DIR/data2"
echo_through vm1 4420 "$TP_DIR/data1" & one=$!
echo_through vm2 4420 "$TP_DIR/data2" & two=$!
wait $one; ok $? "both at the same time: VM 1 gets its own bytes"
wait $two; ok $? "both at the same time: VM 2 gets its own bytes"
card_mac() { tp_run "$1" ip neigh show $CARD | sed -n 's/.*lladdr \([0-9a-f:]*\).*/\1/p'; }
mac1=$(card_mac vm1) mac2=$(card_mac vm2)
like "$mac1" '^02:50:' "ARP for the card's address is answered with the card's MAC"
[ -n "$mac1" ] && [ "$mac1" != "$mac2" ]
ok $? "the card has another MAC on each VF"
! connects vm1 $CARD 22
ok $? "a port the card does not serve does not answer"
dropped=$(stat_of '.ports.net_memif0.drop_filter')
[ "$dropped" -ge 1 ]
ok $? "and what was sent there is counted as dropped ($dropped)"
is "$(stat_of '[.vfs[].rules[].provider] | unique | join(",")')" software "memif ports: every rule is the software classifier's"
[ "$(stat_of '[.vfs.net_memif0.rules[] | select(.match | test("port 4420"))][0].packets')" -gt 1000 ]
ok $? "the rule for port 4420 has counted its frames"

# ---- the VF is still a NIC
tp_run vm1 ip addr add 10.9.0.11/24 dev eth0
tp_run vm2 ip addr add 10.9.0.12/24 dev eth0
tp_spawn lan-echo "$TP_DIR/lan.log" ip netns exec "$(tp_ns lan)" socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat
tp_wait 5 connects lan 127.0.0.1 7000
tp_run vm1 timeout 20 socat -t 10 - TCP:10.9.0.1:7000,connect-timeout=5 <"$TP_DIR/data1" | cmp -s - "$TP_DIR/data1"
ok $? "VM 1 reaches the LAN through the uplink"
tp_spawn vm2-echo "$TP_DIR/vm2.log" ip netns exec "$(tp_ns vm2)" socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat
tp_wait 5 connects vm2 127.0.0.1 7000
tp_run lan timeout 20 socat -t 10 - TCP:10.9.0.12:7000,connect-timeout=5 <"$TP_DIR/data2" | cmp -s - "$TP_DIR/data2"
ok $? "the LAN reaches VM 2"

# ---- isolation
tp_sniff_start token-iso vm1 vm2 lan
tp_send vm1 raw dst="$BCAST" src="$VM1_MAC" token=token-iso-broadcast
tp_send vm1 raw dst="$VM2_MAC" src="$VM1_MAC" token=token-iso-unicast
tp_send vm1 raw dst="$VM2_MAC" src="$LAN_MAC" token=token-iso-spoofed
tp_send vm1 ip dst="$mac1" src="$VM1_MAC" sip=10.1.0.2 dip=10.2.0.9 token=token-iso-routed
tp_send vm1 ip dst="$mac2" src="$VM1_MAC" sip=10.1.0.2 dip=10.1.0.2 token=token-iso-othercard
tp_send vm1 syn dst="$mac1" src="$VM1_MAC" sip=10.1.0.2 dip=10.1.0.77 dport=4420 token=token-iso-neighbour
sleep 0.5
tp_sniff_stop vm1 vm2 lan
is "$(tp_sniffed vm2)" 0 "nothing VM 1 sends, however addressed, comes out at VM 2"
is "$(tp_sniffed vm1)" 0 "and nothing comes back to where it came from"
got=$(tp_sniffed lan)
[ "$got" -ge 1 ]
ok $? "its broadcast does reach the LAN ($got frames)"
[ "$(stat_of '.ports.net_memif0.drop_isolation')" -ge 1 ]
ok $? "what was aimed at VM 2 is counted"

tp_sniff_start token-arp vm1
tp_send lan arp-reply dst="$VM1_MAC" src="$LAN_MAC" sip=$CARD dip=10.1.0.2 token=token-arp
tp_send lan ip dst="$VM1_MAC" src="$LAN_MAC" sip=$CARD dip=10.1.0.2 token=token-arp
tp_send lan ip dst="$VM1_MAC" src="$LAN_MAC" sip=10.9.0.1 dip=10.9.0.11 token=token-arp-honest
sleep 0.5
tp_sniff_stop vm1
is "$(tp_sniffed vm1)" 1 "nobody on the LAN can speak to the VM in the card's name; others can speak"

# ---- limits
tp_send vm1 syn dst="$mac1" src="$VM1_MAC" sip=10.1.0.2 dip=$CARD dport=4420 count=40
tp_send vm1 syn dst="$mac1" src="$VM1_MAC" sip=10.1.0.99 dip=$CARD dport=8009 count=40
sleep 0.3
[ "$(stat_of '.vfs.net_memif0.drop_syn')" -ge 36 ]
ok $? "half-open connections of a VF are capped"
t "the VF itself still connects: the oldest attempts make room" echo_through vm1 4420 "$TP_DIR/data1"
t "and the other VF connects as before" echo_through vm2 4420 "$TP_DIR/data2"

# ---- testpmd goes and comes back
exec {held}> >(tp_run vm2 timeout 40 socat - TCP:$CARD:4420 >"$TP_DIR/held.out")
echo before >&$held
tp_wait 5 grep -q before "$TP_DIR/held.out"
ok $? "a connection is open before testpmd is killed"
tp_kill KILL
t "the card sees its links go" tp_wait 10 eval '[ "$(stat_of "[.ports[] | select(.link)] | length")" = 0 ]'
tp_start
t "and come back" tp_wait 15 links_up
[ "$(stat_of '[.ports[].reattached] | min')" -ge 1 ]
ok $? "each port counts that it was attached again"
echo after >&$held
tp_wait 20 grep -q after "$TP_DIR/held.out"
ok $? "the open connection goes on"
t "and new ones work" echo_through vm1 8009 "$TP_DIR/data1"

# ---- the card goes and comes back
tp_end card KILL
card_start
attached() {
	tp_heal
	links_up
}
t "a card killed with SIGKILL attaches again" tp_wait 15 attached
SECONDS=0
trap '' PIPE
echo stale >&$held 2>/dev/null
tp_wait 10 eval '! { echo x >&$held; } 2>/dev/null'
t "VM 2's connection to the former card is reset, although VM 1 has the same subnet" [ $SECONDS -lt 10 ]
exec {held}>&-
t "VM 2 connects to the new card" echo_through vm2 4420 "$TP_DIR/data2"
is "$(card_mac vm2)" "$mac2" "which has kept its MAC address"
is "$(stat_of '[.vfs[] | .frames_held] | add')" 0 "no received frame is held when all is quiet"

# ---- one L2 domain
tp_end card TERM
card_start domain=7
tp_wait 15 links_up
tp_sniff_start token-dom vm2
tp_send vm2 raw dst="$LAN_MAC" src="$VM2_MAC" token=hello
tp_send vm1 raw dst="$BCAST" src="$VM1_MAC" token=token-dom-broadcast
tp_send vm1 raw dst="$VM2_MAC" src="$VM1_MAC" token=token-dom-unicast
sleep 0.5
tp_sniff_stop vm2
is "$(tp_sniffed vm2)" 2 "VFs of one L2 domain do reach each other"

pid=$(tp_pid card)
kill -TERM "$pid"
wait "$pid"
is $? 0 "the card ends in order on SIGTERM"
done_testing
