# Programs that run in the guests, and "make test-vm [TESTS='flow rdma']": those tests, and those whose names go on with _ (rdma_two).
$(O)/tests/vm/steer.o: CFLAGS += $(DPDK_CFLAGS)
$(BIN)/vm/steer: $(O)/tests/vm/steer.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(DPDK_LIBS) $(COMMON_LIBS) $(LDLIBS)
TEST_PROGS += $(BIN)/vm/steer

vm_named = $(foreach t,$(TESTS),vm/$(t) $(patsubst tests/vm/%.sh,vm/%,$(wildcard tests/vm/$(t)_*.sh)))
.PHONY: test-vm
test-vm: tests
	$(Q)BIN=$(BIN) tests/run.sh $(if $(TESTS),$(vm_named),vm)
