# The crash explorer: "make crash-short" as in "make test" (suite "crash"), "make crash" the long form, "make crash-plants": does it
# catch bugs that are put into the stack on purpose?
CRASH_SRC := $(wildcard tests/crash/*.c) tests/model/ref.c tests/model/order.c
TEST_PROGS += $(BIN)/crash
$(BIN)/crash: $(CRASH_SRC:%.c=$(O)/%.o) $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)

.PHONY: crash crash-short crash-plants
crash-short: $(BIN)/crash
	$(Q)STATES=$${STATES:-2500} $(BIN)/crash
crash: $(BIN)/crash
	$(Q)STATES=$${STATES:-200000} $(BIN)/crash
crash-plants: $(BIN)/crash
	$(Q)O=$(O) CC=$(CC) tests/crash/plants.sh
