/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A pod-engine for commit_test: speaks the engine's whole protocol and freezes real cgroups, but the
 * "pod" is one process that counts in shared memory, and the "image" is nothing. Each copy of the
 * pod has a slot of its own there, so the test sees from outside which copy ran when.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/link/frame.h"
#include "pod/base/fault.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "pod/ns.h"
#include "tests/fault/ticks.h"

#define CTL 3
#define STEP_MS 60000

static const char *const phases[] = { "check", "precopy", "quiesce", "cut" };

static struct ticks *map_ticks(void)
{
	const char *path = getenv("COMMIT_TICKS");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *p;

	if (fd < 0)
		exit(99);
	p = mmap(NULL, sizeof(struct ticks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		exit(99);
	return p;
}

static void __attribute__((noreturn)) pod_main(int gate, int up)
{
	struct ticks *t = map_ticks();
	struct tick_slot *s = &t->slot[__atomic_fetch_add(&t->n, 1, __ATOMIC_SEQ_CST) % TICK_SLOTS];
	struct timespec ts = { 0, 300000 }; /* the pace of its ticks */
	char c;

	setsid();
	s->pid = getpid();
	close(CTL);
	close(up); /* says that we are here */
	while (read(gate, &c, 1) < 0 && errno == EINTR)
		;
	close(gate);
	for (;;) {
		uint64_t now = now_ns();

		if (!s->first)
			__atomic_store_n(&s->first, now, __ATOMIC_SEQ_CST);
		__atomic_store_n(&s->last, now, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&s->ticks, 1, __ATOMIC_SEQ_CST);
		nanosleep(&ts, NULL); /* the pace of its ticks, by which its life is told */
	}
}

static pid_t make_pod(const char *cgroup, bool frozen)
{
	char path[4096], text[32];
	int gate[2], up[2];
	pid_t pid;

	if (mkdir(cgroup, 0755) < 0 || pipe2(gate, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0)
		return -1;
	if (frozen) {
		snprintf(path, sizeof(path), "%s/cgroup.freeze", cgroup);
		io_write_file(path, "1", NULL);
	}
	pid = fork();
	if (pid == 0) {
		close(gate[1]);
		close(up[0]);
		pod_main(gate[0], up[1]);
	}
	close(up[1]);
	io_wait_readable(up[0], deadline_ms(STEP_MS), NULL);
	close(up[0]);
	snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
	snprintf(text, sizeof(text), "%d", pid);
	if (io_write_file(path, text, NULL) < 0) {
		kill(pid, SIGKILL); /* or it would run when the gate closes */
		return -1;
	}
	close(gate[0]);
	close(gate[1]); /* the gate opens */
	return pid;
}

static void remove_pod(const char *cgroup)
{
	char path[4096];
	uint64_t until = deadline_ms(STEP_MS);
	struct timespec ts = { 0, 1000000 }; /* between tries: a cgroup that has become empty can be watched, but hardly simpler */

	snprintf(path, sizeof(path), "%s/cgroup.kill", cgroup);
	io_write_file(path, "1", NULL);
	while (rmdir(cgroup) < 0 && errno == EBUSY && now_ns() < until)
		nanosleep(&ts, NULL);
}

static int fail(int code, const char *cause)
{
	Pm__Error er;

	pm__error__init(&er);
	er.exit_code = code;
	er.cause = (char *)(uintptr_t)cause;
	LINK_ENVELOPE(env, engine_failed, ENGINE_FAILED, Pm__EngineFailed, pm__engine_failed__init);
	env_body.error = &er;
	link_send(CTL, &env, deadline_ms(STEP_MS), NULL);
	return 1;
}

static void progress(const char *phase)
{
	LINK_ENVELOPE(env, progress, PROGRESS, Pm__Progress, pm__progress__init);
	env_body.phase = (char *)(uintptr_t)phase;
	link_send(CTL, &env, deadline_ms(STEP_MS), NULL);
}

static void done(uint64_t frozen_ns)
{
	Pm__MigrateRep rep;

	pm__migrate_rep__init(&rep);
	rep.frozen_ns = frozen_ns;
	LINK_ENVELOPE(env, engine_done, ENGINE_DONE, Pm__EngineDone, pm__engine_done__init);
	env_body.result = &rep;
	link_send(CTL, &env, deadline_ms(STEP_MS), NULL);
}

/* Waits for a byte of the peer; a word or the end of the agent, or the peer's end, comes first: -1. */
static int wait_byte(int sock)
{
	struct pollfd p[2] = { { .fd = CTL, .events = POLLIN }, { .fd = sock, .events = POLLIN } };
	char c;

	if (poll(p, 2, STEP_MS) <= 0 || p[0].revents)
		return -1;
	return read(sock, &c, 1) == 1 ? 0 : -1;
}

static int send_byte(int sock)
{
	return send(sock, "x", 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static void ready(pid_t pid)
{
	LINK_ENVELOPE(env, engine_ready, ENGINE_READY, Pm__EngineReady, pm__engine_ready__init);
	env_body.pid = (uint32_t)pid;
	link_send(CTL, &env, deadline_ms(STEP_MS), NULL);
}

/* The agent's word after READY; 0 when the agent is gone. */
static Pm__Envelope__BodyCase word(void)
{
	Pm__Envelope *env = NULL;
	Pm__Envelope__BodyCase body;

	if (link_recv(CTL, &env, IO_FOREVER, NULL) < 0)
		return PM__ENVELOPE__BODY__NOT_SET;
	body = env->body_case;
	link_free(env);
	return body;
}

static int dump(const Pm__EngineDump *q)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)q->port) };
	autoclose int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t stopped = 0;

	inet_pton(AF_INET, q->address, &sa.sin_addr);
	if (connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return fail(8, "no connection to the target");
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		progress(phases[i]);
		if (q->options->dry_run && i == 1) {
			done(0);
			return 0;
		}
		if (i == 2) {
			stopped = now_ns();
			pod_cgroup_freeze(q->cgroup, deadline_ms(STEP_MS), NULL);
		}
		if (fault_point("engine-source", phases[i], NULL) < 0 || send_byte(s) < 0 ||
		    wait_byte(s) < 0) {
			pod_cgroup_thaw(q->cgroup, NULL);
			return fail(8, "the target went away");
		}
	}
	fault_point("engine-source", "ready", NULL);
	ready(0);
	fault_point("engine-source", "commit", NULL);
	switch (word()) {
	case PM__ENVELOPE__BODY_ENGINE_STARTED:
		stopped = now_ns() - stopped;
		fault_point("engine-source", "started", NULL);
		done(stopped);
		return 0;
	case PM__ENVELOPE__BODY_ENGINE_ABORT:
		pod_cgroup_thaw(q->cgroup, NULL);
		return fail(10, "aborted");
	default:
		return 1;
	}
}

static int listen_somewhere(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	socklen_t len = sizeof(sa);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(s, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(s, 1) < 0 ||
	    getsockname(s, (struct sockaddr *)&sa, &len) < 0)
		return -1;
	LINK_ENVELOPE(env, engine_listening, ENGINE_LISTENING, Pm__EngineListening,
		      pm__engine_listening__init);
	env_body.port = ntohs(sa.sin_port);
	link_send(CTL, &env, deadline_ms(STEP_MS), NULL);
	return s;
}

static int restore(const Pm__EngineRestore *q)
{
	struct pollfd p[2] = { { .fd = CTL, .events = POLLIN }, { .events = POLLIN } };
	autoclose int l = listen_somewhere(), s = -1;
	pid_t pid = -1;

	p[1].fd = l;
	if (l < 0 || poll(p, 2, STEP_MS) <= 0 || p[0].revents)
		return fail(9, "nobody came");
	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
		if (wait_byte(s) < 0) {
			if (q->dry_run && i == 1) {
				done(0);
				return 0;
			}
			goto undo;
		}
		progress(phases[i]);
		if (fault_point("engine-target", phases[i], NULL) < 0)
			goto undo;
		if (i == 1) {
			pid = make_pod(q->cgroup, true);
			if (pid < 0)
				goto undo;
		}
		if (send_byte(s) < 0)
			goto undo;
	}
	fault_point("engine-target", "ready", NULL);
	ready(pid);
	fault_point("engine-target", "commit", NULL);
	switch (word()) {
	case PM__ENVELOPE__BODY_ENGINE_START:
		fault_point("engine-target", "start", NULL);
		done(0);
		return 0;
	case PM__ENVELOPE__BODY_ENGINE_ABORT:
		goto undo;
	default:
		return 1;
	}
undo:
	remove_pod(q->cgroup);
	return fail(9, "the source went away");
}

int main(void)
{
	Pm__Envelope *env = NULL;
	pid_t pid;

	log_init("fake-engine", LOG_LV_WARN);
	signal(SIGPIPE, SIG_IGN);
	if (link_recv(CTL, &env, deadline_ms(STEP_MS), NULL) < 0)
		return 1;
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_ENGINE_DUMP:
		return dump(env->engine_dump);
	case PM__ENVELOPE__BODY_ENGINE_RESTORE:
		return restore(env->engine_restore);
	case PM__ENVELOPE__BODY_ENGINE_CREATE:
		break;
	default:
		return fail(1, "what?");
	}
	pid = make_pod(env->engine_create->cgroup, false);
	if (pid < 0)
		return fail(1, "no pod");
	LINK_ENVELOPE(rep, engine_created, ENGINE_CREATED, Pm__EngineCreated,
		      pm__engine_created__init);
	rep_body.pid = (uint32_t)pid;
	return link_send(CTL, &rep, deadline_ms(STEP_MS), NULL) < 0;
}
