# Programs that run in the guests, and "make test-vm [TESTS='flow initiator']".
$(O)/tests/vm/steer.o: CFLAGS += $(DPDK_CFLAGS)
$(BIN)/vm/steer: $(O)/tests/vm/steer.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(DPDK_LIBS) $(COMMON_LIBS) $(LDLIBS)
TEST_PROGS += $(BIN)/vm/steer

.PHONY: test-vm
test-vm: tests
	$(Q)BIN=$(BIN) tests/run.sh $(if $(TESTS),$(addprefix vm/,$(TESTS)),vm)
