/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * TCP over IPv4 within the pod (loopback): listening on two ports; an idle connection with bytes queued
 * both ways; an echo to a child at full speed; one-way streams of which the receiver takes less than
 * comes; one side shut down with bytes left; both sides shut down; options of every sort; new
 * connections all the time; sockets bound but not connected.
 */
#include "wl.h"
#include "wl_sock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define QUEUED 20000

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t sent;
} *sh;

static struct sockaddr_in addr[2];
static int lis[2], idle[2], echo[2], stream[2], half[2], bound, fresh;
static uint64_t idle_off[2], echo_in, echo_out, stream_out;

static int listener(struct sockaddr_in *sa, in_addr_t ip)
{
	socklen_t len = sizeof(*sa);
	int fd = (int)WL_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	*sa = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = ip };
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	WL_SYS(bind(fd, (struct sockaddr *)sa, sizeof(*sa)));
	WL_SYS(listen(fd, 7));
	WL_SYS(getsockname(fd, (struct sockaddr *)sa, &len));
	return fd;
}

static void connection(int fd[2], size_t via)
{
	struct sockaddr_in to = addr[via];

	if (!to.sin_addr.s_addr)
		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd[0] = (int)WL_SYS(socket(AF_INET, SOCK_STREAM, 0));
	WL_SYS(connect(fd[0], (struct sockaddr *)&to, sizeof(to)));
	fd[1] = (int)WL_SYS(accept(lis[via], NULL, NULL));
}

static void check_names(int a, int b)
{
	struct sockaddr_in x = { 0 }, y = { 0 };
	socklen_t len = sizeof(x);

	WL_SYS(getsockname(a, (struct sockaddr *)&x, &len));
	WL_SYS(getpeername(b, (struct sockaddr *)&y, &len));
	WL_CHECK(x.sin_port == y.sin_port && x.sin_addr.s_addr == y.sin_addr.s_addr,
		 "names of two ends: expected port %d at both, got %d", ntohs(x.sin_port),
		 ntohs(y.sin_port));
}

