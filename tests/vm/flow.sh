#!/bin/bash
# The rte_flow path on a driver that really steers: net_tap in a guest with Debian's kernel.
set -u
cd "$(dirname "$0")/../.." || exit 1
. tests/lib/tap.sh
. tests/vm/guest.sh
guest_need
tp_begin
trap guest_end EXIT
pmds=$(pkg-config --variable=libdir libdpdk)/dpdk/pmds-23.0
guest_begin flow
guest_bin "$BIN/vm/steer"
for l in bus_vdev mempool_ring net_tap; do
	guest_lib "$pmds/librte_$l.so.23.0"
done
# EAL loads every plug-in of this folder; what other libraries need of them must be the same file, not a copy.
for l in bus_vdev mempool_ring net_tap; do
	find "$GUEST_TREE/lib" "$GUEST_TREE/usr/lib" -name "librte_$l.so.23" -delete
	mkdir -p "$GUEST_TREE/usr/lib/x86_64-linux-gnu"
	ln -s "$pmds/librte_$l.so.23.0" "$GUEST_TREE/usr/lib/x86_64-linux-gnu/librte_$l.so.23"
done
guest_mods virtio_pci virtio_console virtio_net tun sch_multiq sch_ingress cls_flower act_skbedit act_gact act_mirred
guest_init tests/vm/flow.init
GUEST_MEM=1G guest_boot 120
done_testing
