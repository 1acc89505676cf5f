/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Unix stream sockets: pairs with bytes queued both ways, between processes and within one; bound to a
 * path and to an abstract name, listening, with connections that nobody has accepted yet (bytes are in
 * them only for a moment); half shut down; a peer that is gone; options, credentials and names of peers; a writer that is
 * blocked; traffic all the time.
 */
#include "wl.h"

#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t echoed, sent;
} *sh;

/* Bytes that are always queued in the pair, both ways. */
struct queue {
	int fd[2];
	uint64_t in[2], out[2];
};
static struct queue same, across;
static int lpath, labstract, pending[4], half[2], orphan, streams[2];
static struct sockaddr_un apath = { .sun_family = AF_UNIX }, aabstract = { .sun_family = AF_UNIX };
static socklen_t apath_len, aabstract_len;

static void queue_step(struct queue *q, size_t from, uint64_t round)
{
	uint8_t buf[4000];
	size_t n = 1 + round * 71 % 3000, to = 1 - from;

	wl_fill(buf, n, 10 + from, q->in[from]);
	wl_write(q->fd[from], buf, n);
	q->in[from] += n;
	while (q->in[from] - q->out[from] > 30000) {
		wl_read(q->fd[to], buf, 4000);
		wl_verify("queue of a socket pair", buf, 4000, 10 + from, q->out[from]);
		q->out[from] += 4000;
	}
}

static int echo_child(void *arg)
{
	uint8_t buf[2000];
	ssize_t n;

	(void)arg;
	WL_SYS(close(across.fd[0]));
	while ((n = WL_SYS(recv(across.fd[1], buf, sizeof(buf), 0))) > 0) {
		size_t done = 0;

		while (done < (size_t)n)
			done += (size_t)WL_SYS(send(across.fd[1], buf + done, (size_t)n - done, 0));
		sh->echoed += (uint64_t)n;
	}
	return 91;
}

/* Sends at full speed; the parent takes less, so it is mostly blocked in send. */
static int stream_child(void *arg)
{
	static uint8_t buf[50000];
	uint64_t off = 0;

	(void)arg;
	WL_SYS(close(streams[0]));
	while (!sh->stop) {
		wl_fill(buf, sizeof(buf), 20, off);
		wl_write(streams[1], buf, sizeof(buf));
		off += sizeof(buf);
		sh->sent = off;
	}
	WL_SYS(shutdown(streams[1], SHUT_WR));
	return 92;
}

static int connect_to(const struct sockaddr_un *sa, socklen_t len)
{
	int fd = (int)WL_SYS(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));

	WL_SYS(connect(fd, (const struct sockaddr *)sa, len));
	return fd;
}

static int listener(struct sockaddr_un *sa, socklen_t len)
{
	int fd = (int)WL_SYS(socket(AF_UNIX, SOCK_STREAM, 0));

	WL_SYS(bind(fd, (struct sockaddr *)sa, len));
	WL_SYS(listen(fd, 16));
	return fd;
}

static void setup(void)
{
	int p[2], one = 1, size = 100000, i;
	uint8_t buf[1000];

	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, same.fd));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, across.fd));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, half));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, streams));
	WL_SYS(setsockopt(same.fd[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	WL_SYS(setsockopt(same.fd[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)));
	WL_SYS(setsockopt(same.fd[1], SOL_SOCKET, SO_PASSCRED, (int[]){ 0 }, sizeof(one)));
	snprintf(apath.sun_path, sizeof(apath.sun_path), "/tmp/wl-unix.%d", getpid());
	apath_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(apath.sun_path) + 1);
	/* an abstract name with a zero inside */
	snprintf(aabstract.sun_path + 1, sizeof(aabstract.sun_path) - 1, "wl%cunix.%d", 0,
		 getpid());
	aabstract_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 14);
	unlink(apath.sun_path);
	lpath = listener(&apath, apath_len);
	labstract = listener(&aabstract, aabstract_len);
	for (i = 0; i < 4; i++)
		pending[i] = connect_to(i < 2 ? &apath : &aabstract, i < 2 ? apath_len : aabstract_len);
	/* the other end's last bytes, then end of file; and the way back is still open */
	wl_fill(buf, sizeof(buf), 40, 0);
	wl_write(half[1], buf, sizeof(buf));
	WL_SYS(shutdown(half[1], SHUT_WR));
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, p));
	wl_fill(buf, sizeof(buf), 41, 0);
	wl_write(p[1], buf, sizeof(buf));
	WL_SYS(close(p[1]));
	orphan = p[0];
	signal(SIGPIPE, SIG_IGN);
}

static int available(int fd)
{
	int n = -1;

	WL_SYS(ioctl(fd, FIONREAD, &n));
	return n;
}

static void check_name(const char *what, const struct sockaddr_un *want, socklen_t wlen,
		       const struct sockaddr_un *got, socklen_t len)
{
	WL_CHECK(len == wlen && !memcmp(want, got, wlen),
		 "%s: expected length %u '%s', got length %u '%s'", what, wlen,
		 want->sun_path[0] ? want->sun_path : want->sun_path + 1, len,
		 got->sun_path[0] ? got->sun_path : got->sun_path + 1);
}

