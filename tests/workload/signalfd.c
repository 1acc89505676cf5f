/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * signalfd: with signals pending for the process and queued with values, a blocked reader, two fds
 * with different masks, one in a child; the mask of an fd is changed while it lives.
 */
#include "wl.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>

#define KEPT (SIGRTMIN + 1) /* always some of these pending */
#define FAST (SIGRTMIN + 2) /* read by a thread that waits */
#define FLIP (SIGRTMIN + 3) /* in the mask of the third fd every other round */

static struct shared {
	_Atomic uint64_t child_seen;
} *sh;

static int kept_fd, fast_fd, flip_fd, child_fd;
static _Atomic int fast_seen;
static int kept_in, kept_out, fast_sent;

static int fd_of(int sig, int flags)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	return (int)WL_SYS(signalfd(-1, &set, flags));
}

static void queue(pid_t pid, int sig, int value)
{
	WL_SYS(sigqueue(pid, sig, (union sigval){ .sival_int = value }));
}

static void take(int fd, int sig, int value)
{
	struct signalfd_siginfo si = { 0 };

	WL_EQ("signalfd read", sizeof(si), WL_SYS(read(fd, &si, sizeof(si))));
	WL_EQ("signal", sig, si.ssi_signo);
	WL_EQ("its value", value, si.ssi_int);
	WL_EQ("its code", SI_QUEUE, si.ssi_code);
	WL_EQ("its sender", wl_main_pid, si.ssi_pid);
	WL_EQ("its sender's uid", getuid(), si.ssi_uid);
}

static void *fast_thread(void *arg)
{
	(void)arg;
	do {
		take(fast_fd, FAST, fast_seen + 1);
		fast_seen++;
	} while (!wl_stopping() || fast_seen % 1000);
	return NULL;
}

static int child(void *arg)
{
	int n = 0;

	(void)arg;
	for (;;) {
		take(child_fd, FAST, n++);
		sh->child_seen++;
	}
	return 0;
}

int main(void)
{
	uint64_t round = 0;
	sigset_t set;
	pthread_t th;
	pid_t pid;
	int status;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	sigemptyset(&set);
	sigaddset(&set, KEPT);
	sigaddset(&set, FAST);
	sigaddset(&set, FLIP);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	kept_fd = fd_of(KEPT, SFD_NONBLOCK | SFD_CLOEXEC);
	fast_fd = fd_of(FAST, 0);
	flip_fd = fd_of(FLIP, SFD_NONBLOCK);
	child_fd = fd_of(FAST, SFD_CLOEXEC);
	pid = wl_spawn(child, NULL);
	WL_ZERO(pthread_create(&th, NULL, fast_thread, NULL));
	while (kept_in < 20)
		queue(getpid(), KEPT, kept_in++);
	wl_ready();
	while (!wl_stopping()) {
		struct pollfd p = { .fd = kept_fd, .events = POLLIN };
		struct signalfd_siginfo si;

		queue(getpid(), KEPT, kept_in++);
		take(kept_fd, KEPT, kept_out++);
		WL_EQ("poll", 1, WL_SYS(poll(&p, 1, 0)));
		queue(getpid(), FAST, ++fast_sent);
		queue(pid, FAST, (int)round);
		/* a signal that the fd's mask does not name must wait */
		sigemptyset(&set);
		sigaddset(&set, KEPT);
		sigdelset(&set, KEPT);
		sigaddset(&set, SIGUSR1);
		WL_SYS(signalfd(flip_fd, &set, 0));
		queue(getpid(), FLIP, (int)round);
		wl_pace();
		errno = 0;
		WL_EQ("read of a masked signal", -1, read(flip_fd, &si, sizeof(si)));
		WL_EQ("errno", EAGAIN, errno);
		sigaddset(&set, FLIP);
		WL_SYS(signalfd(flip_fd, &set, 0));
		wl_pace();
		take(flip_fd, FLIP, (int)round);
		WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(kept_fd, F_GETFL)));
		WL_EQ("flags", O_RDWR, WL_SYS(fcntl(fast_fd, F_GETFL)));
		WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(kept_fd, F_GETFD)));
		if (round++ % 8 == 0) {
			WL_AWAIT(fast_seen == fast_sent, "the thread");
			WL_AWAIT(sh->child_seen == round, "the child");
		}
	}
	do
		queue(getpid(), FAST, ++fast_sent);
	while (fast_sent % 1000);
	WL_ZERO(pthread_join(th, NULL));
	WL_AWAIT(sh->child_seen == round, "the child");
	while (kept_out < kept_in)
		take(kept_fd, KEPT, kept_out++);
	WL_SYS(kill(pid, SIGKILL));
	WL_SYS(waitpid(pid, &status, 0));
	wl_ok();
}
