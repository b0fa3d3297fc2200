# make demo: everything from packets to flash, with failures. make run: the same set-up, left up.
demo: all
	$(Q)BIN=$(BIN) tests/demo/demo.sh
run: all
	$(Q)BIN=$(BIN) tests/demo/demo.sh run
