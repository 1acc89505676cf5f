/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Unix sockets that keep messages apart: seqpacket pairs and listeners, datagram pairs, datagram servers by a path, by
 * an abstract name and by one that the kernel has chosen; clients with and without a name, connected and not;
 * queues with messages of all lengths, of senders that are there and of one that is gone; a peer that is gone;
 * credentials; halves that are shut down; a sender that waits because the queue is full; options.
 */
#include "wl.h"

#include <poll.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define KEEP 5 /* messages that stay in a queue; the kernel lets 10 in */
#define MSG_MAX 3000

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t sent;
} *sh;

struct name {
	struct sockaddr_un sa;
	socklen_t len;
};

/* One direction: message number i has a length and bytes of its own. */
struct flow {
	const char *what;
	int from, to;
	uint64_t seed, in, out;
	const struct name *dest; /* NULL: connected */
	const struct name *sender; /* what the receiver sees */
	bool cred;
};

static struct name server, abstract, automatic, client, none = { .len = 0 };
static int seq[2], dg[2], oneway[2], named[2], srv[3], con, con2, lis, accepted, waiting, orphan, full[2];
static struct flow flow[12];
static size_t nflow;
static struct flow *to_abstract;

static void set_name(struct name *n, const char *words)
{
	n->sa.sun_family = AF_UNIX;
	strcpy(n->sa.sun_path + (words[0] == '@'), words + (words[0] == '@'));
	n->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(words) + (words[0] != '@'));
}

static int bound(int type, const struct name *n)
{
	int fd = (int)WL_SYS(socket(AF_UNIX, type, 0));

	WL_SYS(bind(fd, (const struct sockaddr *)&n->sa, n->len));
	return fd;
}

static void same(const char *what, const struct name *want, const struct sockaddr_un *got, socklen_t len)
{
	if (len <= offsetof(struct sockaddr_un, sun_path))
		len = 0;
	WL_CHECK(len == want->len && (!len || !memcmp(&want->sa, got, len)), "%s: expected '%s' (%u), got '%s' (%u)", what,
		 want->sa.sun_path[0] ? want->sa.sun_path : want->sa.sun_path + 1, want->len,
		 got->sun_path[0] ? got->sun_path : got->sun_path + 1, len);
}

static void check_name(const char *what, int fd, bool peer, const struct name *want)
{
	struct sockaddr_un sa = { 0 };
	socklen_t len = sizeof(sa);

	WL_SYS(peer ? getpeername(fd, (struct sockaddr *)&sa, &len) : getsockname(fd, (struct sockaddr *)&sa, &len));
	same(what, want, &sa, len);
}

static size_t length(const struct flow *f, uint64_t i)
{
	return 1 + wl_mix(f->seed + i) % MSG_MAX;
}

static void put(struct flow *f)
{
	uint8_t buf[MSG_MAX];
	size_t n = length(f, f->in);

	wl_fill(buf, n, f->seed, f->in * 7);
	WL_EQ(f->what, n, WL_SYS(sendto(f->from, buf, n, 0, f->dest ? (const struct sockaddr *)&f->dest->sa : NULL,
					 f->dest ? f->dest->len : 0)));
	f->in++;
}

static void check_cred(const struct flow *f, struct msghdr *mh)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(mh);
	struct ucred uc;

	if (!f->cred) {
		WL_CHECK(!c, "%s: expected no credentials, got some", f->what);
		return;
	}
	WL_CHECK(c && c->cmsg_type == SCM_CREDENTIALS, "%s: expected credentials, got none", f->what);
	memcpy(&uc, CMSG_DATA(c), sizeof(uc));
	WL_EQ("sender's pid", getpid(), uc.pid);
	WL_EQ("sender's uid", geteuid(), uc.uid);
	WL_EQ("sender's gid", getegid(), uc.gid);
}

static void get(struct flow *f)
{
	uint8_t buf[MSG_MAX + 10];
	char control[256] __attribute__((aligned(8)));
	struct sockaddr_un sa = { 0 };
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr mh = { .msg_name = &sa, .msg_namelen = sizeof(sa), .msg_iov = &iov, .msg_iovlen = 1,
			     .msg_control = control, .msg_controllen = sizeof(control) };
	size_t n = length(f, f->out);

	WL_EQ(f->what, n, WL_SYS(recvmsg(f->to, &mh, 0)));
	wl_verify(f->what, buf, n, f->seed, f->out * 7);
	if (f->sender)
		same(f->what, f->sender, &sa, mh.msg_namelen);
	check_cred(f, &mh);
	f->out++;
}

static struct flow *add(const char *what, int from, int to, const struct name *dest, const struct name *sender)
{
	struct flow *f = &flow[nflow++];

	*f = (struct flow){ .what = what, .from = from, .to = to, .seed = 100 + nflow, .dest = dest, .sender = sender };
	return f;
}

static void on(int fd, int option)
{
	WL_SYS(setsockopt(fd, SOL_SOCKET, option, (int[]){ 1 }, sizeof(int)));
}

