# Tests. A unit test is one tests/unit/NAME_test.c; NAME_test_LIBS adds libraries.
UNIT_SRC  := $(wildcard tests/unit/*_test.c)
UNIT_BIN  := $(UNIT_SRC:tests/unit/%.c=$(BIN)/unit/%)
UNIT_HELP := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
TEST_PROGS += $(UNIT_BIN)

$(BIN)/unit/%: $(O)/tests/unit/%.o $(UNIT_HELP:%.c=$(O)/%.o) $(LIBDPU) $(LIBCOMMON)
	$(link) $^ -lcmocka $($*_LIBS) $(DPU_LIBS) $(COMMON_LIBS) $(LDLIBS)
$(O)/tests/unit/%.o: CPPFLAGS += -include stdarg.h -include stddef.h -include setjmp.h -include cmocka.h

include $(wildcard tests/*/build.mk)

.PHONY: tests tests-unit check test-unit
tests: all $(TEST_PROGS)
tests-unit: $(UNIT_BIN)
check test-unit: tests
	$(Q)BIN=$(BIN) tests/run.sh unit

test: tests
	$(Q)BIN=$(BIN) tests/run.sh all
lint:
	$(Q)CC=$(CC) CPPFLAGS="$(CPPFLAGS)" DPDK_CFLAGS="$(DPDK_CFLAGS)" tests/lint/lint.sh
