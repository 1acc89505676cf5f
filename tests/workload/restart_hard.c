/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * As restart.c, with the calls that the kernel ends with EINTR, or short, whenever the task is stopped,
 * even without any signal: epoll_wait, sigtimedwait, receive and send with a timeout, semtimedop has
 * no place here (System V). A program that was never stopped does not see this, so neither may one that
 * was moved.
 */
#include "wl.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "restart.h"

static int ep_quiet, ep_bell, quiet[2], bell[2], sock[2], talk[2];
static _Atomic long rung, seen_epoll, seen_recv, seen_sig;

static void t_epoll(uint64_t ns)
{
	struct epoll_event ev;

	WL_EQ("epoll_wait", 0, WL_SYS(epoll_wait(ep_quiet, &ev, 1, (int)(ns / WL_MS))));
}

static void t_epoll_pwait2(uint64_t ns)
{
	struct timespec ts = ts_of(ns);
	struct epoll_event ev;
	long r = syscall(SYS_epoll_pwait2, ep_quiet, &ev, 1, &ts, NULL, 8);

	if (r < 0 && errno == ENOSYS)
		wl_sleep_ns(ns);
	else
		WL_EQ("epoll_pwait2", 0, WL_SYS(r));
}

static void t_sigtimedwait(uint64_t ns)
{
	struct timespec ts = ts_of(ns);
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 5);
	errno = 0;
	WL_EQ("sigtimedwait", -1, sigtimedwait(&set, NULL, &ts));
	WL_EQ("errno of sigtimedwait", EAGAIN, errno);
}

static void t_recv_timeout(uint64_t ns)
{
	char c;

	(void)ns; /* set on the socket */
	errno = 0;
	WL_EQ("recv with SO_RCVTIMEO", -1, recv(sock[0], &c, 1, 0));
	WL_EQ("errno of recv", EAGAIN, errno);
}

static const struct timed_call calls[] = {
	{ "epoll_wait", t_epoll, 1700 },
	{ "epoll_pwait2", t_epoll_pwait2, 1500 },
	{ "sigtimedwait", t_sigtimedwait, 1900 },
	{ "recv with SO_RCVTIMEO", t_recv_timeout, 1300 },
	{ "short epoll_wait", t_epoll, 3 },
};

static void *w_epoll(void *arg)
{
	struct epoll_event ev;
	char c;

	(void)arg;
	do {
		WL_EQ("epoll_wait without end", 1, WL_SYS(epoll_wait(ep_bell, &ev, 1, -1)));
		WL_EQ("data of the event", 0x1234567890, ev.data.u64);
		wl_read(bell[0], &c, 1);
		seen_epoll++;
	} while (c != 'q');
	return NULL;
}

static void *w_recv(void *arg)
{
	char c;

	(void)arg;
	do {
		WL_EQ("recv", 1, WL_SYS(recv(talk[0], &c, 1, 0)));
		seen_recv++;
	} while (c != 'q');
	return NULL;
}

static void *w_sigwait(void *arg)
{
	siginfo_t si;
	sigset_t set;

	(void)arg;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	do {
		WL_EQ("sigwaitinfo", SIGRTMIN + 4, WL_SYS(sigwaitinfo(&set, &si)));
		seen_sig++;
		WL_CHECK(si.si_value.sival_int == seen_sig || si.si_value.sival_int == -1,
			 "value of signal %ld: got %d", (long)seen_sig, si.si_value.sival_int);
	} while (si.si_value.sival_int != -1);
	return NULL;
}

static void ring(char c)
{
	union sigval v = { .sival_int = c == 'q' ? -1 : (int)++rung };

	wl_write(bell[1], &c, 1);
	wl_write(talk[1], &c, 1);
	WL_SYS(sigqueue(getpid(), SIGRTMIN + 4, v));
}

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 0x1234567890 };
	struct timeval tv = { 1, 300000 };
	pthread_t th[ARRAY_SIZE(calls)], wait[3];
	sigset_t set;
	size_t i;

	wl_init();
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN + 4);
	sigaddset(&set, SIGRTMIN + 5);
	WL_SYS(sigprocmask(SIG_BLOCK, &set, NULL));
	WL_SYS(pipe(quiet));
	WL_SYS(pipe(bell));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, talk));
	WL_SYS(setsockopt(sock[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	ep_quiet = (int)WL_SYS(epoll_create1(0));
	ep_bell = (int)WL_SYS(epoll_create1(0));
	WL_SYS(epoll_ctl(ep_quiet, EPOLL_CTL_ADD, quiet[0], &ev));
	WL_SYS(epoll_ctl(ep_bell, EPOLL_CTL_ADD, bell[0], &ev));
	waits_anew = t_recv_timeout;
	start_calls(calls, ARRAY_SIZE(calls), th);
	WL_ZERO(pthread_create(&wait[0], NULL, w_epoll, NULL));
	WL_ZERO(pthread_create(&wait[1], NULL, w_recv, NULL));
	WL_ZERO(pthread_create(&wait[2], NULL, w_sigwait, NULL));
	wl_ready();
	while (!wl_stopping()) {
		ring('x');
		WL_AWAIT(seen_epoll == rung && seen_recv == rung && seen_sig == rung,
			 "an answer of each waiter");
		wl_sleep_ns(100 * WL_MS);
	}
	stop = 1;
	ring('q');
	for (i = 0; i < ARRAY_SIZE(wait); i++)
		WL_ZERO(pthread_join(wait[i], NULL));
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_ok();
}
