/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Trees that no processes can have become are refused before anything is made; users gain nothing by one. */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "pod/restore.h"
#include "tests/harness.h"

#define NPROCS 8

struct tree {
	Pm__Tree msg;
	Pm__Proc proc[NPROCS], *procp[NPROCS];
};

static Pm__Proc *add(struct tree *t, uint32_t pid, uint32_t ppid, uint32_t sid)
{
	size_t i = t->msg.n_procs++;
	Pm__Proc *p = t->procp[i] = &t->proc[i];

	pm__proc__init(p);
	p->pid = pid;
	p->ppid = ppid;
	p->sid = sid;
	return p;
}

static void begin(struct tree *t)
{
	memset(t, 0, sizeof(*t));
	pm__tree__init(&t->msg);
	t->msg.procs = t->procp;
	add(t, 1, 0, 1);
}

static void test_sane(void)
{
	struct err e = { 0 };
	struct tree t;

	begin(&t);
	add(&t, 5, 3, 3);
	add(&t, 3, 1, 3);
	add(&t, 9, 1, 3);  /* an orphan of session 3 */
	add(&t, 10, 1, 7); /* one whose leader is dead */
	add(&t, 11, 9, 11);
	add(&t, 12, 1, 11);
	T_OK(rcheck_tree(&t.msg, &e), &e);
}

static int loop_of(const uint32_t (*p)[3], size_t n)
{
	struct err e = { 0 };
	struct tree t;
	size_t i;

	begin(&t);
	for (i = 0; i < n; i++)
		add(&t, p[i][0], p[i][1], p[i][2]);
	return rcheck_tree(&t.msg, &e);
}

#define REFUSED(...)                                                               \
	do {                                                                       \
		const uint32_t p[][3] = { __VA_ARGS__ };                           \
		T_CHECK_EQ(loop_of(p, ARRAY_SIZE(p)), -EBADMSG);                   \
	} while (0)

static void test_loops(void)
{
	struct err e = { 0 };
	struct tree t;

	REFUSED({ 5, 5, 1 });
	REFUSED({ 5, 6, 1 }, { 6, 5, 1 });
	REFUSED({ 5, 1, 6 }, { 6, 5, 6 });			    /* the leader is the child of who needs him */
	REFUSED({ 5, 1, 6 }, { 6, 7, 6 }, { 7, 1, 8 }, { 8, 5, 8 }); /* the same by two sessions */
	REFUSED({ 5, 1, 6 }, { 6, 1, 5 });			    /* leaders that lead nothing */
	REFUSED({ 5, 9, 1 });					    /* no such parent */
	REFUSED({ 5, 1, 1 }, { 5, 1, 1 });
	REFUSED({ 0, 1, 1 });
	REFUSED({ 1, 1, 1 });
	REFUSED({ 0x80000000, 1, 1 });
	begin(&t);
	add(&t, 5, 1, 1)->zombie = true;
	add(&t, 6, 5, 1);
	T_CHECK_EQ(rcheck_tree(&t.msg, &e), -EBADMSG);
	begin(&t);
	t.proc[0].pid = 2;
	T_CHECK_EQ(rcheck_tree(&t.msg, &e), -EBADMSG);
	t.msg.n_procs = 0;
	T_CHECK_EQ(rcheck_tree(&t.msg, &e), -EBADMSG);
}

/* @ids: of its threads, 0 ends them. */
static int led_by(uint32_t pid, bool dead, bool zombie, const uint32_t *ids)
{
	struct err e = { 0 };
	Pm__Thread th[4], *list[4];
	struct tree t;
	Pm__Proc *p;

	begin(&t);
	p = pid == 1 ? &t.proc[0] : add(&t, pid, 1, 1);
	p->leader_dead = dead;
	p->zombie = zombie;
	p->threads = list;
	for (; ids[p->n_threads]; p->n_threads++) {
		list[p->n_threads] = &th[p->n_threads];
		pm__thread__init(list[p->n_threads]);
		th[p->n_threads].tid = ids[p->n_threads];
	}
	return rcheck_tree(&t.msg, &e);
}

/* One that has ended has other threads, and is none. */
static void test_dead_leader(void)
{
	T_CHECK_EQ(led_by(5, false, false, (const uint32_t[]){ 5, 6, 0 }), 0);
	T_CHECK_EQ(led_by(5, true, false, (const uint32_t[]){ 6, 0 }), 0);
	T_CHECK_EQ(led_by(5, true, false, (const uint32_t[]){ 6, 7, 0 }), 0);
	T_CHECK_EQ(led_by(5, true, false, (const uint32_t[]){ 5, 6, 0 }), -EBADMSG);
	T_CHECK_EQ(led_by(5, true, false, (const uint32_t[]){ 6, 5, 0 }), -EBADMSG);
	T_CHECK_EQ(led_by(5, true, false, (const uint32_t[]){ 0 }), -EBADMSG);
	T_CHECK_EQ(led_by(5, true, true, (const uint32_t[]){ 6, 0 }), -EBADMSG);
	T_CHECK_EQ(led_by(1, true, false, (const uint32_t[]){ 6, 0 }), -EBADMSG);
}

/* ---- privilege */

struct want {
	int nice, oom, autogroup;
	uint32_t policy, rt_prio, ioprio;
	uint64_t nofile;
	uint64_t rtprio_limit, nice_limit; /* of the node */
	int own_nice;
};

