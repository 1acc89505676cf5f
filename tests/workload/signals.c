/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signals: dispositions with their flags and masks, handlers that count, one that stays on its
 * alternate stack for good, queues of pending signals (of the process and of threads, with values and
 * senders, real-time signals in order), a pending SIGCHLD, masks of threads, an ignored signal.
 */
#include "wl.h"

#include <pthread.h>

#define QP (SIGRTMIN + 1) /* queued for the process, blocked everywhere */
#define QT (SIGRTMIN + 2) /* queued for each thread, blocked everywhere */
#define Q2 (SIGRTMIN + 3) /* a second one, to see the order of numbers */
#define HIT (SIGRTMIN + 4) /* handled */
#define STAY (SIGRTMIN + 5) /* its handler stays on the alternate stack */
#define DEPTH 12

static _Atomic int stop, hits, nested, stays;
static _Atomic long steps[3];
static struct sigaction before[65];

static void on_hit(int sig, siginfo_t *si, void *uc)
{
	sigset_t now;

	(void)uc;
	WL_EQ("signal in its handler", HIT, sig);
	WL_EQ("code", SI_QUEUE, si->si_code);
	WL_EQ("value", hits, si->si_value.sival_int);
	WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &now));
	WL_EQ("own signal is blocked in the handler", 1, sigismember(&now, HIT));
	WL_EQ("sa_mask is blocked in the handler", 1, sigismember(&now, SIGWINCH));
	hits++;
}

static void on_nested(int sig)
{
	if (nested++ % 4 < 3)
		raise(sig); /* SA_NODEFER */
}

static void on_stay(int sig, siginfo_t *si, void *uc)
{
	uint8_t frame[6000];
	stack_t ss;

	(void)sig;
	(void)si;
	(void)uc;
	while (!stop) {
		wl_fill(frame, sizeof(frame), (uint64_t)steps[2], 0);
		wl_pace();
		wl_verify("frame on the alternate stack", frame, sizeof(frame),
			  (uint64_t)steps[2], 0);
		WL_SYS(sigaltstack(NULL, &ss));
		WL_EQ("flags of the alternate stack", SS_ONSTACK, ss.ss_flags);
		WL_CHECK((char *)frame >= (char *)ss.ss_sp &&
				 (char *)frame < (char *)ss.ss_sp + ss.ss_size,
			 "the handler is not on the alternate stack");
		steps[2]++;
	}
	stays++;
}

static void *stay_thread(void *arg)
{
	stack_t ss = { .ss_sp = wl_map(65536, PROT_READ | PROT_WRITE, MAP_PRIVATE),
		       .ss_size = 65536 },
		got;
	sigset_t set;
	int was;

	(void)arg;
	WL_SYS(sigaltstack(&ss, NULL));
	sigfillset(&set);
	sigdelset(&set, STAY);
	WL_ZERO(pthread_sigmask(SIG_SETMASK, &set, NULL));
	was = stays;
	WL_ZERO(pthread_kill(pthread_self(), STAY));
	WL_EQ("the handler was here", was + 1, stays);
	WL_SYS(sigaltstack(NULL, &got));
	WL_EQ("flags of the alternate stack after the handler", 0, got.ss_flags);
	WL_CHECK(got.ss_sp == ss.ss_sp && got.ss_size == ss.ss_size,
		 "alternate stack: expected %p, got %p", ss.ss_sp, got.ss_sp);
	return NULL;
}

/* Takes the oldest pending one; it must be this. */
static void dequeue(int sig, int value, int code, pid_t from)
{
	struct timespec zero = { 0, 0 };
	siginfo_t si;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	WL_EQ("pending signal", sig, sigtimedwait(&set, &si, &zero));
	WL_EQ("its code", code, si.si_code);
	WL_EQ("its sender", from, si.si_pid);
	WL_EQ("its sender's uid", getuid(), si.si_uid);
	if (code == SI_QUEUE)
		WL_EQ("its value", value, si.si_value.sival_int);
}

static void none_pending(int sig)
{
	struct timespec zero = { 0, 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	errno = 0;
	WL_EQ("no more signals", -1, sigtimedwait(&set, NULL, &zero));
	WL_EQ("errno", EAGAIN, errno);
}

/* Each thread has a queue of its own and a mask of its own. */
static void *queue_thread(void *arg)
{
	size_t id = (uintptr_t)arg;
	int in = 0, out = 0;
	sigset_t set, now;
	size_t i;

	sigfillset(&set);
	sigdelset(&set, id ? SIGUSR1 : SIGWINCH);
	sigdelset(&set, SIGUSR2);
	WL_ZERO(pthread_sigmask(SIG_SETMASK, &set, NULL));
	WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &set)); /* some cannot be blocked */
	while (!stop) {
		while (in < out + DEPTH)
			WL_ZERO(pthread_sigqueue(pthread_self(), QT,
						 (union sigval){ .sival_int = in++ * 3 }));
		wl_pace();
		dequeue(QT, out++ * 3, SI_QUEUE, getpid());
		WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &now));
		for (i = 1; i < 65; i++)
			WL_EQ("mask of a thread", sigismember(&set, (int)i),
			      sigismember(&now, (int)i));
		steps[id]++;
	}
	while (out < in)
		dequeue(QT, out++ * 3, SI_QUEUE, getpid());
	none_pending(QT);
	return NULL;
}

