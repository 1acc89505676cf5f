/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Big blocking writes to a pipe, a socket pair and a TCP connection whose readers are slow. Without a
 * signal such a call writes all, but the kernel cuts it short when the task is stopped half way, by job
 * control, a debugger, the freezer, or a move. A known limit, therefore not in tests/move's list: the
 * program is here to show it.
 */
#include "wl.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

#define LEN 300000

static _Atomic int stop;

struct way {
	const char *name;
	int in, out;
	_Atomic uint64_t written;
};

static void *writer(void *arg)
{
	struct way *w = arg;
	uint8_t *buf = wl_map(LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	while (!stop) {
		wl_fill(buf, LEN, 1, w->written);
		WL_EQ(w->name, LEN, WL_SYS(write(w->out, buf, LEN)));
		w->written += LEN;
	}
	WL_SYS(close(w->out));
	return NULL;
}

static void *reader(void *arg)
{
	struct way *w = arg;
	uint8_t buf[8000];
	uint64_t off = 0;
	ssize_t n;

	while ((n = WL_SYS(read(w->in, buf, sizeof(buf)))) > 0) {
		wl_verify(w->name, buf, (size_t)n, 1, off);
		off += (uint64_t)n;
		wl_sleep_ns(stop ? 1 : WL_MS);
	}
	WL_EQ(w->name, w->written, off);
	return NULL;
}

int main(void)
{
	static struct way ways[3] = { { .name = "write to a pipe" },
				      { .name = "write to a socket pair" },
				      { .name = "write to a TCP connection" } };
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	pthread_t th[6];
	int p[2], lis;
	size_t i;

	wl_init();
	WL_SYS(pipe(p));
	ways[0].in = p[0];
	ways[0].out = p[1];
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	ways[1].in = p[0];
	ways[1].out = p[1];
	lis = (int)WL_SYS(socket(AF_INET, SOCK_STREAM, 0));
	WL_SYS(bind(lis, (struct sockaddr *)&sa, sizeof(sa)));
	WL_SYS(listen(lis, 1));
	WL_SYS(getsockname(lis, (struct sockaddr *)&sa, &len));
	ways[2].out = (int)WL_SYS(socket(AF_INET, SOCK_STREAM, 0));
	WL_SYS(connect(ways[2].out, (struct sockaddr *)&sa, sizeof(sa)));
	ways[2].in = (int)WL_SYS(accept(lis, NULL, NULL));
	for (i = 0; i < 3; i++) {
		WL_ZERO(pthread_create(&th[2 * i], NULL, writer, &ways[i]));
		WL_ZERO(pthread_create(&th[2 * i + 1], NULL, reader, &ways[i]));
	}
	wl_ready();
	while (!wl_stopping())
		wl_sleep_ns(WL_MS);
	stop = 1;
	for (i = 0; i < 6; i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_ok();
}
