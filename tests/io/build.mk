# parapet-io: writes, reads and verifies over NVMe/TCP with our own initiator.
IO_SRC := $(wildcard tests/io/*.c)
PROGS  += $(BIN)/parapet-io
$(BIN)/parapet-io: $(IO_SRC:%.c=$(O)/%.o) $(LIBDPU) $(LIBCOMMON)
	$(link) $^ -ljansson $(DPU_LIBS) $(LDLIBS)
# Its test runs the program beside it.
$(BIN)/unit/io_test: | $(BIN)/parapet-io