static void handler(int sig, void (*fn)(int), int flags, int masked)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	sigemptyset(&sa.sa_mask);
	if (masked)
		sigaddset(&sa.sa_mask, masked);
	WL_SYS(sigaction(sig, &sa, NULL));
}

static void check_dispositions(void)
{
	struct sigaction sa;
	int sig;

	for (sig = 1; sig < 65; sig++) {
		if (sig == 32 || sig == 33)
			continue;
		WL_SYS(sigaction(sig, NULL, &sa));
		WL_CHECK(sa.sa_handler == before[sig].sa_handler &&
				 sa.sa_flags == before[sig].sa_flags &&
				 !memcmp(&sa.sa_mask, &before[sig].sa_mask, 8),
			 "disposition of signal %d: expected %p flags %x, got %p flags %x", sig,
			 (void *)before[sig].sa_handler, before[sig].sa_flags,
			 (void *)sa.sa_handler, sa.sa_flags);
	}
}

static void setup(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, QP);
	sigaddset(&set, QT);
	sigaddset(&set, Q2);
	sigaddset(&set, STAY);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	handler(HIT, (void (*)(int))(void (*)(void))on_hit, SA_SIGINFO | SA_RESTART, SIGWINCH);
	handler(STAY, (void (*)(int))(void (*)(void))on_stay, SA_SIGINFO | SA_ONSTACK, SIGIO);
	handler(SIGUSR1, on_nested, SA_NODEFER | SA_RESTART, 0);
	handler(SIGCHLD, on_nested, SA_NOCLDSTOP, SIGUSR1);
	handler(SIGPIPE, SIG_IGN, 0, 0);
	handler(SIGTTOU, SIG_IGN, SA_RESTART, SIGUSR2);
	handler(SIGXCPU, on_nested, (int)SA_RESETHAND, 0);
	handler(SIGRTMAX, on_nested, SA_ONSTACK | SA_RESTART, SIGRTMAX - 1);
	for (sig = 1; sig < 65; sig++)
		if (sig != 32 && sig != 33)
			WL_SYS(sigaction(sig, NULL, &before[sig]));
}

static int child(void *arg)
{
	(void)arg;
	return 23;
}

int main(void)
{
	int in = 0, out = 0, sent = 0, raised = 0;
	sigset_t mine, now;
	pthread_t th[3];
	pid_t kid;
	size_t i;

	wl_init();
	setup();
	/* from another process, of another kind, never taken until the end */
	kid = wl_spawn(child, NULL);
	WL_SYS(waitid(P_PID, (id_t)kid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT));
	WL_SYS(kill(getpid(), SIGHUP));
	WL_ZERO(pthread_create(&th[0], NULL, queue_thread, (void *)0));
	WL_ZERO(pthread_create(&th[1], NULL, queue_thread, (void *)1));
	WL_ZERO(pthread_create(&th[2], NULL, stay_thread, NULL));
	WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &mine));
	WL_AWAIT(steps[2] > 0, "the handler that stays");
	wl_ready();
	while (!wl_stopping()) {
		while (in < out + DEPTH) {
			WL_SYS(sigqueue(getpid(), Q2, (union sigval){ .sival_int = in * 5 }));
			WL_SYS(sigqueue(getpid(), QP, (union sigval){ .sival_int = in++ * 7 }));
		}
		wl_pace();
		dequeue(QP, out * 7, SI_QUEUE, getpid());
		dequeue(Q2, out++ * 5, SI_QUEUE, getpid());
		/* handled at once, in this thread: the others block it */
		WL_SYS(sigqueue(getpid(), HIT, (union sigval){ .sival_int = sent++ }));
		WL_AWAIT(hits == sent, "the handler");
		WL_ZERO(pthread_kill(pthread_self(), SIGUSR1));
		WL_EQ("nested handlers", 4 * ++raised, nested);
		check_dispositions();
		WL_ZERO(pthread_sigmask(SIG_SETMASK, NULL, &now));
		WL_CHECK(!memcmp(&now, &mine, 8), "mask of the main thread changed");
	}
	stop = 1;
	for (i = 0; i < 3; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	while (out < in) {
		dequeue(QP, out * 7, SI_QUEUE, getpid());
		dequeue(Q2, out++ * 5, SI_QUEUE, getpid());
	}
	none_pending(QP);
	none_pending(Q2);
	dequeue(SIGHUP, 0, SI_USER, getpid());
	dequeue(SIGCHLD, 0, CLD_EXITED, kid);
	none_pending(SIGCHLD);
	wl_reap(kid, 23);
	wl_ok();
}
