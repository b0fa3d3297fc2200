#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# RDMA end to end in one guest: Debian's nvmet-rdma over rdma_rxe; our initiator and the whole firmware on libibverbs and librdmacm.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/vm/guest.sh
guest_need
tp_begin
trap guest_end EXIT
start=$SECONDS
guest_begin rdma
guest_target rdma
guest_mods nvme-rdma
guest_bin /usr/sbin/nvme /usr/bin/dd /usr/bin/jq "$BIN/parapet-io" "$BIN/parapet-dpu" "$BIN/parapet-agent" "$BIN/parapet"
guest_init tests/vm/guest-target.sh tests/vm/guest-rdma.sh tests/vm/guest-card.sh tests/vm/rdma.init
# A network device that leads nowhere.
GUEST_MEM=1500M guest_boot 300 -netdev hubport,id=n0,hubid=0 -device virtio-net-pci,netdev=n0,romfile=
echo "# $((SECONDS - start)) s"
done_testing
