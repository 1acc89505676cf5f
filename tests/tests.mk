# SPDX-License-Identifier: GPL-3.0-or-later
# Tests. UNIT_SRC: C suites (each named in tests/suites.inc); UNIT_WITH: the files under test that are not in pod/base,
# agent/link or the schemas; CHECK_RUN: bats files and executables that print TAP, run by `make check` in this order.
UNIT_SRC :=
UNIT_WITH :=
CHECK_RUN :=
CHECK_RUN += tests/lab.bats
CHECK_RUN += tests/clients.bats
CHECK_RUN += tests/move
CHECK_RUN += tests/refusals tests/refused
CHECK_RUN += tests/undone
CHECK_RUN += tests/locks tests/jobs
CHECK_RUN += tests/frozen
CHECK_RUN += tests/real/redis
CHECK_RUN += tests/real/stream
CHECK_RUN += tests/real/nginx
CHECK_RUN += tests/real/scripts tests/real/java tests/real/postgres tests/real/build tests/real/tmux
CHECK_RUN += tests/real/frozen tests/real/soak
CHECK_RUN += tests/podrun.bats tests/priv.bats tests/console.bats tests/image.bats tests/image_fault.bats tests/image_tools.bats tests/ipc_fault.bats
CHECK_RUN += tests/job.bats tests/check.bats tests/drain.bats tests/options.bats
UNIT_SRC += tests/unit/err_test.c
UNIT_SRC += tests/unit/io_test.c
UNIT_SRC += tests/unit/prio_test.c
UNIT_SRC += tests/unit/fault_test.c
UNIT_SRC += tests/unit/link_test.c tests/unit/conf_test.c
UNIT_SRC += tests/unit/ring_test.c
UNIT_WITH += pod/podinit/ring.c

UNIT_SRC += tests/unit/mem_test.c
UNIT_SRC += tests/unit/mem_track_test.c
UNIT_SRC += tests/platform/mem_facts_test.c
UNIT_WITH += pod/mem/maps.c pod/mem/track.c pod/mem/pages.c pod/mem/pack.c
UNIT_SRC += tests/unit/stream_test.c tests/golden/image_test.c tests/unit/image_file_test.c tests/unit/image_memory_test.c
UNIT_WITH += pod/image/stream.c pod/image/image.c pod/image/chain.c pod/image/dedup.c pod/image/store.c pod/image/memory.c
$(B)/tests/golden/image_test.o: tests/golden/image_bytes.inc

# checking clients of real programs (tests/clients)
CLIENTS := $(B)/tests/redis_check $(B)/tests/streamcheck $(B)/tests/http_check $(B)/tests/debuggee

# self-verifying programs, one per kind of kernel resource; they share no code with podmigrate
WORKLOAD_NAMES := tree threads regs rseq restart restart_hard shortwrite anon churn privfile shm_anon memfd tmpfs files \
	pipes fifo unixsock unixmsg unixfds tcp tcp_states tcp6 udp epoll eventfd timerfd signalfd pty signals itimer creds procattr mm ticker bigmem refused locks posixtimer sysvshm sysvmsg sysvsem mqueue inotify
