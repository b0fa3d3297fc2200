# Processes of a test, and what a test that was killed left behind. Source it after tap.sh.
#
#   tp_begin                      removes what killed runs left, makes $TP_DIR; everything recorded there ends with the shell
#   tp_spawn NAME LOG CMD...      starts a process that is ended with the shell; its pid is in $TP_DIR/NAME.pid
#   tp_adopt NAME PID             the same for a process of the caller's
#   tp_end NAME [SIGNAL]          ends it and waits
#   tp_pid NAME                   its pid
#   tp_wait SECONDS COMMAND...    until the command succeeds
#
# Each run has a directory TP_BASE/PID with what it started: NAME.pid (a process), NAME.ns (the name of a network namespace),
# NAME.dir (the path of a folder elsewhere), and any other files. A directory whose shell is dead is cleaned up.
TP_BASE=${TP_BASE:-/tmp/parapet-tests.$(id -u)}

# The directory appears under its name only when it says whose it is: a run that starts meanwhile takes no other for dead.
tp_begin() {
	mkdir -p -m 700 "$TP_BASE"
	[ -O "$TP_BASE" ] || bail "$TP_BASE belongs to another user"
	tp_clean_leftovers
	TP_DIR=$TP_BASE/$$
	mkdir -m 700 "$TP_BASE/new.$$" || bail "cannot write to $TP_BASE"
	awk '{print $22}' /proc/$$/stat >"$TP_BASE/new.$$/owner" # start time: pids are used again
	mv "$TP_BASE/new.$$" "$TP_DIR"
	trap tp_cleanup EXIT
	trap 'exit 143' TERM INT HUP
}

# Ends a process of ours: by pid, and only if it still is the one we started.
tp_kill_pid() { # DIR NAME SIGNAL
	local pid start
	read -r pid start <"$1/$2.pid" 2>/dev/null || return 0
	if [ "$(awk '{print $22}' "/proc/$pid/stat" 2>/dev/null)" = "$start" ]; then
		kill -"$3" "$pid" 2>/dev/null
		[ "$3" = KILL ] || { tp_wait 5 tp_gone "$pid" "$start" || kill -KILL "$pid" 2>/dev/null; }
		tp_wait 5 tp_gone "$pid" "$start"
	fi
	rm -f "$1/$2.pid"
}

tp_gone() { # PID START
	local state
	state=$(awk '{print $3, $22}' "/proc/$1/stat" 2>/dev/null) || return 0
	[ "${state#* }" != "$2" ] || [ "${state%% *}" = Z ]
}

tp_remove() { # DIR: processes, namespaces, files
	local f
	for f in "$1"/*.pid; do [ -e "$f" ] && tp_kill_pid "$1" "$(basename "$f" .pid)" TERM; done
	for f in "$1"/*.ns; do [ -e "$f" ] && ip netns del "$(cat "$f")" 2>/dev/null; done
	for f in "$1"/*.dir; do [ -e "$f" ] && rm -rf "$(cat "$f")"; done
	rm -rf "$1"
}

tp_clean_leftovers() {
	local d
	for d in "$TP_BASE"/new.[0-9]*; do
		[ -d "$d" ] && [ ! -e "/proc/${d##*.}" ] && rm -rf "$d"
	done
	for d in "$TP_BASE"/[0-9]*; do
		[ -d "$d" ] || continue
		[ -e "$d/owner" ] && ! tp_gone "${d##*/}" "$(cat "$d/owner")" && continue
		tp_remove "$d"
	done
}

tp_cleanup() {
	local rc=$?
	tp_remove "$TP_DIR"
	wait 2>/dev/null
	return $rc
}

tp_wait() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

tp_spawn() { # NAME LOG COMMAND...
	local name=$1 log=$2
	shift 2
	"$@" >>"$log" 2>&1 </dev/null &
	tp_adopt "$name" $!
	disown $! # the shell need not announce how it ended
}

# Has a process of the caller's ended with the shell.
tp_adopt() { # NAME PID
	echo "$2 $(awk '{print $22}' "/proc/$2/stat")" >"$TP_DIR/$1.pid"
}

tp_end() { # NAME [SIGNAL]
	tp_kill_pid "$TP_DIR" "$1" "${2:-TERM}"
}

tp_pid() { cut -d' ' -f1 "$TP_DIR/$1.pid"; }
