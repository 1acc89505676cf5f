/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Processes whose main thread has ended while others run, by pthread_exit() and by exit(2): a process and its child, three
 * threads each. One works on memory, fds and locks, and starts and joins threads; one takes signals that are sent to the process,
 * of its own, of the other process and of timers; one sleeps. What the end of the main thread did (clear_child_tid, the robust list)
 * was done once. All the time there are processes that become such, and end with a code for their parent.
 */
#include "wl.h"

#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/time.h>

#define MEM (2ul << 20)
#define SIG_HANDLED (SIGRTMIN + 1) /* unblocked in the worker alone */
#define SIG_QUEUED (SIGRTMIN + 2)  /* by its own process, with a number */
#define SIG_OTHER (SIGRTMIN + 3)   /* by the other process, with a number */
#define SIG_TIMER (SIGRTMIN + 4)   /* to the thread that takes signals */
#define CODE 77
#define MARK 0x5a5a

/* Of both processes. */
static struct shared {
	_Atomic int stop, up;
	_Atomic pid_t pid[2];
	_Atomic uint64_t heard[2], steps[2];
} *sh;

static struct {
	int me;			/* 0: parent, 1: child */
	pid_t pid, ppid;
	_Atomic pid_t sleeper, taker;
	pthread_t main, by[3];
	_Atomic int word;	/* clear_child_tid of the main thread, if it ends by exit(2) */
	pthread_mutex_t robust;
	uint8_t *mem;
	int pipe[2], event, file, lock;
	volatile sig_atomic_t handled;
} g;

static uint64_t round_no;

static void on_signal(int sig)
{
	(void)sig;
	g.handled++;
}

static void no_handler(int sig)
{
	wl_fail("signal %d: expected to be blocked, got its handler", sig);
}

static void block_all(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR2); /* how a child tells that it has failed */
	WL_ZERO(pthread_sigmask(SIG_SETMASK, &set, NULL));
}

/* ---- identity, and what /proc says of it */

static void check_identity(void)
{
	char path[64], line[128];
	bool found = false;
	FILE *f;

	WL_EQ("pid", g.pid, getpid());
	WL_EQ("parent", g.ppid, getppid());
	WL_CHECK(syscall(SYS_gettid) != g.pid, "thread id: expected another than the main thread's");
	WL_SYS(kill(g.pid, 0));
	WL_SYS(syscall(SYS_tgkill, g.pid, g.sleeper, 0));
	snprintf(path, sizeof(path), "/proc/%d/status", g.pid);
	f = fopen(path, "re");
	WL_CHECK(f, "%s: expected to be there, got %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "State:", 6)) {
			found = true;
			WL_CHECK(strchr(line, 'Z'), "state of the main thread: expected Z, got %s", line);
		}
	fclose(f);
	WL_CHECK(found, "%s: expected a state", path);
	snprintf(path, sizeof(path), "/proc/%d/comm", g.pid);
	f = fopen(path, "re");
	WL_CHECK(f && fgets(line, sizeof(line), f), "%s: expected a name", path);
	fclose(f);
	WL_CHECK(!strcmp(line, g.me ? "dead-1\n" : "dead-0\n"), "name of the main thread: expected dead-%d, got %s", g.me, line);
}

static void check_actions(void)
{
	struct sigaction sa;

	WL_SYS(sigaction(SIG_HANDLED, NULL, &sa));
	WL_CHECK(sa.sa_handler == on_signal && sa.sa_flags & SA_NODEFER && sigismember(&sa.sa_mask, SIGHUP), "action of SIG_HANDLED");
	WL_SYS(sigaction(SIG_QUEUED, NULL, &sa));
	WL_CHECK(sa.sa_handler == no_handler, "action of SIG_QUEUED");
	WL_SYS(sigaction(SIGPIPE, NULL, &sa));
	WL_CHECK(sa.sa_handler == SIG_IGN, "action of SIGPIPE");
}

/* ---- the worker */

static void *short_lived(void *arg)
{
	WL_EQ("pid in a new thread", g.pid, getpid());
	wl_pace();
	return (void *)((uintptr_t)arg * 3);
}

static void check_threads(void)
{
	pthread_t t[2];
	uintptr_t i;
	void *res;

	for (i = 0; i < 2; i++)
		WL_ZERO(pthread_create(&t[i], NULL, short_lived, (void *)(round_no + i)));
	for (i = 0; i < 2; i++) {
		WL_ZERO(pthread_join(t[i], &res));
		WL_EQ("result of a thread", (round_no + i) * 3, (uintptr_t)res);
	}
}

static void check_memory(void)
{
	size_t at = round_no % 16 * (MEM / 16);

	wl_verify("memory", g.mem + at, MEM / 16, 7 + (uint64_t)g.me, at);
	memset(g.mem + at, 0, MEM / 16);
	wl_pace();
	wl_verify_zero("memory", g.mem + at, MEM / 16);
	wl_fill(g.mem + at, MEM / 16, 7 + (uint64_t)g.me, at);
}

