# TAP for shell tests: source it, call ok/is/like..., end with done_testing.
tap_n=0 tap_bad=0
ok() { # RC DESCRIPTION
	tap_n=$((tap_n + 1))
	if [ "$1" = 0 ]; then echo "ok $tap_n - $2"; else
		echo "not ok $tap_n - $2"
		tap_bad=$((tap_bad + 1))
	fi
	return 0
}
t() { # DESCRIPTION COMMAND...: passes when the command succeeds
	local what=$1
	shift
	"$@"
	ok $? "$what"
}
is() { # GOT WANTED DESCRIPTION
	[ "$1" = "$2" ] || echo "# got '$1', wanted '$2'"
	[ "$1" = "$2" ]
	ok $? "$3"
}
like() { # TEXT EXTENDED-REGEX DESCRIPTION
	[[ $1 =~ $2 ]] || echo "# '$1' does not match '$2'"
	[[ $1 =~ $2 ]]
	ok $? "$3"
}
skip() { # DESCRIPTION REASON
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1 # SKIP $2"
}
skip_all() { # REASON
	echo "$1"
	exit 77
}
bail() {
	echo "Bail out! $*"
	exit 1
}
done_testing() {
	echo "1..$tap_n"
	[ $tap_bad = 0 ]
	exit $?
}