/* Takes one of the waiting connections, checks what was in it, and makes a new one. */
static void accept_one(int fd, struct sockaddr_un *sa, socklen_t len, int *pend, uint64_t *seed)
{
	struct sockaddr_un got = { 0 };
	socklen_t glen = sizeof(got);
	uint8_t buf[500];
	int c;

	wl_fill(buf, sizeof(buf), seed[0], 0);
	wl_write(pend[0], buf, sizeof(buf));
	c = (int)WL_SYS(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
	wl_read(c, buf, sizeof(buf));
	wl_verify("bytes in a connection that waited", buf, sizeof(buf), seed[0], 0);
	WL_SYS(getsockname(c, (struct sockaddr *)&got, &glen));
	check_name("name of an accepted socket", sa, len, &got, glen);
	glen = sizeof(got);
	WL_SYS(getpeername(pend[0], (struct sockaddr *)&got, &glen));
	check_name("name of the peer", sa, len, &got, glen);
	/* and back */
	wl_write(c, buf, sizeof(buf));
	wl_read(pend[0], buf, sizeof(buf));
	wl_verify("answer", buf, sizeof(buf), seed[0], 0);
	WL_SYS(close(c));
	WL_EQ("end of file", 0, WL_SYS(read(pend[0], buf, 1)));
	WL_SYS(close(pend[0]));
	pend[0] = pend[1];
	seed[0] = seed[1];
	seed[1] += 4;
	pend[1] = connect_to(sa, len);
}

static void check_options(void)
{
	socklen_t len = sizeof(int);
	struct ucred cred;
	int v = 0;

	WL_SYS(getsockopt(same.fd[0], SOL_SOCKET, SO_SNDBUF, &v, &len));
	WL_EQ("SO_SNDBUF", 200000, v);
	WL_SYS(getsockopt(lpath, SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
	WL_EQ("SO_ACCEPTCONN", 1, v);
	len = sizeof(cred);
	WL_SYS(getsockopt(across.fd[0], SOL_SOCKET, SO_PEERCRED, &cred, &len));
	WL_EQ("peer's pid", getpid(), cred.pid);
	WL_EQ("peer's uid", geteuid(), cred.uid);
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(half[0], F_GETFL)));
	WL_EQ("flags", O_RDWR, WL_SYS(fcntl(same.fd[0], F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(across.fd[0], F_GETFD)));
}

static void check_half(void)
{
	struct pollfd p = { .fd = half[0], .events = POLLIN | POLLRDHUP };
	uint8_t buf[1200];
	char c = 'x';

	WL_EQ("peek", 1000, WL_SYS(recv(half[0], buf, sizeof(buf), MSG_PEEK)));
	wl_verify("bytes before the end of file", buf, 1000, 40, 0);
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events of a half closed socket", POLLIN | POLLRDHUP, p.revents);
	WL_EQ("send", 1, WL_SYS(send(half[0], &c, 1, 0)));
	WL_EQ("receive", 1, WL_SYS(recv(half[1], &c, 1, 0)));
	errno = 0;
	WL_EQ("send after shutdown", -1, send(half[1], &c, 1, MSG_NOSIGNAL));
	WL_EQ("errno", EPIPE, errno);
	WL_EQ("bytes of a peer that is gone", 1000, available(orphan));
	errno = 0;
	WL_EQ("send to a peer that is gone", -1, send(orphan, &c, 1, MSG_NOSIGNAL));
	WL_EQ("errno", EPIPE, errno);
}

static uint64_t across_in, across_out, stream_out;

static void across_step(uint64_t round)
{
	uint8_t buf[2000];
	size_t n = 1 + round * 53 % 2000;

	wl_fill(buf, n, 50, across_in);
	wl_write(across.fd[0], buf, n);
	across_in += n;
	if (across_in - across_out > 10000) {
		wl_read(across.fd[0], buf, 2000);
		wl_verify("echo", buf, 2000, 50, across_out);
		across_out += 2000;
	}
	n = (size_t)WL_SYS(read(streams[0], buf, sizeof(buf)));
	wl_verify("stream", buf, n, 20, stream_out);
	stream_out += n;
}

int main(void)
{
	uint64_t round = 0, s1[2] = { 30, 31 }, s2[2] = { 32, 33 };
	uint8_t buf[2000];
	pid_t kid[2];
	ssize_t n;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup();
	kid[0] = wl_spawn(echo_child, NULL);
	kid[1] = wl_spawn(stream_child, NULL);
	WL_SYS(close(across.fd[1]));
	WL_SYS(close(streams[1]));
	wl_ready();
	while (!wl_stopping()) {
		queue_step(&same, round % 2, round);
		across_step(round);
		check_options();
		check_half();
		if (round % 8 == 0) {
			accept_one(lpath, &apath, apath_len, pending, s1);
			accept_one(labstract, &aabstract, aabstract_len, pending + 2, s2);
		}
		round++;
		wl_pace();
	}
	sh->stop = 1;
	while ((n = WL_SYS(read(streams[0], buf, sizeof(buf)))) > 0) {
		wl_verify("stream", buf, (size_t)n, 20, stream_out);
		stream_out += (uint64_t)n;
	}
	WL_EQ("bytes of the stream", sh->sent, stream_out);
	WL_SYS(shutdown(across.fd[0], SHUT_WR));
	while ((n = WL_SYS(read(across.fd[0], buf, sizeof(buf)))) > 0) {
		wl_verify("echo", buf, (size_t)n, 50, across_out);
		across_out += (uint64_t)n;
	}
	WL_EQ("bytes of the echo", across_in, across_out);
	wl_reap(kid[0], 91);
	wl_reap(kid[1], 92);
	wl_read(orphan, buf, 1000);
	wl_verify("bytes of a peer that is gone", buf, 1000, 41, 0);
	WL_EQ("end of file", 0, WL_SYS(read(orphan, buf, 1)));
	WL_SYS(unlink(apath.sun_path));
	wl_ok();
}
