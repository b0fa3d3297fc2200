# The NVMe/TCP target by itself.
$(BIN)/nvme/memtarget: $(O)/tests/nvme/memtarget.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)
TEST_PROGS += $(BIN)/nvme/memtarget
