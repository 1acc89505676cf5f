/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * SIGURG, which the engine uses for itself: processes that wake each other by it all the time, as those of PostgreSQL do.
 * One pair reads it from a signalfd, one has a handler, one directs it at a thread. A signal that is lost stops a pair, one too
 * many or with another sender is seen.
 */
#include "wl.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

enum way { SIGNALFD, HANDLER, THREAD, WAYS };

static struct pair {
	_Atomic pid_t pid[2];
	_Atomic uint64_t sent[2]; /* by each of them */
} *pairs;
static _Atomic int *stop;
static volatile sig_atomic_t came, sender, code;

static void on_urg(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	came++;
	sender = si->si_pid;
	code = si->si_code;
}

/* Waits for one SIGURG, at most a minute. 0: it is over. */
static int one(enum way way, int fd, const sigset_t *open)
{
	uint64_t end = wl_now() + 60 * WL_SEC;
	struct signalfd_siginfo si;

	while (!*stop) {
		const struct timespec ts = { 0, 50 * WL_MS };
		struct pollfd p = { .fd = fd, .events = POLLIN };

		WL_CHECK(wl_now() < end, "SIGURG, way %d: none came in 60 s", (int)way);
		if (way == SIGNALFD) {
			if (poll(&p, 1, 50) <= 0)
				continue;
			wl_read(fd, &si, sizeof(si));
			sender = (sig_atomic_t)si.ssi_pid;
			code = si.ssi_code;
			return 1;
		}
		ppoll(NULL, 0, &ts, open);
		if (came) {
			WL_EQ("SIGURGs at a time", 1, came);
			came = 0;
			return 1;
		}
	}
	return 0;
}

static int partner(int k, int me)
{
	enum way way = (enum way)k;
	struct pair *p = &pairs[k];
	struct sigaction sa = { .sa_sigaction = on_urg, .sa_flags = SA_SIGINFO };
	uint64_t got = 0;
	sigset_t set, open;
	int fd = -1;

	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, &open));
	if (way == SIGNALFD)
		fd = (int)WL_SYS(signalfd(-1, &set, SFD_CLOEXEC));
	else
		WL_SYS(sigaction(SIGURG, &sa, NULL));
	p->pid[me] = getpid();
	WL_AWAIT(p->pid[!me], "the partner");
	for (;;) {
		if ((me == 0 || got) && !*stop) {
			p->sent[me]++;
			if (way == THREAD)
				WL_SYS(syscall(SYS_tgkill, p->pid[!me], p->pid[!me], SIGURG));
			else
				WL_SYS(kill(p->pid[!me], SIGURG));
		}
		if (!one(way, fd, &open))
			return 41;
		got++;
		WL_EQ("sender of a SIGURG", p->pid[!me], sender);
		WL_EQ("its code", way == THREAD ? SI_TKILL : SI_USER, code);
		WL_EQ("its number", p->sent[!me], got);
	}
}

static int first(void *arg) { return partner((int)(intptr_t)arg, 0); }
static int second(void *arg) { return partner((int)(intptr_t)arg, 1); }

int main(void)
{
	uint64_t last[WAYS] = { 0 };
	pid_t pids[WAYS][2];
	intptr_t k;

	wl_init();
	wl_session_nice(19);
	pairs = wl_shared(WAYS * sizeof(*pairs));
	stop = wl_shared(sizeof(*stop));
	for (k = 0; k < WAYS; k++) {
		pids[k][0] = wl_spawn(first, (void *)k);
		pids[k][1] = wl_spawn(second, (void *)k);
	}
	wl_ready();
	do {
		wl_pace();
		for (k = 0; k < WAYS; k++)
			WL_AWAIT(pairs[k].sent[0] > last[k], "a pair goes on");
		for (k = 0; k < WAYS; k++)
			last[k] = pairs[k].sent[0];
	} while (!wl_stopping());
	*stop = 1;
	for (k = 0; k < WAYS; k++) {
		wl_reap(pids[k][0], 41);
		wl_reap(pids[k][1], 41);
		WL_CHECK(pairs[k].sent[1] > 50, "way %d: only %llu round trips", (int)k, (unsigned long long)pairs[k].sent[1]);
	}
	wl_ok();
}