/* Sends one message to the abstract server under a name of its own, and ends. */
static int short_lived(void *arg)
{
	int fd = bound(SOCK_DGRAM, &client);

	(void)arg;
	WL_SYS(sendto(fd, "farewell", 8, 0, (struct sockaddr *)&abstract.sa, abstract.len));
	WL_SYS(unlink(client.sa.sun_path));
	return 31;
}

/* Sends as fast as the queue lets it. */
static int blocked_sender(void *arg)
{
	uint64_t n = 0;

	(void)arg;
	WL_SYS(close(full[0]));
	while (!sh->stop) {
		WL_EQ("send of a message", 8, WL_SYS(send(full[1], &n, 8, 0)));
		sh->sent = ++n;
	}
	return 32;
}

static pid_t sender;

static void setup_names(void)
{
	char path[64], abs[64];
	socklen_t len = sizeof(automatic.sa);

	snprintf(path, sizeof(path), "/tmp/wl-unixmsg.%d", getpid());
	snprintf(abs, sizeof(abs), "@wl-unixmsg.%d", getpid());
	unlink(path);
	set_name(&server, path);
	set_name(&abstract, abs);
	strcat(path, ".c");
	unlink(path);
	set_name(&client, path);
	srv[0] = bound(SOCK_DGRAM, &server);
	srv[1] = bound(SOCK_DGRAM, &abstract);
	srv[2] = (int)WL_SYS(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	automatic.sa.sun_family = AF_UNIX;
	WL_SYS(bind(srv[2], (struct sockaddr *)&automatic.sa, sizeof(sa_family_t)));
	WL_SYS(getsockname(srv[2], (struct sockaddr *)&automatic.sa, &len));
	automatic.len = len;
}

static void setup_seqpacket(void)
{
	lis = bound(SOCK_SEQPACKET, &abstract);
	WL_SYS(listen(lis, 5));
	waiting = (int)WL_SYS(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	WL_SYS(connect(waiting, (struct sockaddr *)&abstract.sa, abstract.len));
	accepted = (int)WL_SYS(accept(lis, NULL, NULL));
	add("seqpacket from a client", waiting, accepted, NULL, NULL);
	add("seqpacket to a client", accepted, waiting, NULL, NULL);
	waiting = (int)WL_SYS(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	WL_SYS(connect(waiting, (struct sockaddr *)&abstract.sa, abstract.len));
}

static void setup(void)
{
	struct sockaddr_un sa;
	socklen_t len = sizeof(sa);
	int p[2];

	setup_names();
	setup_seqpacket();
	WL_SYS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, seq));
	on(seq[1], SO_PASSCRED);
	add("seqpacket pair", seq[0], seq[1], NULL, NULL)->cred = true;
	add("seqpacket pair, back", seq[1], seq[0], NULL, NULL);
	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, dg));
	add("datagram pair", dg[0], dg[1], NULL, &none);
	add("datagram pair, back", dg[1], dg[0], NULL, &none);
	/* a pair in which one has got a name since */
	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, named));
	WL_SYS(bind(named[0], (struct sockaddr *)&client.sa, client.len));
	add("pair with a name", named[0], named[1], NULL, &client);
	/* one half is shut down */
	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, oneway));
	WL_SYS(shutdown(oneway[1], SHUT_WR));
	add("pair that is half shut down", oneway[0], oneway[1], NULL, &none);
	/* many senders to one receiver */
	con = (int)WL_SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	WL_SYS(connect(con, (struct sockaddr *)&server.sa, server.len));
	add("connected client", con, srv[0], NULL, &none);
	to_abstract = add("server to server", srv[2], srv[1], &abstract, &automatic);
	on(srv[2], SO_PASSCRED);
	con2 = (int)WL_SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	add("to a name that the kernel has chosen", con2, srv[2], &automatic, &none)->cred = true;
	/* its peer is gone, the messages are there */
	WL_SYS(socketpair(AF_UNIX, SOCK_DGRAM, 0, p));
	WL_SYS(send(p[1], "one", 3, 0));
	WL_SYS(send(p[1], "three", 5, 0));
	WL_SYS(close(p[1]));
	orphan = p[0];
	/* not connected mutually: ten messages and no more */
	full[0] = (int)WL_SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	full[1] = (int)WL_SYS(socket(AF_UNIX, SOCK_DGRAM, 0));
	WL_SYS(bind(full[0], &(struct sockaddr){ .sa_family = AF_UNIX }, sizeof(sa_family_t)));
	WL_SYS(getsockname(full[0], (struct sockaddr *)&sa, &len));
	WL_SYS(connect(full[1], (struct sockaddr *)&sa, len));
	sender = wl_spawn(blocked_sender, NULL);
	WL_SYS(close(full[1]));
}

