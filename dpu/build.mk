# libdpu: every floor of the firmware but main.c. Only the folders in DPDK_DIRS see DPDK's headers, so
# programs that use none of them link without DPDK (the archive gives only what is asked for).
DPU_SRC  := $(filter-out dpu/main.c,$(wildcard dpu/*/*.c dpu/*/*/*.c))
LIBDPU   := $(O)/libdpu.a
$(LIBDPU): $(DPU_SRC:%.c=$(O)/%.o)

DPDK_SRC := $(wildcard dpu/main.c dpu/port/*.c dpu/flow/*.c dpu/net/lwip*.c dpu/core/mem_eal.c \
                       dpu/frontend/vhost_blk/vhost_lib.c)
DPDK_CFLAGS := $(call pc_cflags,libdpdk)
DPDK_LIBS   := $(call pc_libs,libdpdk)
$(DPDK_SRC:%.c=$(O)/%.o): CFLAGS += $(DPDK_CFLAGS) -Wno-pedantic
$(patsubst %.c,$(O)/%.o,$(wildcard dpu/net/lwip*.c)): CPPFLAGS += -isystem /usr/include/lwip
LWIP_LIBS   := -llwip
DPU_LIBS    := -lisal -luring -luuid -lrdmacm -libverbs

ifneq ($(wildcard dpu/main.c),)
PROGS += $(BIN)/parapet-dpu
$(BIN)/parapet-dpu: $(O)/dpu/main.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(LWIP_LIBS) $(DPDK_LIBS) $(COMMON_LIBS) $(LDLIBS)
endif

# Every strip of the pass is unrolled in registers: with a check at each step clang is busy with it for a quarter of an hour.
$(O)/dpu/ec/pass_gfni.o: CFLAGS += -fno-sanitize=undefined

# The offline checker: the storage floors alone, without DPDK.
PROGS += $(BIN)/parapet-fsck
$(BIN)/parapet-fsck: $(O)/dpu/fsck.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) -ljansson $(COMMON_LIBS) $(LDLIBS)
