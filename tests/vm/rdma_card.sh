# In the guest: the card, its agent and a pool on the namespaces 1 to 5 of $TARGET_ADDR, $NQN; a VM over kernel sockets that writes.
note "firmware at $(cut -d' ' -f1 /proc/uptime) s"
export PARAPET_AGENT=/run/agent.sock
p() { parapet "$@"; }
j() { # FILTER ARGUMENTS...
	f=$1
	shift
	parapet --json "$@" | jq -r "$f"
}
until_true() { # SECONDS COMMAND...
	end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		sleep 0.3
	done
}
card_start() {
	ready=$(grep -c "info dpu: ready," /tmp/dpu.log 2>/dev/null)
	parapet-dpu --state /run/state --control /run/card.sock --map-memory 64M >>/tmp/dpu.log 2>&1 &
	dpu=$!
	until_true 60 card_ready
}
card_ready() { [ "$(grep -c "info dpu: ready," /tmp/dpu.log)" -gt "${ready:-0}" ]; }
vm_io() { # NAME COMMAND OPTIONS...
	io_name=$1
	io_command=$2
	shift 2
	timeout 100 parapet-io "$io_command" --addr 127.0.0.1:4501 --nqn nqn.2026-01.test:web1 --json "$@" >"/tmp/$io_name.json" 2>/tmp/io.err || {
		cat /tmp/io.err "/tmp/$io_name.json"
		return 1
	}
}
none_failed() { [ "$(j '[.items[] | select((.card.state // .state) | IN("failed", "missing"))] | length' flash show)" = 0 ]; }
mkdir -p /run/state
card_start
result $? "the card starts"
parapet-agent --api $PARAPET_AGENT --store /run/agent.db >/tmp/agent.log 2>&1 &
until_true 20 test -S $PARAPET_AGENT
p node add n1 --address unix:/run/card.sock >/dev/null
for i in 1 2 3 4 5; do
	p flash add f$i --address "nvme+rdma://$TARGET_ADDR/$NQN#$i" --domain d$i >/dev/null
done
until_true 20 sh -c "parapet --json status | jq -e '.items[0].connected'"
p pool create --ec ${EC:-2+1} --segment 1M >/tmp/pool.log 2>&1
pool=$?
cat /tmp/pool.log
result $pool "a pool ${EC:-2+1} of five devices behind nvme+rdma"
p vm add web1 --listen 127.0.0.1:4501 --nqn nqn.2026-01.test:web1 --data-flash f1 >/dev/null
p device add web1 /dev/ecpool0 --size 16M --layout fragments >/dev/null
p ec set web1 --ec 1 >/dev/null
until_true 30 sh -c "parapet --json status | jq -e '.items[0].state == \"in-sync\"'"
result $? "and a VM on it"
vm_io first write --size 8M --bs 64k --depth 16 --verify --flush
result $? "the VM writes 64 KiB blocks and reads them back"
note "first: $(jq -c '{MB_per_s: (.mb_per_s * 10 | floor / 10), ops}' /tmp/first.json)"