static void setup(void)
{
	uint8_t buf[QUEUED];
	int i;

	lis[0] = listener(&addr[0], htonl(INADDR_LOOPBACK));
	lis[1] = listener(&addr[1], htonl(INADDR_ANY));
	connection(idle, 0);
	connection(echo, 1);
	connection(stream, 0);
	connection(half, 1);
	for (i = 0; i < 2; i++) {
		wl_fill(buf, QUEUED, 1 + (uint64_t)i, 0);
		wl_write(idle[i], buf, QUEUED);
	}
	set(idle[0], IPPROTO_TCP, TCP_NODELAY, 1);
	set(idle[0], SOL_SOCKET, SO_KEEPALIVE, 1);
	set(idle[0], IPPROTO_TCP, TCP_KEEPIDLE, 777);
	set(idle[0], IPPROTO_TCP, TCP_KEEPINTVL, 77);
	set(idle[0], IPPROTO_TCP, TCP_KEEPCNT, 7);
	set(idle[1], IPPROTO_TCP, TCP_USER_TIMEOUT, 123456);
	set(idle[1], SOL_SOCKET, SO_RCVLOWAT, 1);
	set(idle[1], SOL_SOCKET, SO_OOBINLINE, 1);
	set(idle[1], IPPROTO_IP, IP_TOS, 0x10);
	set(idle[1], IPPROTO_IP, IP_TTL, 33);
	set(stream[0], SOL_SOCKET, SO_RCVBUF, 50000);
	set(stream[1], SOL_SOCKET, SO_SNDBUF, 60000);
	set(stream[1], SOL_SOCKET, SO_PRIORITY, 3);
	WL_SYS(fcntl(idle[1], F_SETFL, O_NONBLOCK));
	/* half[1] has sent its last bytes; half[0] may still send */
	wl_fill(buf, 3000, 3, 0);
	wl_write(half[1], buf, 3000);
	WL_SYS(shutdown(half[1], SHUT_WR));
	bound = (int)WL_SYS(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
	WL_SYS(bind(bound, (struct sockaddr *)&(struct sockaddr_in){
				   .sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
		    sizeof(struct sockaddr_in)));
	fresh = (int)WL_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	set(fresh, IPPROTO_TCP, TCP_NODELAY, 1);
}

static int echo_child(void *arg)
{
	static uint8_t buf[30000];
	ssize_t n;

	(void)arg;
	WL_SYS(close(echo[0]));
	while ((n = WL_SYS(recv(echo[1], buf, sizeof(buf), 0))) > 0)
		wl_write(echo[1], buf, (size_t)n);
	return 95;
}

static int stream_child(void *arg)
{
	static uint8_t buf[40000];
	uint64_t off = 0;

	(void)arg;
	WL_SYS(close(stream[0]));
	while (!sh->stop) {
		wl_fill(buf, sizeof(buf), 4, off);
		wl_write(stream[1], buf, sizeof(buf));
		off += sizeof(buf);
		sh->sent = off;
	}
	WL_SYS(shutdown(stream[1], SHUT_WR)); /* others have it, too */
	return 96;
}

static void check_options(int snd, int rcv)
{
	WL_EQ("TCP_NODELAY", 1, get(idle[0], IPPROTO_TCP, TCP_NODELAY));
	WL_EQ("TCP_NODELAY of the other end", 0, get(idle[1], IPPROTO_TCP, TCP_NODELAY));
	WL_EQ("SO_KEEPALIVE", 1, get(idle[0], SOL_SOCKET, SO_KEEPALIVE));
	WL_EQ("TCP_KEEPIDLE", 777, get(idle[0], IPPROTO_TCP, TCP_KEEPIDLE));
	WL_EQ("TCP_KEEPINTVL", 77, get(idle[0], IPPROTO_TCP, TCP_KEEPINTVL));
	WL_EQ("TCP_KEEPCNT", 7, get(idle[0], IPPROTO_TCP, TCP_KEEPCNT));
	WL_EQ("TCP_USER_TIMEOUT", 123456, get(idle[1], IPPROTO_TCP, TCP_USER_TIMEOUT));
	WL_EQ("SO_OOBINLINE", 1, get(idle[1], SOL_SOCKET, SO_OOBINLINE));
	WL_EQ("IP_TOS", 0x10, get(idle[1], IPPROTO_IP, IP_TOS));
	WL_EQ("IP_TTL", 33, get(idle[1], IPPROTO_IP, IP_TTL));
	WL_EQ("SO_PRIORITY", 3, get(stream[1], SOL_SOCKET, SO_PRIORITY));
	WL_EQ("SO_SNDBUF", snd, get(stream[1], SOL_SOCKET, SO_SNDBUF));
	WL_EQ("SO_RCVBUF", rcv, get(stream[0], SOL_SOCKET, SO_RCVBUF));
	WL_EQ("SO_REUSEADDR", 1, get(lis[0], SOL_SOCKET, SO_REUSEADDR));
	WL_EQ("SO_ACCEPTCONN", 1, get(lis[1], SOL_SOCKET, SO_ACCEPTCONN));
	WL_EQ("TCP_NODELAY of a fresh socket", 1, get(fresh, IPPROTO_TCP, TCP_NODELAY));
	WL_EQ("SO_ERROR", 0, get(idle[0], SOL_SOCKET, SO_ERROR));
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(idle[1], F_GETFL)));
	WL_EQ("flags", O_RDWR, WL_SYS(fcntl(idle[0], F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(lis[0], F_GETFD)));
	check_names(idle[0], idle[1]);
	check_names(idle[1], idle[0]);
}

/* Some bytes out, as many in: always QUEUED bytes wait on each side. */
static void idle_step(uint64_t round)
{
	size_t n = 1 + round * 17 % 500, i;
	uint8_t buf[500];
	int avail;

	for (i = 0; i < 2; i++) {
		WL_SYS(ioctl(idle[1 - i], FIONREAD, &avail));
		WL_EQ("bytes queued", QUEUED, avail);
		wl_read(idle[1 - i], buf, n);
		wl_verify("queued bytes", buf, n, 1 + i, idle_off[i]);
		idle_off[i] += n;
		wl_fill(buf, n, 1 + i, idle_off[i] + QUEUED - n);
		wl_write(idle[i], buf, n);
		/* loopback delivers in the sender's context or soon after */
		WL_AWAIT((ioctl(idle[1 - i], FIONREAD, &avail), avail == QUEUED), "sent bytes");
	}
}

static void traffic(uint64_t round)
{
	static uint8_t buf[20000];
	size_t n = 1 + round * 1009 % sizeof(buf);

	wl_fill(buf, n, 5, echo_in);
	wl_write(echo[0], buf, n);
	echo_in += n;
	while (echo_in - echo_out > 40000) {
		wl_read(echo[0], buf, 10000);
		wl_verify("echo", buf, 10000, 5, echo_out);
		echo_out += 10000;
	}
	n = (size_t)WL_SYS(read(stream[0], buf, 8000));
	WL_CHECK(n, "stream: expected bytes, got end of file");
	wl_verify("stream", buf, n, 4, stream_out);
	stream_out += n;
}

static void check_half(void)
{
	struct pollfd p = { .fd = half[0], .events = POLLIN | POLLRDHUP };
	uint8_t buf[4000];
	char c = 'y';

	WL_EQ("peek", 3000, WL_SYS(recv(half[0], buf, sizeof(buf), MSG_PEEK)));
	wl_verify("bytes before the FIN", buf, 3000, 3, 0);
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events of a half closed connection", POLLIN | POLLRDHUP, p.revents);
	wl_write(half[0], &c, 1);
	wl_read(half[1], &c, 1);
	errno = 0;
	WL_EQ("send after shutdown", -1, send(half[1], &c, 1, MSG_NOSIGNAL));
	WL_EQ("errno", EPIPE, errno);
}

static void new_connection(uint64_t round)
{
	uint8_t buf[700];
	int c[2];

	connection(c, round % 2);
	check_names(c[0], c[1]);
	wl_fill(buf, sizeof(buf), round, 0);
	wl_write(c[round % 2], buf, sizeof(buf));
	WL_SYS(shutdown(c[round % 2], SHUT_WR));
	wl_pace();
	wl_read(c[1 - round % 2], buf, sizeof(buf));
	wl_verify("new connection", buf, sizeof(buf), round, 0);
	WL_EQ("end of file", 0, WL_SYS(read(c[1 - round % 2], buf, 1)));
	WL_SYS(close(c[1 - round % 2])); /* the ends that close last leave no TIME_WAIT behind */
	WL_SYS(close(c[round % 2]));
}

static void finish(pid_t *kid)
{
	static uint8_t buf[20000];
	ssize_t n;

	sh->stop = 1;
	while ((n = WL_SYS(read(stream[0], buf, sizeof(buf)))) > 0) {
		wl_verify("stream", buf, (size_t)n, 4, stream_out);
		stream_out += (uint64_t)n;
	}
	WL_EQ("bytes of the stream", sh->sent, stream_out);
	WL_SYS(shutdown(echo[0], SHUT_WR));
	while ((n = WL_SYS(read(echo[0], buf, sizeof(buf)))) > 0) {
		wl_verify("echo", buf, (size_t)n, 5, echo_out);
		echo_out += (uint64_t)n;
	}
	WL_EQ("bytes of the echo", echo_in, echo_out);
	wl_reap(kid[0], 95);
	wl_reap(kid[1], 96);
	wl_read(half[0], buf, 3000);
	wl_verify("bytes before the FIN", buf, 3000, 3, 0);
	WL_EQ("end of file", 0, WL_SYS(read(half[0], buf, 1)));
	/* the bound and the fresh socket can still be used */
	WL_SYS(listen(bound, 1));
	errno = 0;
	WL_EQ("accept", -1, accept(bound, NULL, NULL));
	WL_EQ("errno", EAGAIN, errno);
	WL_SYS(connect(fresh, (struct sockaddr *)&addr[0], sizeof(addr[0])));
}

int main(void)
{
	uint64_t round = 0;
	int snd, rcv;
	pid_t kid[2];

	wl_init();
	sh = wl_shared(sizeof(*sh));
	signal(SIGPIPE, SIG_IGN);
	setup();
	kid[0] = wl_spawn(echo_child, NULL);
	kid[1] = wl_spawn(stream_child, NULL);
	WL_SYS(close(echo[1]));
	WL_SYS(close(stream[1]));
	stream[1] = stream[0]; /* its peer is the child's now; options are read from our end */
	snd = get(stream[1], SOL_SOCKET, SO_SNDBUF);
	rcv = get(stream[0], SOL_SOCKET, SO_RCVBUF);
	set(stream[1], SOL_SOCKET, SO_PRIORITY, 3);
	wl_ready();
	while (!wl_stopping()) {
		check_options(snd, rcv);
		idle_step(round);
		traffic(round);
		check_half();
		if (round % 4 == 0)
			new_connection(round / 4);
		round++;
		wl_pace();
	}
	finish(kid);
	wl_ok();
}
