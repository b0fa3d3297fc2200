# parapet-agent (the host daemon) and parapet (the CLI).
AGENT_SRC := $(wildcard host-agent/agentd/*.c)
CLI_SRC   := $(wildcard host-agent/cli/*.c)

ifneq ($(AGENT_SRC),)
PROGS += $(BIN)/parapet-agent
$(BIN)/parapet-agent: $(AGENT_SRC:%.c=$(O)/%.o) $(LIBCOMMON)
	$(link) $^ -lsqlite3 -lmicrohttpd -ljansson $(COMMON_LIBS) $(LDLIBS)
endif
ifneq ($(CLI_SRC),)
PROGS += $(BIN)/parapet
$(BIN)/parapet: $(CLI_SRC:%.c=$(O)/%.o) $(LIBCOMMON)
	$(link) $^ -lcurl -ljansson -lyaml $(COMMON_LIBS) $(LDLIBS)
endif
