#!/bin/bash
# Installs the Debian packages of packages.txt that are missing; silent and quick when none is.
#   deps.sh             as root: install what is missing; otherwise: name it and fail
#   deps.sh --install   the same, and says so when nothing was missing
set -eu
here=$(cd "$(dirname "$0")" && pwd)
want=$(grep -v '^#' "$here/packages.txt")
have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p' | sort -u)
missing=$(comm -23 <(sort -u <<<"$want") <(cat <<<"$have"))
if [ -z "$missing" ]; then
	[ "${1:-}" = --install ] && echo "all packages are installed"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "missing packages:" $missing >&2
	exit 1
fi
echo "installing:" $missing
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for try in 1 2 3; do
	if apt-get -o DPkg::Lock::Timeout=300 update -qq >"$log" 2>&1 &&
	   apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >>"$log" 2>&1; then
		exit 0
	fi
	echo "attempt $try failed" >&2
	sleep $((try * 5))
done
tail -20 "$log" >&2
exit 1
