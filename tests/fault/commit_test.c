/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The commit protocol: a real coordinator and two real agents, an engine that only plays its part
 * (fake_engine.c), and each party killed at each stage. Afterwards there is exactly one copy of the pod,
 * and it runs; or none runs and one is frozen, waiting for `podctl recover`. Never two: the copies write
 * down when they ran, and the source's last moment must lie before the target's first.
 *
 * Prints TAP. Needs root and a cgroup v2 mount; nothing outside its own network namespace, its own
 * cgroups and a temporary directory is touched.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"
#include "tests/fault/commit_world.h"

static unsigned ran, failures;

/* ---- one case */

static void setup(const char *fault)
{
	static unsigned n;
	uint64_t end = deadline_ms(WAIT_MS);
	char *argv[] = { (char[]){ "job" }, NULL }, name[] = POD, node[] = "A";
	Pm__Envelope *rep;
	Pm__PodSpec spec;

	w.failed = w.moved = w.refused = w.answered = false;
	w.why[0] = w.op[0] = w.cause[0] = '\0';
	w.exit_code = -1;
	w.client = -1;
	*strrchr(w.dir, '/') = '\0';
	snprintf(w.dir + strlen(w.dir), 16, "/%u", n++);
	mkdir(w.dir, 0700);
	write_confs();
	put_file(in_dir("fault"), "");
	setenv("POD_FAULT_FILE", in_dir("fault"), 1);
	memset(w.ticks, 0, sizeof(*w.ticks));
	for (int i = 0; i < NUM_WHO; i++)
		start(i);
	while (!both_up() && now_ns() < end)
		nap();
	pm__pod_spec__init(&spec);
	spec.name = name;
	spec.argv = argv;
	spec.n_argv = 1;
	LINK_ENVELOPE(env, run_req, RUN_REQ, Pm__RunReq, pm__run_req__init);
	env_body.spec = &spec;
	env_body.node = node;
	rep = ask(&env);
	if (!rep || rep->body_case != PM__ENVELOPE__BODY_RUN_REP)
		flunk("the pod could not be made: %s",
		      rep && rep->body_case == PM__ENVELOPE__BODY_ERROR ? rep->error->cause : "-");
	link_free(rep);
	if (!w.failed && !runs(&w.ticks->slot[0]))
		flunk("the pod does not run before the move");
	put_file(in_dir("fault"), fault);
}

static void remove_tree(const char *path)
{
	char cmd[800];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", path);
	if (system(cmd))
		fprintf(stderr, "# could not remove %s\n", path);
}

static void check_log(void)
{
	autofree char *text = NULL;

	if (io_read_file(in_dir("log"), 8 << 20, &text, NULL, NULL) == 0 &&
	    (strstr(text, "Sanitizer") || strstr(text, "runtime error")))
		flunk("a sanitizer complains");
}

static void teardown(const char *name)
{
	pid_t r;

	close_fdp(&w.client);
	for (int i = 0; i < NUM_WHO; i++)
		if (w.pid[i] > 0)
			kill(w.pid[i], SIGKILL);
	for (int i = 0; i < NUM_WHO; i++)
		if (w.pid[i] > 0)
			waitpid(w.pid[i], NULL, 0);
	for (int i = AGENT_A; i <= AGENT_B; i++) {
		kill_cgroup(w.daemons[i]);
		kill_cgroup(w.cgroup[i]);
	}
	for (uint64_t end = deadline_ms(WAIT_MS); (r = waitpid(-1, NULL, WNOHANG)) >= 0;) {
		if (r == 0 && now_ns() > end) { /* orphans become our children */
			flunk("a process is left");
			break;
		}
		if (r == 0)
			nap();
	}
	memset(w.pid, 0, sizeof(w.pid));
	check_log();
	ran++;
	if (w.failed) {
		char cmd[800];

		failures++;
		printf("not ok %u - %s\n# %s\n", ran, name, w.why);
		fflush(stdout);
		snprintf(cmd, sizeof(cmd), "tail -n 25 '%s' | sed 's/^/#   /'", in_dir("log"));
		if (system(cmd))
			printf("# no log\n");
	} else {
		printf("ok %u - %s\n", ran, name);
	}
	fflush(stdout);
	remove_tree(w.dir);
}