static void odd_ones(void)
{
	struct pollfd p = { .fd = oneway[0], .events = POLLIN };
	uint8_t buf[16];
	int v = 0;
	socklen_t len = sizeof(v);

	errno = 0;
	WL_EQ("send after shutdown", -1, send(oneway[1], buf, 1, MSG_NOSIGNAL));
	WL_EQ("errno", EPIPE, errno);
	WL_SYS(poll(&p, 1, 0));
	WL_EQ("events", 0, p.revents);
	check_name("server's name", srv[0], false, &server);
	check_name("client's peer", con, true, &server);
	check_name("chosen name", srv[2], false, &automatic);
	check_name("name of one of a pair", named[0], false, &client);
	check_name("its peer's peer", named[1], true, &client);
	check_name("accepted socket", accepted, false, &abstract);
	WL_SYS(getsockopt(srv[2], SOL_SOCKET, SO_PASSCRED, &v, &len));
	WL_EQ("SO_PASSCRED", 1, v);
	WL_SYS(getsockopt(srv[0], SOL_SOCKET, SO_TYPE, &v, &len));
	WL_EQ("SO_TYPE", SOCK_DGRAM, v);
	WL_SYS(ioctl(orphan, FIONREAD, &v));
	WL_EQ("bytes of the first message of a peer that is gone", 3, v);
	errno = 0;
	WL_EQ("send to nobody", -1, send(srv[1], buf, 1, MSG_NOSIGNAL));
	WL_EQ("errno", ENOTCONN, errno);
}

/* One waits in the accept queue all the time. */
static void accept_one(void)
{
	char buf[8];
	int c;

	WL_SYS(send(waiting, "hello", 5, 0));
	c = (int)WL_SYS(accept(lis, NULL, NULL));
	WL_EQ("message of one that waited", 5, WL_SYS(recv(c, buf, sizeof(buf), 0)));
	WL_SYS(close(c));
	WL_EQ("end of file", 0, WL_SYS(recv(waiting, buf, sizeof(buf), 0)));
	WL_SYS(close(waiting));
	waiting = (int)WL_SYS(socket(AF_UNIX, SOCK_SEQPACKET, 0));
	WL_SYS(connect(waiting, (struct sockaddr *)&abstract.sa, abstract.len));
}

static uint64_t drained;

static void drain_some(uint64_t n)
{
	uint64_t v;

	for (; n; n--) {
		WL_EQ("message of one that was blocked", 8, WL_SYS(recv(full[0], &v, sizeof(v), 0)));
		WL_EQ("its number", drained++, v);
	}
}

/* A message that outlives its sender, whose name and node are gone. */
static void farewell(uint64_t round)
{
	struct sockaddr_un sa;
	socklen_t len = sizeof(sa);
	char buf[16];
	ssize_t n;

	if (round % 8 == 0) {
		struct name own = client;

		strcat(client.sa.sun_path, "x");
		client.len++;
		wl_reap(wl_spawn(short_lived, NULL), 31);
		client = own;
		return;
	}
	if (round % 8 != 4)
		return;
	/* behind what is in the queue */
	while (to_abstract->out < to_abstract->in)
		get(to_abstract);
	n = WL_SYS(recvfrom(srv[1], buf, sizeof(buf), 0, (struct sockaddr *)&sa, &len));
	WL_CHECK(n == 8 && !memcmp(buf, "farewell", 8), "farewell: expected 8 bytes, got %zd", n);
	WL_CHECK(!strncmp(sa.sun_path, client.sa.sun_path, strlen(client.sa.sun_path)) &&
			 !strcmp(sa.sun_path + strlen(client.sa.sun_path), "x"), "farewell: expected '%sx', got '%s'",
		 client.sa.sun_path, sa.sun_path);
}

int main(void)
{
	uint64_t round = 0;
	char buf[16];
	size_t i;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup();
	wl_ready();
	while (!wl_stopping()) {
		for (i = 0; i < nflow; i++) {
			struct flow *f = &flow[i];
			bool held = f == to_abstract && round % 8 < 5; /* a farewell lies between */

			if (f->in - f->out < KEEP && !held)
				put(f);
			if (f->in - f->out >= KEEP - (round + i) % 3 && !held)
				get(f);
		}
		odd_ones();
		farewell(round);
		drain_some(round % 3);
		if (round++ % 8 == 0)
			accept_one();
		wl_pace();
	}
	for (i = 0; i < nflow; i++)
		while (flow[i].out < flow[i].in && &flow[i] != to_abstract)
			get(&flow[i]);
	WL_EQ("first of a peer that is gone", 3, WL_SYS(recv(orphan, buf, sizeof(buf), 0)));
	WL_EQ("the last", 5, WL_SYS(recv(orphan, buf, sizeof(buf), 0)));
	errno = 0;
	WL_EQ("send to a peer that is gone", -1, send(orphan, buf, 1, MSG_NOSIGNAL));
	WL_EQ("errno", ECONNREFUSED, errno);
	sh->stop = 1;
	drain_some(1);
	wl_reap(sender, 32);
	drain_some(sh->sent - drained);
	errno = 0;
	WL_EQ("one message too many", -1, recv(full[0], buf, sizeof(buf), MSG_DONTWAIT));
	WL_SYS(unlink(server.sa.sun_path));
	WL_SYS(unlink(client.sa.sun_path));
	wl_ok();
}
