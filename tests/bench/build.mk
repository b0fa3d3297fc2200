# The performance table: one program for everything inside the card, a script for the network.
BENCH_SRC := $(wildcard tests/bench/*.c)
RDMA_TWIN := $(patsubst %.c,$(O)/%.o,$(wildcard tests/unit/rdma_twin*.c))
$(BIN)/parapet-bench: $(BENCH_SRC:%.c=$(O)/%.o) $(O)/tests/faults/load.o $(RDMA_TWIN) $(LIBDPU) $(LIBCOMMON)
	$(link) -Wl,--wrap=crc32c $^ $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)

TEST_PROGS += $(BIN)/parapet-bench

.PHONY: bench
bench: all $(BIN)/parapet-bench
	$(Q)BIN=$(BIN) tests/bench/bench.sh

# The bench's own flash is checked in "unit".
TEST_PROGS += $(BIN)/unit/nullflash_test
tests-unit: $(BIN)/unit/nullflash_test
$(BIN)/unit/nullflash_test: $(O)/tests/bench/check/nullflash_test.o $(O)/tests/bench/nullflash.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)