WORKLOAD_NAMES += memflags stopped seccomp futex
WORKLOAD_NAMES += urgent
WORKLOAD_NAMES += netlink
WORKLOAD_NAMES += sockfilter
WORKLOAD_NAMES += udp6
WORKLOAD_NAMES += deadleader
WORKLOAD_NAMES += raw packet lease
WORKLOADS := $(WORKLOAD_NAMES:%=$(BIN)/workload/%)
UNIT_SRC += tests/unit/kind_api_fake.c tests/unit/kind_file_test.c tests/unit/kind_unix_test.c
UNIT_SRC += tests/unit/kind_event_test.c tests/unit/kind_pty_test.c tests/unit/kind_tcp_test.c
UNIT_WITH += pod/kind/fifo.c
UNIT_WITH += pod/kind/common.c pod/kind/file.c pod/kind/pipe.c pod/kind/tcp.c pod/kind/unix.c pod/kind/unix_diag.c
UNIT_WITH += pod/kind/unix_props.c pod/kind/unix_queue.c pod/kind/unix_dgram.c
UNIT_WITH += pod/kind/unix_make.c pod/kind/epoll.c pod/kind/eventfd.c pod/kind/signalfd.c pod/kind/timerfd.c
UNIT_WITH += pod/kind/chardev.c pod/kind/pty.c pod/kind/refuse.c pod/task/batch.c pod/task/task.c pod/task/restart.c pod/task/arch_x86_64.c
UNIT_WITH += netfreeze/netns.c netfreeze/tcp.c netfreeze/tcp_opts.c netfreeze/sockopt.c netfreeze/inet.c netfreeze/tcp_restore.c netfreeze/forge.c
UNIT_WITH += netfreeze/hold.c netfreeze/filter.c netfreeze/link.c netfreeze/drain.c tests/net/world.c
UNIT_SRC += tests/net/netlink_test.c tests/net/tcp_state_test.c tests/net/tcp_opts_test.c tests/net/tcp_move_test.c
UNIT_WITH += netfreeze/diag.c netfreeze/wake.c netfreeze/udp.c netfreeze/udp_restore.c pod/kind/udp.c pod/kind/dgram.c
UNIT_WITH += netfreeze/raw.c netfreeze/raw_fill.c
UNIT_SRC += tests/net/raw_test.c
UNIT_SRC += tests/net/udp_test.c
UNIT_SRC += tests/unit/tmpfs_test.c tests/unit/rcheck_test.c tests/unit/rheld_test.c tests/unit/restart_test.c
UNIT_SRC += tests/unit/kind_ipc_test.c tests/platform/ipc_facts_test.c
UNIT_WITH += pod/kind/sysvmsg.c pod/kind/sysvsem.c pod/kind/mqueue.c
UNIT_WITH += pod/sysv.c pod/kind/ipc.c pod/rtmpfs.c pod/private.c pod/rcheck.c pod/rheld.c

UNIT := $(BIN)/unit-tests

$(UNIT): $(call obj,$(UNIT_SRC)) $(B)/tests/harness.o $(B)/tests/main.o $(call obj,$(sort $(UNIT_WITH))) $(COMMON_O)
	@mkdir -p $(@D)
	@echo "  LD   unit-tests"
	$(Q)$(CXX) $(LDFLAGS) -pthread -o $@ $(filter %.o,$^) -lgtest $(PKG_LIBS)

$(B)/tests/main.o: tests/suites.inc

# unit, golden and protocol suites alone: seconds, no privilege
check-unit: $(UNIT)
	$(Q)tests/run $(UNIT)

workloads: $(WORKLOADS)

$(WORKLOADS): $(BIN)/workload/%: tests/workload/%.c tests/workload/wl.h tests/workload/wl_sock.h tests/workload/restart.h
	@mkdir -p $(@D)
	@echo "  LD   workload/$(@F)"
	$(Q)$(CC) -D_GNU_SOURCE -std=gnu11 -O2 -g $(WARN) -pthread -o $@ $< -lutil

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
	$(Q)$(MAKE) --no-print-directory all $(UNIT) $(WORKLOADS) $(CLIENTS) $(filter $(B)/%,$(CHECK_RUN))
	$(Q)B=$(B) KINDS_TABLE=$(B)/kinds.md tests/run $(UNIT) $(CHECK_RUN)
else
check: deps
	$(Q)$(MAKE) --no-print-directory check-unit
endif

# all of it while real-time tasks take nearly all of the machine, for up to 25 s at a time: what fails then judges by the clock (40 min)
$(BIN)/standstill: tests/fault/standstill.c $(B)/pod/base/deadline.o
	@mkdir -p $(@D)
	@echo "  LD   standstill"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -pthread -o $@ $^
check-standstill: deps $(BIN)/standstill
	$(Q)$(MAKE) --no-print-directory all $(UNIT) $(WORKLOADS) $(CLIENTS) $(filter $(B)/%,$(CHECK_RUN))
	$(Q)B=$(B) CHECK_TIMEOUT=3600 $(BIN)/standstill tests/run $(UNIT) $(CHECK_RUN)

