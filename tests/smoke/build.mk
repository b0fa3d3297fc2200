# The card's plain twin: tables and devices without storage, for tests of agent and CLI.
TEST_PROGS += $(BIN)/card-twin
$(BIN)/card-twin: $(O)/tests/smoke/card_twin.o $(LIBCOMMON)
	$(link) $^ $(COMMON_LIBS) $(LDLIBS)
