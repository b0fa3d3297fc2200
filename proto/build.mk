# The control contract: protobuf-c code is generated into build/gen.
PROTO_SRC := $(wildcard proto/*.proto)
PROTO_C   := $(PROTO_SRC:%.proto=$(GEN)/%.pb-c.c)
PROTO_OBJ := $(PROTO_SRC:%.proto=$(O)/gen/%.pb-c.o)
GEN_HDRS  += $(PROTO_C:.c=.h)

$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h: %.proto
	$(call say,PROTOC,$<)
	$(Q)mkdir -p $(GEN)
	$(Q)protoc-c --c_out=$(GEN) $<
