# Parapet: one non-recursive Makefile; each component adds its fragment (*/build.mk).
#
#   make [all]     build the three programs and the test tools
#   make test      every suite, short forms; the last line is "N passed, N failed, N skipped"
#   make demo      the main job end to end          make run    leave a card and an agent up
#   make demo-vm   a virtual machine in QEMU on the card's virtio-blk sockets
#   make bench     performance table                make lint   format, layers, headers, banned calls
#   make fuzz      longer fuzzing                make kill-long  a thousand kills of the card under load
#   make install DESTDIR= PREFIX=
#   make deps      install the Debian packages needed (needs root; does nothing when all is there)
#
# V=1 shows commands; CC=clang; SANITIZE=address,undefined builds into a folder of its own.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
.SECONDARY:

CC       := $(if $(filter default undefined,$(origin CC)),gcc,$(CC))
PREFIX   ?= /usr/local
SANITIZE ?=
V        ?= 0
Q        := $(if $(filter 1,$(V)),,@)
say       = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(2)')

# A new machine has a compiler and make only: whatever is asked for, packages come first.
# The installer is quick and silent when everything is present.
NO_DEPS  := clean deps help
ifneq ($(filter-out $(NO_DEPS),$(or $(MAKECMDGOALS),all)),)
ifeq ($(shell tests/lib/deps.sh >&2 && echo ok),)
$(error packages are missing; run "sudo make deps")
endif
endif

comma    := ,
variant  := $(notdir $(CC))$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
O        := build/$(variant)
GEN      := build/gen
BIN      := $(O)/bin

CPPFLAGS += -I. -I$(GEN) -D_GNU_SOURCE
CFLAGS   ?= -O2 -g
CFLAGS   += -std=gnu11 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wwrite-strings -Wno-unused-parameter -Wno-missing-field-initializers \
            -fno-strict-aliasing -fno-omit-frame-pointer -fstack-protector-strong
ifeq ($(shell uname -m),x86_64)
CFLAGS   += -msse4.2
endif
LDFLAGS  += -Wl,--as-needed -rdynamic
LDLIBS   += -lpthread -lm
ifneq ($(SANITIZE),)
CFLAGS   += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=$(SANITIZE)
# It cannot follow fences: those order what a VM's driver sees, which is no thread of ours.
CFLAGS   += $(and $(filter gcc,$(notdir $(CC))),$(findstring thread,$(SANITIZE)),-Wno-tsan)
endif

pc_cflags = $(shell pkg-config --cflags $(1))
pc_libs   = $(shell pkg-config --libs $(1))

# Fragments fill these.
PROGS     :=  # programs that are built by "all"
TEST_PROGS :=  # programs that only tests need
include proto/build.mk common/build.mk dpu/build.mk host-agent/build.mk tests/build.mk

.PHONY: all deps test demo run bench lint fuzz install clean help
all: $(PROGS)

deps:
	$(Q)tests/lib/deps.sh --install

help:
	@sed -n '3,14s/^# \{0,1\}//p' Makefile

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(BIN)/parapet $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BIN)/parapet-agent $(BIN)/parapet-dpu $(BIN)/parapet-fsck $(DESTDIR)$(PREFIX)/sbin
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BIN)/parapet help --man >$(DESTDIR)$(PREFIX)/share/man/man1/parapet.1
	$(BIN)/parapet completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/parapet

clean:
	$(Q)rm -rf build

# ---- rules -------------------------------------------------------------------
# Per-object extra flags: set EXTRA_<path> or, for a folder, target-specific CPPFLAGS.

$(O)/%.o: %.c | $(GEN_HDRS)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(O)/gen/%.o: $(GEN)/%.c | $(GEN_HDRS)
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-shadow -Wno-missing-prototypes -MMD -MP -c -o $@ $<

$(O)/%.a:
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $^

link = $(call say,LD,$@) ; mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@
-include $(shell [ -d $(O) ] && find $(O) -name '*.d')
