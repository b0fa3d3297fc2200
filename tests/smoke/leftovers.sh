#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What a test leaves behind that is killed with SIGKILL goes when the next one starts; what a living one has started stays.
cd "$(dirname "$0")/../.." || exit 1
. tests/smoke/lib.sh
start_agent
# A zombie whose parent is slow to collect it is dead, too.
lives() { [[ $(awk '{print $3}' "/proc/$1/stat" 2>/dev/null) =~ ^[^ZX]$ ]]; }

# A run with a base directory of its own, which kills itself.
TP_BASE=$dir/base bash -c '
	. tests/smoke/lib.sh
	. tests/vm/guest.sh
	start_agent
	start_twin
	guest_begin left
	echo "dir=$dir guest=$GUEST_DIR agent=$agent_pid twin=$twin_pid" >"$1"
	kill -9 $$' - "$dir/left" >"$dir/killed.log" 2>&1
is "$?" 137 "a run is killed"
read -r left <"$dir/left"
for word in $left; do declare "left_$word"; done
[ -d "$left_dir" ] && [ -d "$left_guest" ] && lives "$left_agent" && lives "$left_twin"
ok $? "it leaves an agent, a card and two directories"

TP_BASE=$dir/base bash -c '. tests/smoke/lib.sh; start_agent' >>"$dir/killed.log" 2>&1
ok $? "the next run starts and ends"
[ ! -e "$left_dir" ] && [ ! -e "$left_guest" ]
ok $? "the directories are gone"
! lives "$left_agent" && ! lives "$left_twin"
ok $? "so are the processes"
is "$(ls -A "$dir/base")" "" "and it leaves nothing itself"

tp_clean_leftovers
t "a run that lives is left alone" p status
done_testing
