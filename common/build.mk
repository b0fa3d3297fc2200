# libcommon: what the card, the agent and the CLI share. No DPDK, no verbs, no ISA-L.
COMMON_SRC := $(wildcard common/*/*.c)
LIBCOMMON  := $(O)/libcommon.a
$(LIBCOMMON): $(COMMON_SRC:%.c=$(O)/%.o) $(PROTO_OBJ)
COMMON_LIBS := -lprotobuf-c