# with a kind taken out of the table its workload must fail or be refused
check-mutation: deps
	$(Q)$(MAKE) --no-print-directory all $(WORKLOADS)
	$(Q)B=$(B) tests/mutation

.PHONY: check check-unit check-mutation check-standstill deps workloads

# the commit protocol with a scripted engine: each party killed at each stage
COMMIT_TEST := $(BIN)/commit-test $(BIN)/fake-engine
CHECK_RUN += $(BIN)/commit-test
$(BIN)/commit-test: $(call obj,tests/fault/commit_test.c tests/fault/commit_world.c pod/cgroup.c) $(COMMON_O)
$(BIN)/fake-engine: $(call obj,tests/fault/fake_engine.c pod/cgroup.c) $(COMMON_O)
$(COMMIT_TEST):
	@mkdir -p $(@D)
	@echo "  LD   $(@F)"
	$(Q)$(CC) $(LDFLAGS) -pthread -o $@ $(filter %.o,$^) $(PKG_LIBS)
$(BIN)/commit-test: | $(BIN)/fake-engine $(BIN)/podagent $(BIN)/podcoord
# the same with real engines and a stream; `make check` runs a short list of it
CHECK_RUN += tests/fault/kill
check-fault: all $(WORKLOADS) $(CLIENTS) $(BIN)/commit-test
	$(Q)B=$(B) CHECK_TIMEOUT=1800 tests/run $(BIN)/commit-test tests/fault/kill-all
check-commit: $(BIN)/commit-test
	$(Q)tests/run $(BIN)/commit-test
# every reader of what others wrote, by libFuzzer with ASan and UBSan, from its seeds on: `make fuzz FUZZ_SECONDS=600`
FUZZ := pages stream image kind
FUZZ_SECONDS ?= 60
FUZZ_SRC := pod/image/stream.c pod/image/image.c pod/image/chain.c pod/image/dedup.c pod/image/memory.c pod/mem/pages.c \
	pod/mem/pack.c pod/mem/track.c pod/rcheck.c pod/base/io.c pod/base/deadline.c pod/base/err.c $(PROTO_C)
$(FUZZ:%=$(BIN)/fuzz_%): $(BIN)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/mend.h $(FUZZ_SRC)
	@mkdir -p $(@D)
	@echo "  FUZZ $(@F)"
	$(Q)clang -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -w $(CPPFLAGS) $(PKG_CFLAGS) \
		-DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION -o $@ $(filter %.c,$^) $(PKG_LIBS)

fuzz: deps
	$(Q)deploy/install-deps --fuzz
	$(Q)$(MAKE) --no-print-directory $(FUZZ:%=$(BIN)/fuzz_%)
	$(Q)B=$(B) FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run $(FUZZ)

.PHONY: fuzz

.PHONY: check-commit check-fault

# frozen times next to their floors; a hundred moves in a row
BENCH := $(B)/bench/floor $(B)/bench/load
$(BENCH): $(B)/bench/%: tests/bench/%.c
	@mkdir -p $(@D)
	@echo "  LD   bench/$(@F)"
	$(Q)$(CC) -D_GNU_SOURCE -std=gnu11 -O2 $(WARN) -pthread -o $@ $<

bench: deps
	$(Q)$(MAKE) --no-print-directory all $(BENCH) $(WORKLOADS) $(CLIENTS)
	$(Q)B=$(B) tests/bench/run

bench-checkpoint: deps
	$(Q)$(MAKE) --no-print-directory all $(BENCH) $(WORKLOADS)
	$(Q)B=$(B) tests/bench/checkpoint

.PHONY: bench-checkpoint

soak: deps
	$(Q)$(MAKE) --no-print-directory all $(WORKLOADS) $(CLIENTS)
	$(Q)SOAK_MOVES=$${SOAK_MOVES:-100} B=$(B) tests/real/soak

.PHONY: soak
