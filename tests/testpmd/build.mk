# A card without storage: ports, flow and lwIP with an echo service, for the loopback tests.
TEST_PROGS += $(BIN)/portecho
$(O)/tests/testpmd/portecho.o: CPPFLAGS += $(DPDK_CFLAGS)
$(BIN)/portecho: $(O)/tests/testpmd/portecho.o $(LIBDPU) $(LIBCOMMON)
	$(link) $^ $(DPU_LIBS) $(LWIP_LIBS) $(DPDK_LIBS) $(COMMON_LIBS) $(LDLIBS)
