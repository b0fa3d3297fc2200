#!/bin/bash
# What must be refused, with the object, the field and the reason, and without a trace.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/system.sh
flash_files 4 64M
start_dpu
start_agent
p node add n1 --address "$card" >/dev/null
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[0].connected'"

# ---- pools and flash ----
refused() { # RC REGEX DESCRIPTION COMMAND...
	local rc=$1 re=$2 what=$3
	shift 3
	like "$(rc_of "$@")" "^$rc$" "$what is refused"
	like "$(cat "$dir/err")" "$re" "... with the reason"
}
for i in 0 1 2; do p flash add f$i --address "file:$dir/f$i" >/dev/null; done
refused 4 "needs|wider|4.1" "a code wider than the pool" pool create --ec 4+1
truncate -s 1M "$dir/x1"
p flash add f8 --address "file:$dir/x1" >/dev/null
refused '[45]' "f8.*too small" "a flash that is too small" pool create --ec 2+1 --segment 1M
p flash remove f8 >/dev/null
p flash add f9 --address "file:$dir/x2" >/dev/null
refused '[345]' "f9.*No such file" "a flash that is not there" pool create --ec 2+1 --segment 1M
p flash remove f9 >/dev/null
t "a good pool is made after all that" p pool create --ec 2+1 --segment 1M
refused '[45]' "pool" "a second pool" pool create --ec 2+1

# a second card: its pool cannot have flash of the first, in use or not
mkdir "$dir/two"
"$BIN/parapet-dpu" --state "$dir/two/state" --control "$dir/two/card.sock" >>"$dir/two/log" 2>&1 &
ours $!
wait_until test -S "$dir/two/card.sock"
p node add n2 --address "unix:$dir/two/card.sock" >/dev/null
for i in 0 1 2; do p --node n2 flash add f$i --address "file:$dir/f$i" >/dev/null; done
refused '[45]' "f0|use" "flash that another card uses" --node n2 pool create --ec 2+1 --segment 1M
kill_dpu TERM
refused '[45]' "pool|superblock|part" "flash that carries another pool" --node n2 pool create --ec 2+1 --segment 1M
start_dpu
wait_until sh -c "'$BIN/parapet' --json status | jq -e '.items[] | select(.name == \"n1\" or .node == \"n1\") | .connected'"
is "$(j '.items[0].card.state' --node n1 pool show)" online "the first card's pool is unharmed"
is "$("$BIN/parapet-dpu" --state "$dir/state" --control "$dir/other.sock" 2>&1 | grep -c 'in use by another')" 1 "one state directory has one card"
"$BIN/parapet-dpu" --state "$dir/other" --control "$dir/card.sock" >"$dir/out" 2>&1
is "$? $(grep -c 'another process listens' "$dir/out")" "1 1" "one control socket has one card"
"$BIN/parapet-dpu" --mode warp >"$dir/out" 2>&1
is "$?" 2 "an unknown option ends with the usage"

# ---- VMs that reach for another's ----
p --node n1 vm add web1 --listen "127.0.0.1:$((tcp + 1))" --nqn nqn.2026-01.test:web1 --data-flash f0 >/dev/null
p --node n1 vm add web2 --listen "127.0.0.1:$((tcp + 2))" --nqn nqn.2026-01.test:web2 --data-flash f0 --hosts nqn.2026-01.test:host2 >/dev/null
p --node n1 device add web1 /dev/a --size 8M >/dev/null
p --node n1 device add web2 /dev/b --size 16M >/dev/null
t "a VM reaches its own subsystem" io write web1 1 --size 1M --verify
like "$(io write web2 1 --size 1M 2>&1)" "Connect was refused" "not that of another VM, whatever it asks for"
like "$(io write web1 2 --size 1M 2>&1)" "Connect was refused" "the other way neither"
like "$(io write web2 2 --size 1M 2>&1)" "Invalid Host" "a host that is not on the list does not connect"
t "one that is does" io write web2 2 --size 1M --hostnqn nqn.2026-01.test:host2 --verify
like "$(io read web1 1 --nsid 2 --size 1M 2>&1)" "." "there is no second namespace"
timeout 20 "$BIN/parapet-io" read --addr "127.0.0.1:$((tcp + 1))" --nqn nqn.2026-01.test:web1 --offset 8M --size 1M >"$dir/out" 2>&1
is "$?" 1 "reading behind the end is refused"

# garbage on the VM's port and on the control socket costs its connection only
head -c 100000 /dev/urandom | timeout 5 socat -u - "TCP:127.0.0.1:$((tcp + 1))" 2>/dev/null
head -c 100000 /dev/urandom | timeout 5 socat -u - "UNIX-CONNECT:$dir/card.sock" 2>/dev/null
t "after garbage on its port the VM is served" io write web1 1 --size 1M --verify
is "$(j '.items[0].card.state' --node n1 pool show)" online "after garbage on its socket the card answers"

# ---- space ----
log_free() { j '.items[0].card.pool.log_free_bytes' status --node n1; }
p --node n1 device add web1 /dev/big --size 512M >/dev/null
free=$(log_free)
t "there is free space in the beginning" test "$free" -gt $((64 << 20))
like "$(io write web1 1 --nsid 2 --size 256M --bs 256k)" "Capacity Exceeded" "a thin device larger than the flash is full in the end"
left=$(log_free)
echo "# log_free_bytes: $free, then $left"
t "the free space has fallen to next to nothing" test "$left" -le $((free / 20))
t "then every new block is refused with that status" io write web1 1 --nsid 2 --offset 384M --size 1M --bs 64k --expect-status 0x81
t "reads go on" io verify web1 1 --nsid 1 --size 1M
t "trims too" io trim web1 1 --nsid 2 --size 16M --bs 256k
t "what was trimmed reads as zeros" io verify web1 1 --nsid 2 --size 16M --bs 64k --zeros
t "an event says so" sh -c "'$BIN/parapet' --json events | jq -es 'map(.kind) | index(\"no-space\")'"
done_testing
