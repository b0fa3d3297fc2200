#!/bin/bash
# One declarative file: idempotent, whole or not at all.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/lib.sh
start_agent
cat >"$dir/all.yaml" <<-EOT
	# everything, once
	nodes:
	  - name: n1
	    address: $card
	    flashes:
	      - {name: f0, address: "mem:1G", domain: a}
	      - {name: f1, address: "mem:1G", domain: b}
	      - {name: f2, address: "mem:1G", domain: c}
	    pool: {ec: 2+1, on_degraded: allow}
	    queue: {bytes: 256K, count: 32, age_us: 500, per_vm: on}
	    vms:
	      - &base
	        name: web1
	        data_flash: f0
	        intermediate_flash: f1
	        listen: 127.0.0.1:4420
	        memory: 4G
	        devices:
	          - {path: /dev/ecpool0, size: 64M}
	          - {path: /dev/normal0, size: 64M, method: object, layout: fragments}
	        ec:
	          - {path: /dev/ecpool, ec: 1}
	      - {name: web2, data_flash: f0, mode: flag, devices: [{path: /dev/a, size: 32M}], ec: [{ec: true}]}
EOT
is "$(j '.changed | length' apply --check -f "$dir/all.yaml")" 13 "a check tells what would change"
is "$(j '.items | length' node show)" 0 "and changes nothing"
is "$(j '[.changed[].action] | unique[]' apply -f "$dir/all.yaml")" added "everything is added"
is "$(p apply -f "$dir/all.yaml")" "nothing to do" "the second time there is nothing to do"
is "$(j '.items | length' table history)" 2 "one file is one version, after the one of the new node"
is "$(j .outcome explain web1 /dev/ecpool0)" protect "its rows are in force"
is "$(j '.items[0].bytes' queue show)" 262144 "so is its queue"

sed 's/name: n1/name: n2/; s#unix:/.*#unix:/nowhere#; s/size: 32M/size: 32Q/' "$dir/all.yaml" >"$dir/bad.yaml"
is "$(rc_of apply -f "$dir/bad.yaml")" 4 "a new node with a bad device is refused"
is "$(j '.items | length' node show)" 1 "and the node is not even made known"

sed -i 's/ecpool, ec: 1/ecpool, ec: 0/; s/memory: 4G/memory: 8G/' "$dir/all.yaml"
is "$(j '[.changed[].object] | join(";")' apply -f "$dir/all.yaml")" "vm web1;row web1 /dev/ecpool" "only what differs is changed"
is "$(j '.nodes[0].outcomes[0].after' table diff 2>/dev/null; j '.outcomes[0] | "\(.path) \(.before) \(.after)"' table diff)" "null
/dev/ecpool0 protect intermediate" "and the outcomes are told"

sed 's/{path: .dev.ecpool, ec: 0}/{path: \/dev\/other, ec: 1}/' "$dir/all.yaml" >"$dir/rows.yaml"
is "$(j '[.changed[] | "\(.action) \(.object)"] | join(";")' apply -f "$dir/rows.yaml")" \
	"deleted row web1 /dev/ecpool;added row web1 /dev/other" "a VM's rows are what the file says"

refuse() { # SED-EXPRESSION OBJECT-AND-FIELD DESCRIPTION
	local before=$(j .version table show)
	sed "$1" "$dir/rows.yaml" >"$dir/bad.yaml"
	"$BIN/parapet" --json apply -f "$dir/bad.yaml" >"$dir/out" 2>/dev/null
	local rc=$?
	is "$rc $(jq -r '.error | "\(.object) \(.field)"' "$dir/out")" "${4:-4} $2" "$3"
	is "$(j .version table show)" "$before" "... and nothing is kept"
}
refuse 's/memory: 8G/memory: 9G/;s/mem:1G", domain: c/mem:1G", domain: "c c"/' "flash f2 domain" "a bad value of a flash"
refuse 's/size: 32M/size: 16M/;s/memory: 8G/memory: 1G/' "device web2 /dev/a size" "a size cannot shrink"
refuse 's/data_flash: f0, mode/kolor: f0, mode/;s/memory: 8G/memory: 2G/' "vm web2 " "an unknown field"
refuse 's/ec: 2+1/ec: 9+1/' "pool ec" "a code wider than the pool"
refuse 's/ec: .{ec: true}./ec: [{ec: 1}, {ec: 0}]/' "vm web2 ec" "contradictory rows" 5
refuse 's/ec: .{ec: true}./ec: [{ec: 7}]/' "row web2 ec" "a flag that is none"
refuse 's/^nodes:/things:/' "document nodes" "a document of something else"

is "$(rc_of apply -f "$dir/none.yaml")" 3 "a file that is not there"
printf 'nodes:\n\t- name: x\n' >"$dir/bad.yaml"
is "$(rc_of apply -f "$dir/bad.yaml")" 4 "a file that is not YAML"
like "$(cat "$dir/err")" "line 2" "with the line"
printf 'a: &a [x, x, x, x, x, x, x, x, x]\n' >"$dir/bomb.yaml"
for i in b c d e f g h; do printf '%s: &%s [*%s, *%s, *%s, *%s, *%s, *%s, *%s, *%s]\n' $i $i "$(tr b-h a-g <<<$i)"{,,,,,,,} ; done >>"$dir/bomb.yaml"
is "$(rc_of apply -f "$dir/bomb.yaml")" 4 "aliases that multiply"
like "$(cat "$dir/err")" "too many values" "... are counted"
printf 'nodes: []\n---\nnodes: []\n' >"$dir/bad.yaml"
is "$(rc_of apply -f "$dir/bad.yaml")" 4 "two documents"
is "$(rc_of apply)" 2 "no file at all is wrong usage"
is "$("$BIN/parapet" apply -f - <"$dir/rows.yaml")" "nothing to do" "standard input works"
p --json apply -f "$dir/rows.yaml" | jq -e . >/dev/null
ok $? "JSON is YAML, too: its own answer parses"

# help and completion come from the same table
for noun in node flash pool task vm device queue ec table flow; do
	p help $noun >"$dir/out"
	ok $? "help $noun"
	for verb in $(p completion bash | sed -n "s/^\t$noun) case.*/x/p" | head -0) show; do
		p $noun $verb --help | grep -q "^Usage: parapet $noun $verb"
		ok $? "help $noun $verb"
	done
done
p help --man >"$dir/parapet.1"
commands=$(p help | awk '/^Global/ {exit} /^  [a-z]/ {i = index($0, " - "); n += i ? split(substr($0, 1, i), w, " ") - 1 : 1} END {print n}')
[ "$commands" -gt 50 ] && [ "$(grep -c '^\.SS' "$dir/parapet.1")" = "$commands" ]
ok $? "every one of $commands commands is in the manual"
if command -v man >/dev/null; then
	is "$(man --warnings -l "$dir/parapet.1" 2>&1 >/dev/null | head -3)" "" "the man page has no warnings"
else
	skip "the man page has no warnings" "man is not installed"
fi
bash -c '. <("$1" completion bash); COMP_WORDS=(parapet vm ad); COMP_CWORD=2; _parapet; [ "${COMPREPLY[*]}" = add ]' - "$BIN/parapet"
ok $? "completion completes verbs"
bash -c '. <("$1" completion bash); COMP_WORDS=(parapet device add --lay); COMP_CWORD=3; _parapet; [ "${COMPREPLY[*]}" = --layout ]' - "$BIN/parapet"
ok $? "completion completes options"
done_testing
