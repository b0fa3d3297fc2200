#!/bin/bash
# Lint: layers, vendor headers, banned calls, header self-containment, documents of formats, format. Prints TAP.
#   lint.sh [check...]    default: all
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
CC=${CC:-gcc}
CPPFLAGS=${CPPFLAGS:--I. -Ibuild/gen -D_GNU_SOURCE}
mapfile -t sources < <(git ls-files -co --exclude-standard '*.c' '*.h' | sort)
mapfile -t headers < <(printf '%s\n' "${sources[@]}" | grep '\.h$')

verdict() { # DESCRIPTION COMPLAINTS
	[ -z "$2" ] || sed 's/^/# /' <<<"$2"
	[ -z "$2" ]
	ok $? "$1"
}

# "FILE INCLUDED" for each include of a project header.
includes() {
	grep -HoE '^[[:space:]]*#[[:space:]]*include[[:space:]]+"[^"]+"' "$@" /dev/null |
		sed -E 's/^([^:]+):[^"]*"([^"]+)"/\1 \2/'
}

check_layers() {
	verdict "every include points down (tests/lint/layers.txt)" "$(
		includes "${sources[@]}" | grep -v '^tests/' | awk '
		FILENAME ~ /layers.txt$/ { if ($0 !~ /^#/) { line++; for (i = 1; i <= NF; i++) rank[$i] = line } next }
		FILENAME ~ /exceptions.txt$/ { if ($0 !~ /^#/ && NF) allowed[$1 " " $2] = 1; next }
		function unit(f,   p, n, u) {
			if (f == "dpu/main.c" || f == "dpu/fsck.c") return f
			n = split(f, p, "/")
			if (n == 1) return f
			u = p[1] "/" p[2]
			if (p[1] == "dpu" && p[2] == "frontend") u = u "/" p[3]
			return u
		}
		{
			from = unit($1); to = unit($2)
			if ($2 ~ /\.pb-c\.h$/ || from == to) next
			if ($2 ~ /_priv\.h$/) { print $1 " includes the private " $2; next }
			if (to ~ /^common\//) {
				if (from ~ /^common\/(base)$/) print $1 " (base) includes " $2
				next
			}
			if ($2 !~ /\//) { print $1 ": " $2 " is not a repository path"; next }
			if (from ~ /^common\//) { print $1 " (common) includes " $2; next }
			if (from ~ /^host-agent\// || to ~ /^host-agent\//) { print $1 " includes " $2; next }
			if (!(from in rank)) { print $1 ": " from " is on no floor"; next }
			if (!(to in rank)) { print $1 ": " to " is on no floor"; next }
			if (rank[to] <= rank[from] && !((from " " to) in allowed)) print $1 " (" from ") includes " $2
		}' tests/lint/layers.txt tests/lint/exceptions.txt -)"
}

# A vendor's API is spoken where the design says, and nowhere else.
check_vendors() {
	local where what
	while read -r what where; do
		verdict "<$what> only in $where" "$(
			grep -lE "^[[:space:]]*#[[:space:]]*include[[:space:]]+<$what" "${sources[@]}" | grep -v '^tests/' | grep -vE "^($where)")"
	done <<-'T'
		rte_ dpu/main\.c|dpu/port/|dpu/flow/|dpu/net/lwip|dpu/core/mem_eal\.c|dpu/frontend/vhost_blk/
		rte_flow\.h dpu/flow/
		lwip/ dpu/net/lwip
		isa-l dpu/ec/|dpu/core/crc32c\.c
		liburing\.h dpu/flash/
		infiniband/ dpu/nvmf/
		rdma/ dpu/nvmf/
		sqlite3\.h host-agent/agentd/
		microhttpd\.h host-agent/agentd/
		curl/ host-agent/cli/
		yaml\.h host-agent/cli/
	T
}

check_banned() {
	local calls='gets|strcpy|strcat|sprintf|vsprintf|strtok|alloca|system|popen|rand|srand|tmpnam|mktemp|atoi|atol|atoll|strncpy|usleep'
	verdict "no banned calls ($calls)" "$(grep -nE "(^|[^_a-zA-Z0-9.>])($calls)[[:space:]]*\(" "${sources[@]}" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*(/?\*|//)')"
	verdict "exit and abort only in programs' main files" "$(
		grep -nE '(^|[^_a-zA-Z0-9.>])(exit|abort|_exit)[[:space:]]*\(' "${sources[@]}" |
			grep -vE '^(tests/|dpu/main\.c|host-agent/(agentd|cli)/main\.c)|:[[:space:]]*(/?\*|//)')"
	verdict "no promises of later work" "$(grep -nE '\b(TODO|FIXME|XXX)\b' "${sources[@]}")"
}

check_shape() {
	verdict "every file opens with its licence" "$(for f in "${sources[@]}"; do
		head -n 1 "$f" | grep -q 'SPDX-License-Identifier: BSD-3-Clause' || echo "$f"
	done)"
	verdict "no file of a thousand lines" "$(wc -l "${sources[@]}" | awk '$2 != "total" && $1 >= 1000 { print $2 ": " $1 " lines" }')"
	verdict "the top level is the design card's" "$(git ls-files | cut -d/ -f1 | sort -u |
		grep -vxE '\..*|Makefile|LICENSE|README\.md|dpu|host-agent|proto|common|tests|hwdocs')"
}

check_headers() {
	local bad='' h flags
	for h in "${headers[@]}"; do
		flags=''
		case $h in
		tests/unit/*) flags='-include stdarg.h -include stddef.h -include setjmp.h -include stdint.h -include cmocka.h' ;;
		dpu/port/* | dpu/flow/* | dpu/net/lwip* | dpu/core/mem_eal.h) flags="${DPDK_CFLAGS:-$(pkg-config --cflags libdpdk)} -isystem /usr/include/lwip" ;;
		esac
		# shellcheck disable=SC2086
		$CC $CPPFLAGS $flags -std=gnu11 -Wall -Werror -Wno-unused-function -fsyntax-only -x c - <<<"#include \"$h\"" >/dev/null 2>&1 || bad+="$h"$'\n'
	done
	verdict "every header compiles by itself" "${bad%$'\n'}"
}

# The tables above the structures of a superblock are those of its document: offset, size and field of every row.
check_formats() {
	verdict "dpu/pool/superblock.h and its document have the same fields" "$(diff \
		<(sed -nE 's/^ \* +([0-9]+) +([0-9]+)  ([a-z0-9_]+) .*/\1 \2 \3/p; s/^ \* +([0-9]+) +([0-9]+)  ([a-z0-9_]+)$/\1 \2 \3/p' dpu/pool/superblock.h) \
		<(sed -nE 's/^\| ([0-9]+) \| ([0-9]+) \| ([a-z0-9_]+) \|.*/\1 \2 \3/p' hwdocs/formats/superblock.md))"
}

check_format() {
	command -v clang-format >/dev/null || {
		skip "formatted as .clang-format says" "clang-format is not installed"
		return
	}
	verdict "formatted as .clang-format says" "$(
		printf '%s\n' "${sources[@]}" | xargs -n 20 clang-format --dry-run 2>&1 | grep -oE '^[^:]+\.[ch]:' | sort | uniq -c | awk '{print $2, $1, "places"}')"
}

for c in ${*:-layers vendors banned shape headers formats format}; do check_"$c"; done
done_testing
