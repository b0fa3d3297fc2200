# The performance table: one program for everything inside the card, a script for the network.
BENCH_SRC := $(wildcard tests/bench/*.c)
$(BIN)/parapet-bench: $(BENCH_SRC:%.c=$(O)/%.o) $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)

TEST_PROGS += $(BIN)/parapet-bench

.PHONY: bench
bench: all $(BIN)/parapet-bench
	$(Q)BIN=$(BIN) tests/bench/bench.sh
