# Fuzz targets: tests/fuzz/NAME_fuzz.c. With fuzzer-no-link among the sanitizers they are linked with libFuzzer, else with replay.c.
FUZZ_SRC  := $(wildcard tests/fuzz/*_fuzz.c)
FUZZ_BIN  := $(FUZZ_SRC:tests/fuzz/%_fuzz.c=$(BIN)/fuzz/%)
FUZZ_HELP := $(filter-out $(FUZZ_SRC) tests/fuzz/replay.c,$(wildcard tests/fuzz/*.c))
TEST_PROGS += $(FUZZ_BIN)
ifneq ($(findstring fuzzer,$(SANITIZE)),)
FUZZ_LINK := -fsanitize=fuzzer
else
FUZZ_HELP += tests/fuzz/replay.c
endif

$(BIN)/fuzz/%: $(O)/tests/fuzz/%_fuzz.o $(FUZZ_HELP:%.c=$(O)/%.o) $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(FUZZ_LINK) $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)

.PHONY: fuzz-bins
fuzz-bins: $(FUZZ_BIN)
fuzz:
	$(Q)FUZZ_SECONDS=$${FUZZ_SECONDS:-120} tests/fuzz/fuzz.sh
# Whole devices: the crash explorer's flash, on the machine it brings along.
$(BIN)/fuzz/image: $(patsubst %,$(O)/tests/%.o,crash/image crash/recorder crash/host model/ref model/order)
# The RDMA initiator's other end.
$(BIN)/fuzz/rdma: $(patsubst %,$(O)/tests/unit/%.o,rdma_twin rdma_twin_target)