static void migrate_send_to(char to, bool dry_run, bool detach)
{
	char name[] = POD, node[] = { to, '\0' };

	LINK_ENVELOPE(env, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	env.id = 7;
	env_body.target = name;
	env_body.node = node;
	env_body.dry_run = dry_run;
	env_body.detach = detach;
	w.client = ask_fd();
	if (w.client < 0 || link_send(w.client, &env, deadline_ms(WAIT_MS), NULL) < 0)
		flunk("migrate could not be asked for");
}

static void migrate_send(bool dry_run, bool detach)
{
	migrate_send_to('B', dry_run, detach);
}

static void heard(const Pm__Envelope *env)
{
	switch (env->body_case) {
	case PM__ENVELOPE__BODY_PROGRESS:
		snprintf(w.op, sizeof(w.op), "%s", env->progress->op);
		break;
	case PM__ENVELOPE__BODY_MIGRATE_REP:
		w.answered = w.moved = true;
		for (size_t i = 0; i < env->migrate_rep->n_phases; i++)
			if (strcmp(env->migrate_rep->phases[i]->name, "commit") == 0)
				w.commit_ns = env->migrate_rep->phases[i]->ns;
		break;
	case PM__ENVELOPE__BODY_ERROR:
		w.answered = w.refused = true;
		w.exit_code = env->error->exit_code;
		snprintf(w.cause, sizeof(w.cause), "%s; %s", env->error->cause, env->error->state);
		break;
	default:
		break;
	}
}

/* Something may have been killed by its fault point: what died is started again, after a node's death
 * with another boot id and without its pods. */
static void revive(enum death death)
{
	for (int i = 0; i < NUM_WHO; i++) {
		int status = 0;

		if (w.pid[i] <= 0 || waitpid(w.pid[i], &status, WNOHANG) != w.pid[i])
			continue;
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			flunk("daemon %d died by itself, status 0x%x", i, status);
		if (i != COORD && death == NODE) {
			kill_cgroup(w.daemons[i]);
			kill_cgroup(w.cgroup[i]);
			w.boots[i]++;
		}
		start(i);
	}
}

/* What the daemons are doing, for the log of a case that hangs. */
static void show_daemons(void)
{
	static const char *const files[] = { "wchan", "syscall", "stack" };

	for (int i = 0; i < NUM_WHO; i++)
		for (size_t k = 0; k < ARRAY_SIZE(files); k++) {
			autofree char *text = NULL;
			char path[64];

			snprintf(path, sizeof(path), "/proc/%d/%s", w.pid[i], files[k]);
			if (io_read_file(path, 1 << 16, &text, NULL, NULL) == 0)
				printf("# daemon %d %s: %s\n", i, files[k], text);
		}
}

/* Waits for the answer to migrate, or the loss of the connection. */
static void wait_answer(enum death death)
{
	uint64_t end = deadline_ms(WAIT_MS);

	while (w.client >= 0 && !w.answered && now_ns() < end) {
		struct pollfd p = { w.client, POLLIN, 0 };
		Pm__Envelope *env = NULL;

		revive(death);
		if (poll(&p, 1, 20) <= 0)
			continue;
		if (link_recv(w.client, &env, deadline_ms(WAIT_MS), NULL) < 0)
			close_fdp(&w.client);
		else
			heard(env);
		link_free(env);
	}
	if (w.client >= 0 && !w.answered) {
		flunk("no answer to migrate");
		show_daemons();
	}
}

static void check_never_two(void)
{
	const struct tick_slot *s = &w.ticks->slot[0], *t = &w.ticks->slot[1];

	if (w.ticks->n > 2)
		flunk("%u copies were made", w.ticks->n);
	if (t->ticks && s->last >= t->first)
		flunk("TWO COPIES: the source ran until %.3f ms after the target's first step",
		      (double)(s->last - t->first) / 1e6);
}

/* Everything has come to rest: one copy, which runs, and nothing of the other. */
static void check_one_copy(enum death death)
{
	uint64_t end = deadline_ms(WAIT_MS);
	struct view v = { 0 };
	bool rest = false;
	int at;

	while (!rest && now_ns() < end) {
		revive(death);
		rest = both_up() && nothing_open() && look(&v) && v.found &&
		       v.state == PM__POD_STATE__POD_RUNNING;
		at = v.node == 'B';
		rest = rest && pod_dir(AGENT_A + at) && !pod_dir(AGENT_B - at);
		if (!rest)
			nap();
	}
	if (!rest) {
		flunk("no rest: found %d on %c state %d, open operations: %d, cgroups A %d B %d",
		      v.found, v.node ? v.node : '-', v.state, !nothing_open(), pod_dir(AGENT_A),
		      pod_dir(AGENT_B));
		return;
	}
	at = v.node == 'B';
	if (!runs(&w.ticks->slot[at]))
		flunk("the copy on %c does not run", v.node);
	if (w.moved && !at)
		flunk("the client was told that it moved, and it has not");
	if (w.refused && w.exit_code != 14 && at)
		flunk("the client was told '%s', and it has moved", w.cause);
	check_never_two();
}

static void check_fault_fired(void)
{
	struct stat st;

	if (stat(in_dir("fault"), &st) == 0 && st.st_size > 1)
		flunk("the fault point was never reached");
}

static void kill_case(const char *role, const char *stage, enum death death)
{
	char name[100], fault[100];

	snprintf(name, sizeof(name), "%s killed at %s%s", role, stage,
		 death == NODE ? " with its node" : "");
	snprintf(fault, sizeof(fault), "%s@%s:kill\n", role, stage);
	setup(fault);
	if (!w.failed) {
		migrate_send(false, false);
		wait_answer(death);
		check_fault_fired();
		check_one_copy(death);
	}
	teardown(name);
}

/* ---- cases that are not kills */

/* Some moves, of which the quickest commit counts: the machine may be slow in one. */
static void case_plain(bool last)
{
	static uint64_t quickest = UINT64_MAX;

	setup("");
	migrate_send(false, false);
	wait_answer(PROCESS);
	if (!w.moved)
		flunk("not moved: %s", w.cause);
	check_one_copy(PROCESS);
	if (w.ticks->slot[1].first)
		printf("# commit %.3f ms, copies apart %.3f ms\n", (double)w.commit_ns / 1e6,
		       (double)(w.ticks->slot[1].first - w.ticks->slot[0].last) / 1e6);
	quickest = MIN(quickest, w.commit_ns);
	if (last && quickest > 100000000)
		flunk("the commit took %.1f ms", (double)quickest / 1e6);
	teardown("a move");
}

static void case_dry_run(void)
{
	setup("");
	migrate_send(true, false);
	wait_answer(PROCESS);
	if (!w.moved)
		flunk("the dry run failed: %s", w.cause);
	w.moved = false;
	check_one_copy(PROCESS);
	if (w.ticks->n != 1)
		flunk("a dry run made a copy");
	teardown("dry run");
}

static void wait_op(void)
{
	uint64_t end = deadline_ms(WAIT_MS);

	while (!w.op[0] && !w.answered && w.client >= 0 && now_ns() < end) {
		Pm__Envelope *env = NULL;

		if (link_recv(w.client, &env, deadline_ms(WAIT_MS), NULL) == 0)
			heard(env);
		link_free(env);
	}
	if (!w.op[0])
		flunk("the move did not begin: %s", w.cause);
}

static void case_abort(void)
{
	setup("engine-source@precopy:delay=1500\n");
	migrate_send(false, false);
	wait_op();
	LINK_ENVELOPE(env, op_abort_req, OP_ABORT_REQ, Pm__OpAbortReq, pm__op_abort_req__init);
	env.id = 8;
	if (link_send(w.client, &env, deadline_ms(WAIT_MS), NULL) < 0)
		flunk("abort could not be sent");
	wait_answer(PROCESS);
	if (w.exit_code != 10)
		flunk("exit code %d, not 10: %s", w.exit_code, w.cause);
	check_one_copy(PROCESS);
	teardown("aborted by its user");
}

static void case_client_gone(bool detach)
{
	setup("engine-source@precopy:delay=1500\n");
	migrate_send(false, detach);
	wait_op();
	close_fdp(&w.client);
	w.moved = detach;
	w.refused = !detach;
	if (detach) {
		struct view v = { 0 };
		uint64_t end = deadline_ms(WAIT_MS);

		while (v.node != 'B' && now_ns() < end && look(&v))
			nap();
	}
	check_one_copy(PROCESS);
	teardown(detach ? "client gone after --detach" : "client gone");
}

static void case_busy(void)
{
	char name[] = POD, node[] = "B";
	Pm__Envelope *rep;

	setup("engine-source@precopy:delay=1500\n");
	migrate_send(false, false);
	wait_op();
	LINK_ENVELOPE(env, migrate_req, MIGRATE_REQ, Pm__MigrateReq, pm__migrate_req__init);
	env_body.target = name;
	env_body.node = node;
	rep = ask(&env);
	if (!rep || rep->body_case != PM__ENVELOPE__BODY_ERROR || rep->error->exit_code != 13)
		flunk("a second move was not refused as busy");
	link_free(rep);
	wait_answer(PROCESS);
	check_one_copy(PROCESS);
	teardown("a second move of the same pod");
}

/* The next move comes while the engine of the last one is still busy at the target: it waits. */
static void case_at_once(void)
{
	setup("");
	put_file(in_dir("fault"), "engine-target@start:delay=300\n");
	migrate_send(false, false);
	wait_answer(PROCESS);
	close_fdp(&w.client);
	if (!w.moved)
		flunk("the first move: %s", w.cause);
	w.answered = w.moved = false;
	migrate_send_to('A', false, false);
	wait_answer(PROCESS);
	if (!w.moved)
		flunk("the second move: %s", w.cause);
	check_fault_fired();
	if (!runs(&w.ticks->slot[2]) || !stands(&w.ticks->slot[1]) || w.ticks->n != 3)
		flunk("not exactly the third copy runs");
	teardown("a second move at once after the first");
}

/* START is on the target's disk, then its node dies: nobody can know. Frozen until recover. */
static void case_recover(void)
{
	struct view v = { 0 };
	char line[300];
	uint64_t end;

	setup("agent-target@start:kill\n");
	migrate_send(false, false);
	wait_answer(NODE);
	check_fault_fired();
	if (w.exit_code != 14)
		flunk("exit code %d, not 14: %s", w.exit_code, w.cause);
	if (!stands(&w.ticks->slot[0]))
		flunk("the source runs although the target may have run");
	if (!recover(w.op, line, sizeof(line)))
		flunk("recover knows nothing of '%s'", w.op);
	w.refused = false;
	for (end = deadline_ms(WAIT_MS); now_ns() < end && !(look(&v) && v.node == 'A' &&
							      v.state == PM__POD_STATE__POD_RUNNING);)
		nap();
	check_one_copy(NODE);
	if (v.node != 'A')
		flunk("recovered on %c", v.node);
	teardown("START, then the target's node dies; recover");
}

/* The target runs it, but its agent is cut off; the administrator decides for the source. When the
 * agent is back its copy must go. */
static void case_fence(void)
{
	uint64_t end = deadline_ms(WAIT_MS);
	struct view v = { 0 };
	char line[300];

	setup("agent-target@started:kill\n");
	migrate_send(false, false);
	while (!w.answered && now_ns() < end) {
		Pm__Envelope *env = NULL;

		if (link_recv(w.client, &env, deadline_ms(WAIT_MS), NULL) == 0)
			heard(env);
		link_free(env);
	}
	check_fault_fired();
	if (w.exit_code != 14)
		flunk("exit code %d, not 14: %s", w.exit_code, w.cause);
	if (!runs(&w.ticks->slot[1]) || !stands(&w.ticks->slot[0]))
		flunk("the target should run, the source not");
	if (!recover(w.op, line, sizeof(line)))
		flunk("recover knows nothing of '%s'", w.op);
	if (!runs(&w.ticks->slot[0]))
		flunk("the source does not run after recover");
	for (end = deadline_ms(WAIT_MS); now_ns() < end;) { /* the agent comes back */
		revive(PROCESS);
		if (both_up() && look(&v) && v.node == 'A' && !pod_dir(AGENT_B) && nothing_open())
			break;
		nap();
	}
	if (!runs(&w.ticks->slot[0]) || !stands(&w.ticks->slot[1]) || pod_dir(AGENT_B))
		flunk("not exactly the source's copy runs");
	teardown("recovered while the target was cut off: it is fenced");
}

/* An agent that restarts leaves its pods alone and finds them again. */
static void case_restart(void)
{
	struct view v = { 0 };
	uint64_t end = deadline_ms(WAIT_MS);

	setup("");
	kill(w.pid[AGENT_A], SIGKILL);
	if (!runs(&w.ticks->slot[0]))
		flunk("the pod does not run without its agent");
	while (now_ns() < end && !(look(&v) && v.found && v.state == PM__POD_STATE__POD_LOST))
		nap();
	if (v.state != PM__POD_STATE__POD_LOST)
		flunk("podps does not say that the node is away");
	check_one_copy(PROCESS);
	teardown("agent restarted");
}

static unsigned count_fds(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* The fewest in a while: a connection that was just closed is still being noticed. */
static unsigned least_fds(pid_t pid, unsigned enough)
{
	unsigned least = count_fds(pid);

	for (unsigned i = 0; least > enough && i < 100; i++, nap())
		least = MIN(least, count_fds(pid));
	return least;
}

static long rss_kib(pid_t pid)
{
	autofree char *text = NULL;
	char path[64], *at;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (io_read_file(path, 1 << 16, &text, NULL, NULL) < 0)
		return -1;
	at = strstr(text, "VmRSS:");
	return at ? atol(at + 6) : -1;
}

/* What a hundred moves leave in the daemons: nothing. */
static void case_many(void)
{
	static const char *const names[] = { "podcoord", "agent A", "agent B" };
	unsigned fds[NUM_WHO] = { 0 };
	long rss[NUM_WHO] = { 0 };

	setup("");
	for (int i = 1; i <= 100 && !w.failed; i++) {
		struct tick_slot *s = &w.ticks->slot[i % TICK_SLOTS];

		memset(s, 0, sizeof(*s));
		w.answered = w.moved = false;
		migrate_send_to(i % 2 ? 'B' : 'A', false, false);
		wait_answer(PROCESS);
		close_fdp(&w.client);
		if (!w.moved)
			flunk("move %d: %s", i, w.cause);
		for (int k = 0; i == 20 && k < NUM_WHO; k++) {
			fds[k] = least_fds(w.pid[k], 0);
			rss[k] = rss_kib(w.pid[k]);
		}
	}
	for (int k = 0; k < NUM_WHO && !w.failed; k++) {
		unsigned n = least_fds(w.pid[k], fds[k]);
		long r = rss_kib(w.pid[k]);

		printf("# %s: %u and %u fds, %ld and %ld KiB after 20 and 100 moves\n", names[k],
		       fds[k], n, rss[k], r);
		if (n > fds[k])
			flunk("%s has %u fds after 20 moves and %u after 100", names[k], fds[k], n);
		if (r > rss[k] + 256)
			flunk("%s grew from %ld to %ld KiB", names[k], rss[k], r);
	}
	teardown("a hundred moves leave nothing in the daemons");
}

static const char *const engine_stages[] = { "check", "precopy", "quiesce", "cut", "ready",
					     "commit" };
static const char *const source_stages[] = { "check", "precopy", "quiesce", "cut", "ready",
					     "started", "clean" };
static const char *const target_stages[] = { "check", "reserve", "precopy", "quiesce", "cut",
					     "ready", "commit", "start", "started" };
static const char *const coord_stages[] = { "check", "reserve", "precopy", "quiesce", "cut", "commit",
					    "committed", "started", "clean" };

static void all_kills(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(engine_stages); i++) {
		kill_case("engine-source", engine_stages[i], PROCESS);
		kill_case("engine-target", engine_stages[i], PROCESS);
	}
	kill_case("engine-source", "started", PROCESS);
	kill_case("engine-target", "start", PROCESS);
	for (size_t i = 0; i < ARRAY_SIZE(source_stages); i++)
		kill_case("agent-source", source_stages[i], PROCESS);
	for (size_t i = 0; i < ARRAY_SIZE(target_stages); i++)
		kill_case("agent-target", target_stages[i], PROCESS);
	for (size_t i = 0; i < ARRAY_SIZE(coord_stages); i++)
		kill_case("coord", coord_stages[i], PROCESS);
	/* a target's node that dies before START takes nothing with it */
	for (size_t i = 0; i < 7; i++)
		kill_case("agent-target", target_stages[i], NODE);
	/* a source's node that dies after the commit neither */
	kill_case("agent-source", "started", NODE);
	kill_case("agent-source", "clean", NODE);
}

/* ---- main */

int main(int argc, char **argv)
{
	log_init("commit-test", LOG_LV_WARN);
	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0 || lo_up() < 0) {
		printf("ok 1 - commit # skip needs root and network namespaces\n");
		return 0;
	}
	if (prepare() < 0) {
		printf("not ok 1 - commit: prepare: %s\n", strerror(errno));
		return 1;
	}
	if (argc > 2) {
		kill_case(argv[1], argv[2], argc > 3 ? NODE : PROCESS);
	} else {
		for (int i = 1; i <= 3; i++)
			case_plain(i == 3);
		case_dry_run();
		case_abort();
		case_client_gone(false);
		case_client_gone(true);
		case_busy();
		case_restart();
		case_at_once();
		case_many();
		case_recover();
		case_fence();
		if (argc < 2)
			all_kills();
	}
	printf("1..%u\n", ran);
	*strrchr(w.dir, '/') = '\0';
	remove_tree(w.dir);
	return failures != 0;
}