static void check_fds(void)
{
	uint64_t n = round_no;
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };

	/* one number is always on its way, and one in the file's position */
	wl_write(g.pipe[1], &n, sizeof(n));
	wl_read(g.pipe[0], &n, sizeof(n));
	WL_EQ("number in the pipe", round_no - 1, n);
	WL_EQ("position of the file", round_no, WL_SYS(lseek(g.file, 0, SEEK_CUR)));
	WL_EQ("written", 1, WL_SYS(write(g.file, "x", 1)));
	wl_read(g.event, &n, sizeof(n));
	WL_EQ("eventfd", round_no, n);
	n = round_no + 1;
	wl_write(g.event, &n, sizeof(n));
	/* the parent's main thread took it, for the process: the child is refused it, and hears by whom */
	if (g.me) {
		WL_SYS(fcntl(g.lock, F_GETLK, &l));
		WL_EQ("type of the lock", F_WRLCK, l.l_type);
		WL_EQ("owner of the lock", g.ppid, l.l_pid);
	}
}

static void check_signals(void)
{
	sig_atomic_t n = g.handled;

	WL_SYS(kill(g.pid, SIG_HANDLED));
	WL_EQ("signals to the process that were handled", n + 1, g.handled);
}

/* What the main thread's end has done is done. */
static void check_end(void)
{
	if (g.me)
		WL_EQ("the word that the end of the main thread cleared", MARK, g.word);
	WL_ZERO(pthread_mutex_lock(&g.robust));
	WL_ZERO(pthread_mutex_unlock(&g.robust));
}

static void await_end(void)
{
	int now;

	if (g.me) {
		while ((now = g.word))
			WL_CHECK(syscall(SYS_futex, &g.word, FUTEX_WAIT, now, NULL, NULL, 0) == 0 || errno == EAGAIN,
				 "wait for the main thread's word: expected 0, got %s", strerror(errno));
		g.word = MARK;
	} else {
		WL_ZERO(pthread_join(g.main, NULL));
	}
	WL_EQ("robust mutex of the main thread", EOWNERDEAD, pthread_mutex_lock(&g.robust));
	WL_ZERO(pthread_mutex_consistent(&g.robust));
	WL_ZERO(pthread_mutex_unlock(&g.robust));
	WL_AWAIT(g.sleeper && g.taker, "the other threads");
}

/* ---- processes that become such, and end */

static void *ender(void *arg)
{
	int i, n = (int)(uintptr_t)arg;

	for (i = 0; i < 10; i++)
		wl_pace();
	exit(n);
}

static int become(void *arg)
{
	uint64_t state = (uintptr_t)arg;
	pthread_t t;

	WL_ZERO(pthread_create(&t, NULL, ender, arg));
	wl_sleep_ns(wl_rand(&state) % (4 * WL_MS));
	if ((uintptr_t)arg % 2)
		pthread_exit(NULL);
	syscall(SYS_exit, 0);
	return 0;
}

/* Whose main thread ends before it is told to: its end is no end of the process. */
static void check_ending(void)
{
	static struct {
		pid_t pid;
		uintptr_t code;
	} e[3];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(e); i++) {
		siginfo_t si = { .si_pid = 0 };

		if (!e[i].pid) {
			e[i].code = 1 + (round_no + i) % 200;
			e[i].pid = wl_spawn(become, (void *)e[i].code);
			continue;
		}
		WL_SYS(waitid(P_PID, (id_t)e[i].pid, &si, WEXITED | WNOHANG | WNOWAIT));
		if (!si.si_pid)
			continue;
		WL_EQ("code in the siginfo", e[i].code, si.si_status);
		wl_reap(e[i].pid, (int)e[i].code);
		e[i].pid = 0;
	}
}

/* ---- the thread that takes signals */

/* The next of @sig, with the number that comes after *@n. */
static void take_number(int sig, pid_t from, uint64_t *n)
{
	const struct timespec zero = { 0, 0 };
	siginfo_t si;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	while (sigtimedwait(&set, &si, &zero) == sig) {
		WL_EQ("number of a signal", *n + 1, (uint64_t)(uintptr_t)si.si_value.sival_ptr);
		WL_EQ("sender of a signal", from, si.si_pid);
		++*n;
	}
}

static void await_signal(int sig, int code)
{
	const struct timespec zero = { 0, 0 };
	siginfo_t si;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	WL_AWAIT(sigtimedwait(&set, &si, &zero) == sig, "a timer's signal");
	WL_EQ("code of a timer's signal", code, si.si_code);
}

