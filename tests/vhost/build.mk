# vhost-io: a vhost-user-blk driver of our own, for tests, faults and measurements.
VHOST_IO_SRC := $(wildcard tests/vhost/*.c) tests/io/stamp.c
TEST_PROGS   += $(BIN)/vhost-io
$(BIN)/vhost-io: $(VHOST_IO_SRC:%.c=$(O)/%.o) $(LIBCOMMON)
	$(link) $^ -ljansson $(LDLIBS)