static int give(uint32_t uid, struct want want)
{
	char user[] = "u", comm[] = "c";
	uint64_t limits[RLIMITS][2] = { { 0 } };
	struct bounds b = { .nice = want.own_nice };
	Pm__PodSpec spec = PM__POD_SPEC__INIT;
	Pm__Thread th = PM__THREAD__INIT, *thp = &th;
	struct err e = { 0 };
	struct tree t;

	b.hard[RLIMIT_NOFILE] = 1000;
	b.hard[RLIMIT_RTPRIO] = want.rtprio_limit;
	b.hard[RLIMIT_NICE] = want.nice_limit;
	spec.uid = uid;
	spec.user = user;
	begin(&t);
	th.nice = want.nice;
	th.policy = want.policy;
	th.rt_prio = want.rt_prio;
	th.ioprio = want.ioprio;
	t.proc[0].threads = &thp;
	t.proc[0].n_threads = 1;
	t.proc[0].oom_adj = want.oom;
	t.proc[0].autogroup = want.autogroup;
	t.proc[0].comm = comm;
	limits[RLIMIT_NOFILE][1] = want.nofile;
	t.proc[0].rlimits.len = sizeof(limits);
	t.proc[0].rlimits.data = (uint8_t *)limits;
	return rcheck_policy(&spec, &b, &t.msg, &e);
}

static void test_privilege(void)
{
	static const struct want allowed[] = {
		{ .nice = 0 },
		{ .nice = 19, .autogroup = 19, .oom = 1000, .nofile = 1000, .policy = SCHED_BATCH, .ioprio = 2 << 13 },
		{ .policy = SCHED_IDLE | SCHED_RESET_ON_FORK, .ioprio = 3 << 13 },
		{ .policy = SCHED_RR, .rt_prio = 5, .rtprio_limit = 5 },
		{ .nice = -5, .nice_limit = 25 },
		{ .nice = -5, .own_nice = -5 },
	};
	static const struct want refused[] = {
		{ .nice = -1 },
		{ .nice = -6, .nice_limit = 25 },
		{ .oom = -1 },
		{ .autogroup = -1 },
		{ .nofile = 1001 },
		{ .nofile = UINT64_MAX },
		{ .policy = SCHED_FIFO, .rt_prio = 1 },
		{ .policy = SCHED_RR | SCHED_RESET_ON_FORK, .rt_prio = 6, .rtprio_limit = 5 },
		{ .policy = 6 },
		{ .ioprio = 1 << 13 | 4 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(allowed); i++)
		if (give(1000, allowed[i]) != 0)
			t_fail(__FILE__, __LINE__, "allowed[%zu] was refused", i);
	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		if (give(1000, refused[i]) != -EPERM)
			t_fail(__FILE__, __LINE__, "refused[%zu] was allowed", i);
		if (give(0, refused[i]) != 0)
			t_fail(__FILE__, __LINE__, "refused[%zu] was refused to root", i);
	}
}

static int tree_code(struct tree *t)
{
	struct err e = { 0 };

	return rcheck_tree(&t->msg, &e);
}

/* How a process is stopped, how it tells of its end, and filters that are none. */
static void test_states(void)
{
	uint64_t prog[4] = { 6 };
	Pm__Filter f, *fp[1] = { &f };
	Pm__Thread th, *thp[1] = { &th };
	uint32_t which[1] = { 0 };
	struct tree t;
	Pm__Proc *p;

	begin(&t);
	p = add(&t, 2, 1, 1);
	p->exit_signal = 1;
	p->stop_signal = 20;
	p->job_news = 1;
	T_CHECK_EQ(tree_code(&t), 0);
	p->stop_signal = 9;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	p->stop_signal = 19;
	p->job_news = 3;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	p->job_news = 0;
	p->exit_signal = 66;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	p->exit_signal = 18;
	T_CHECK_EQ(tree_code(&t), 0);
	t.proc[0].stop_signal = 19; /* pid 1 */
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	t.proc[0].stop_signal = 0;

	pm__filter__init(&f);
	pm__thread__init(&th);
	t.msg.filters = fp;
	t.msg.n_filters = 1;
	p->threads = thp;
	p->n_threads = 1;
	f.prog.data = (uint8_t *)prog;
	f.prog.len = sizeof(prog);
	th.seccomp = 2;
	th.filters = which;
	th.n_filters = 1;
	T_CHECK_EQ(tree_code(&t), 0);
	which[0] = 1; /* not there */
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	which[0] = 0;
	th.seccomp = 1; /* strict, with a filter */
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	th.seccomp = 3;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	th.seccomp = 2;
	f.prog.len = 12;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	f.prog.len = 0;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	f.prog.len = 8 * 4097;
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	f.prog.len = 8;
	f.flags = 1; /* TSYNC is for the restore to say */
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	f.flags = 8; /* and so is a listener */
	T_CHECK_EQ(tree_code(&t), -EBADMSG);
	f.flags = 2;
	T_CHECK_EQ(tree_code(&t), 0);
}

static const struct test_case cases[] = {
	{ "sane", test_sane },
	{ "loops", test_loops },
	{ "dead_leader", test_dead_leader },
	{ "privilege", test_privilege },
	{ "states", test_states },
};
const struct test_suite rcheck_suite = { "rcheck", cases, ARRAY_SIZE(cases) };
