# make demo: everything from packets to flash, with failures. make run: the same set-up, left up.
demo: all
	$(Q)BIN=$(BIN) tests/demo/demo.sh
run: all
	$(Q)BIN=$(BIN) tests/demo/demo.sh run
# make demo-vm: a VM in QEMU on the card's vhost-user-blk sockets.
.PHONY: demo-vm
demo-vm: all
	$(Q)BIN=$(BIN) tests/demo/demo-vm.sh
