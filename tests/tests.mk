# SPDX-License-Identifier: GPL-3.0-or-later
# Tests. UNIT_SRC: C suites (each named in tests/suites.inc); UNIT_WITH: the files under test that are not in pod/base,
# agent/link or the schemas; CHECK_RUN: bats files and executables that print TAP, run by `make check` in this order.
UNIT_SRC :=
UNIT_WITH :=
CHECK_RUN :=
CHECK_RUN += tests/lab.bats
CHECK_RUN += tests/clients.bats
UNIT_SRC += tests/unit/err_test.c
UNIT_SRC += tests/unit/io_test.c
UNIT_SRC += tests/unit/fault_test.c

UNIT_SRC += tests/unit/mem_track_test.c
UNIT_WITH += pod/mem/maps.c pod/mem/track.c pod/mem/pages.c

# checking clients of real programs (tests/clients)
CLIENTS := $(B)/tests/redis_check $(B)/tests/streamcheck $(B)/tests/http_check

UNIT := $(BIN)/unit-tests

$(UNIT): $(call obj,$(UNIT_SRC)) $(B)/tests/harness.o $(B)/tests/main.o $(call obj,$(sort $(UNIT_WITH))) $(COMMON_O)
	@mkdir -p $(@D)
	@echo "  LD   unit-tests"
	$(Q)$(CXX) $(LDFLAGS) -pthread -o $@ $(filter %.o,$^) -lgtest $(PKG_LIBS)

$(B)/tests/main.o: tests/suites.inc

# unit, golden and protocol suites alone: seconds, no privilege
check-unit: $(UNIT)
	$(Q)tests/run $(UNIT)

$(CLIENTS): $(B)/tests/%: tests/clients/%.c tests/clients/client.h
	@mkdir -p $(@D)
	@echo "  LD   $(@F)"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<

deps:
	$(Q)deploy/install-deps

# redis in a pod goes to another node and back while a client checks every reply
demo: deps
	$(Q)$(MAKE) --no-print-directory all $(CLIENTS)
	$(Q)B=$(B) deploy/demo/run

ifeq ($(SANITIZE),)
check: deps
	$(Q)$(MAKE) --no-print-directory all $(UNIT) $(WORKLOADS) $(CLIENTS)
	$(Q)B=$(B) tests/run $(UNIT) $(CHECK_RUN)
else
check: deps
	$(Q)$(MAKE) --no-print-directory check-unit
endif

.PHONY: check check-unit deps
