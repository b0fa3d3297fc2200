# Unit tests of the host agent: its objects are in no library, and it never links with the firmware.
AGENT_TEST_OBJ := $(addprefix $(O)/host-agent/agentd/,field.o schema.o store.o tables.o tables_proto.o pbjson.o events.o)
AGENT_TESTS    := $(addprefix $(BIN)/unit/,agent_store_test agent_tables_test)
$(AGENT_TESTS): $(BIN)/unit/%: $(O)/tests/unit/%.o $(AGENT_TEST_OBJ) $(LIBCOMMON)
	$(link) $^ -lcmocka -lsqlite3 -ljansson $(COMMON_LIBS) $(LDLIBS)
$(BIN)/unit/cli_yaml_test: $(O)/tests/unit/cli_yaml_test.o $(O)/host-agent/cli/yaml.o $(LIBCOMMON)
	$(link) $^ -lcmocka -lyaml -ljansson $(COMMON_LIBS) $(LDLIBS)
# The model's reference has no library either.
$(BIN)/unit/order_test: $(O)/tests/unit/order_test.o $(O)/tests/model/ref.o $(O)/tests/model/order.o
	$(link) $^ -lcmocka $(LDLIBS)
$(BIN)/unit/cli_top_test: $(O)/tests/unit/cli_top_test.o $(addprefix $(O)/host-agent/cli/,top_diff.o top_view.o) $(LIBCOMMON)
	$(link) $^ -lcmocka -ljansson -lm $(COMMON_LIBS) $(LDLIBS)