static void *take_signals(void *arg)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIG_TIMER };
	struct itimerspec its = { { 0, 7000000 }, { 0, 7000000 } };
	uint64_t queued = 0, taken = 0;
	timer_t timer;
	pid_t other;

	(void)arg;
	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	WL_SYS(timer_create(CLOCK_MONOTONIC, &ev, &timer));
	WL_SYS(timer_settime(timer, 0, &its, NULL));
	g.taker = (pid_t)syscall(SYS_gettid);
	WL_AWAIT(sh->pid[!g.me], "the other process");
	other = sh->pid[!g.me];
	while (!sh->stop) {
		uint64_t heard = sh->heard[g.me], sent = sh->steps[g.me];

		/* one of each is pending nearly always */
		WL_SYS(sigqueue(g.pid, SIG_QUEUED, (union sigval){ .sival_ptr = (void *)(uintptr_t)++queued }));
		if (sent == sh->heard[!g.me]) {
			sh->steps[g.me] = sent + 1;
			WL_SYS(sigqueue(other, SIG_OTHER, (union sigval){ .sival_ptr = (void *)(uintptr_t)(sent + 1) }));
		}
		wl_pace();
		take_number(SIG_QUEUED, g.pid, &taken);
		WL_EQ("signals of its own", queued, taken);
		take_number(SIG_OTHER, other, &heard);
		sh->heard[g.me] = heard;
		await_signal(SIG_TIMER, SI_TIMER);
		await_signal(SIGALRM, SI_KERNEL);
	}
	for (;;)
		wl_sleep_ns(WL_SEC);
	return NULL;
}

static void *sleep_on(void *arg)
{
	(void)arg;
	g.sleeper = (pid_t)syscall(SYS_gettid);
	wl_sleep_ns(1000 * WL_SEC);
	wl_fail("sleep of 1000 s: expected to be in it, got its end");
}

/* ---- a process */

static void check(void)
{
	round_no++;
	check_identity();
	check_actions();
	check_memory();
	check_fds();
	check_signals();
	check_end();
	check_threads();
	check_ending();
}

static int be_child(void *arg);

static void *work(void *arg)
{
	sigset_t set;
	pid_t child = 0;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIG_HANDLED);
	WL_ZERO(pthread_sigmask(SIG_UNBLOCK, &set, NULL));
	await_end();
	/* born of a thread that lives, whose end it would not survive */
	if (!g.me)
		child = wl_spawn(be_child, NULL);
	sh->up++;
	if (!g.me) {
		WL_AWAIT(sh->up == 2, "the child");
		wl_ready();
	}
	while (g.me ? !sh->stop : !wl_stopping()) {
		check();
		if (child)
			WL_EQ("wait for a child whose main thread has ended", 0, WL_SYS(waitpid(child, NULL, WNOHANG)));
		wl_pace();
	}
	check();
	if (g.me)
		exit(CODE); /* and the signals' thread, and the one that sleeps, with it */
	sh->stop = 1;
	wl_reap(child, CODE);
	wl_ok();
}

static void set_up(int me)
{
	static void (*const handlers[])(int) = { on_signal, no_handler, no_handler, no_handler };
	struct itimerval every = { { 0, 9000 }, { 0, 9000 } };
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1 };
	pthread_mutexattr_t attr;
	uint64_t n = 1;
	size_t i;

	g.me = me;
	g.pid = sh->pid[me] = getpid();
	g.ppid = getppid();
	g.main = pthread_self();
	round_no = 0;
	for (i = 0; i < ARRAY_SIZE(handlers); i++) {
		struct sigaction sa = { .sa_handler = handlers[i], .sa_flags = SA_NODEFER };

		sigemptyset(&sa.sa_mask);
		sigaddset(&sa.sa_mask, SIGHUP);
		WL_SYS(sigaction(SIG_HANDLED + (int)i, &sa, NULL));
	}
	signal(SIGPIPE, SIG_IGN);
	block_all();
	g.mem = wl_map(MEM, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	wl_fill(g.mem, MEM, 7 + (uint64_t)me, 0);
	WL_SYS(pipe2(g.pipe, O_CLOEXEC));
	n = 0;
	wl_write(g.pipe[1], &n, sizeof(n));
	g.event = (int)WL_SYS(eventfd(1, 0));
	g.file = (int)WL_SYS(memfd_create("deadleader", 0));
	WL_SYS(lseek(g.file, 1, SEEK_SET));
	if (!me) {
		g.lock = (int)WL_SYS(open("/tmp/deadleader", O_RDWR | O_CREAT, 0600));
		WL_SYS(fcntl(g.lock, F_SETLK, &l));
	}
	WL_SYS(setitimer(ITIMER_REAL, &every, NULL));
	WL_ZERO(pthread_mutexattr_init(&attr));
	WL_ZERO(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
	WL_ZERO(pthread_mutex_init(&g.robust, &attr));
	WL_ZERO(pthread_mutex_lock(&g.robust));
}

static void start(int me)
{
	set_up(me);
	WL_SYS(prctl(PR_SET_NAME, me ? "dead-1" : "dead-0"));
	g.word = MARK + 1;
	if (me)
		syscall(SYS_set_tid_address, &g.word);
	WL_ZERO(pthread_create(&g.by[0], NULL, work, NULL));
	WL_ZERO(pthread_create(&g.by[1], NULL, take_signals, NULL));
	WL_ZERO(pthread_create(&g.by[2], NULL, sleep_on, NULL));
	if (!me)
		pthread_exit(NULL);
	syscall(SYS_exit, 0);
}

static int be_child(void *arg)
{
	(void)arg;
	g.sleeper = g.taker = 0;
	start(1);
	return 0;
}

int main(void)
{
	wl_init();
	sh = wl_shared(sizeof(*sh));
	start(0);
	return 0;
}
