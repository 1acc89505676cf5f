# SPDX-License-Identifier: GPL-3.0-or-later
# podmigrate: one Makefile for the whole tree. Knobs: V=1, DEVELOPER=1, SANITIZE=address,undefined, B=builddir.

CC ?= cc
CXX ?= c++
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
SANITIZE ?=
B ?= build$(if $(SANITIZE),-san)

PKGS := libevent libevent_pthreads libprotobuf-c liblz4 libxxhash libnl-3.0 libnl-route-3.0 libmnl libnftnl \
	sqlite3 jansson inih smartcols libcap-ng
# asked for only when something is built, so that `make deps` works on a machine without pkg-config
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
PKG_LIBS = $(shell pkg-config --libs $(PKGS))

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings -Wformat=2 -Wno-format-truncation
ifeq ($(DEVELOPER),1)
WARN += -Werror -Wcast-qual
endif
OPT := -O2 -g -fstack-protector-strong $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
CPPFLAGS += -D_GNU_SOURCE -I. -isystem $(B)/gen -Iinclude
CFLAGS += -std=c11 $(OPT) $(WARN) -pthread
CXXFLAGS += -std=c++17 $(OPT) -Wall -pthread
ifneq ($(SANITIZE),)
CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
CXXFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
LDFLAGS += -fsanitize=$(SANITIZE)
endif

# ---- rooms: explicit lists, base first
PROTO := control image
BASE_SRC := pod/base/err.c pod/base/log.c pod/base/io.c pod/base/deadline.c pod/base/fault.c
LINK_SRC :=
NET_SRC :=
NS_SRC :=
ENGINE_SRC :=
AGENT_SRC :=
COORD_SRC :=
CMD_SRC :=
PODINIT_SRC :=

include rooms.mk

PROTO_C := $(PROTO:%=$(B)/gen/%.pb-c.c)
PROTO_H := $(PROTO_C:.c=.h)
obj = $(patsubst %.c,$(B)/%.o,$(patsubst $(B)/%,%,$(1)))
COMMON_O := $(call obj,$(BASE_SRC)) $(PROTO_C:.c=.o) $(call obj,$(LINK_SRC))

BIN := $(B)/bin
PROGRAMS := $(BIN)/podctl $(BIN)/podagent $(BIN)/podcoord $(BIN)/pod-engine $(BIN)/podinit
LINKS := podrun podps podmigrate poddrain pod-preempt

all: $(PROGRAMS) $(LINKS:%=$(BIN)/%) $(EXTRA_ALL)

$(BIN)/podctl: $(call obj,$(CMD_SRC)) $(COMMON_O)
$(BIN)/podagent: $(call obj,$(AGENT_SRC)) $(call obj,$(NS_SRC)) $(call obj,$(NET_SRC)) $(COMMON_O)
$(BIN)/podcoord: $(call obj,$(COORD_SRC)) $(COMMON_O)
$(BIN)/pod-engine: $(call obj,$(ENGINE_SRC)) $(call obj,$(NS_SRC)) $(call obj,$(NET_SRC)) $(COMMON_O)
$(BIN)/podctl $(BIN)/podagent $(BIN)/podcoord $(BIN)/pod-engine:
	@mkdir -p $(@D)
	@echo "  LD   $(@F)"
	$(Q)$(CC) $(LDFLAGS) -pthread -o $@ $(filter %.o,$^) $(PKG_LIBS)

# podinit travels inside pods: static, and never sanitized
$(BIN)/podinit: $(PODINIT_SRC) $(BASE_SRC) $(PROTO_C) $(wildcard pod/podinit/*.h agent/link/frame.h)
	@mkdir -p $(@D)
	@echo "  LD   podinit"
	$(Q)$(CC) $(CPPFLAGS) -std=c11 -O2 -g -w -c -o $(B)/gen/podinit-control.o $(B)/gen/control.pb-c.c
	$(Q)$(CC) $(CPPFLAGS) -std=c11 -O2 -g $(WARN) -static -o $@ \
		$(filter-out %.pb-c.c,$(filter %.c,$^)) $(B)/gen/podinit-control.o -lprotobuf-c

$(LINKS:%=$(BIN)/%): $(BIN)/podctl
	$(Q)ln -sf podctl $@

$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: include/proto/%.proto
	@mkdir -p $(B)/gen
	@echo "  PB   $<"
	$(Q)protoc-c --c_out=$(B)/gen -Iinclude/proto $<

$(B)/gen/%.o: $(B)/gen/%.c
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<

# -MD: the schemas' headers count as system headers, and a stale object that knows an old one crashes
$(B)/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MD -MP -c -o $@ $<

$(B)/%.o: %.cc
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

include tests/tests.mk

clean:
	rm -rf build build-san

.PHONY: all clean check demo bench
.SECONDARY:
-include $(shell test -d $(B) && find $(B) -type f -name '*.d')
