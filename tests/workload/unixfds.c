/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Descriptors that are sent over unix sockets and not received for a while, on sockets of all three types: of pipes, files
 * with and without a name, eventfds and sockets, which the sender has closed since or still has; several in a message;
 * bytes without any before and behind them; a socket that carries one itself; a socket in its own queue; credentials
 * with them. A child receives and sends back as well.
 */
#include "wl.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#define KEEP 4
#define FDS 4

/* Message number i: a header of 16 bytes with the descriptors, then a body without. */
struct lane {
	const char *what;
	int type, sv[2];
	bool cred;
	uint64_t in, out;
	int kept[KEEP + 1]; /* reading ends of the pipes whose writing ends are under way */
};
static struct lane lane[3] = { { "stream", SOCK_STREAM, { 0 }, true, 0, 0, { 0 } },
			       { "seqpacket", SOCK_SEQPACKET, { 0 }, false, 0, 0, { 0 } },
			       { "datagram", SOCK_DGRAM, { 0 }, true, 0, 0, { 0 } } };
static int self[2], child[2];

static void send_fds(int s, const void *buf, size_t len, const int *fds, size_t n)
{
	char control[CMSG_SPACE(FDS * sizeof(int))] __attribute__((aligned(8))) = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	WL_EQ("bytes sent with descriptors", len, WL_SYS(sendmsg(s, &mh, 0)));
}

/* Exactly @len bytes with exactly @n descriptors, of which no room for more is given. */
static void recv_fds(const char *what, int s, void *buf, size_t len, int *fds, size_t n, bool cred)
{
	char control[256] __attribute__((aligned(8)));
	struct iovec iov = { buf, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	bool had_cred = false;
	size_t got = 0;
	struct cmsghdr *c;

	WL_EQ(what, len, WL_SYS(recvmsg(s, &mh, MSG_CMSG_CLOEXEC)));
	WL_EQ("flags of a message", MSG_CMSG_CLOEXEC, mh.msg_flags & ~MSG_EOR);
	for (c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
		struct ucred uc;

		if (c->cmsg_type == SCM_RIGHTS) {
			got = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			WL_EQ("descriptors in a message", n, got);
			memcpy(fds, CMSG_DATA(c), n * sizeof(int));
		} else if (c->cmsg_type == SCM_CREDENTIALS) {
			had_cred = true;
			memcpy(&uc, CMSG_DATA(c), sizeof(uc));
			WL_EQ("sender's pid", wl_main_pid, uc.pid);
			WL_EQ("sender's uid", geteuid(), uc.uid);
		}
	}
	WL_EQ("descriptors in a message", n, got);
	WL_EQ("credentials", cred, had_cred);
}

static size_t body_len(uint64_t i)
{
	return 1 + wl_mix(i) % 2000;
}

static int file_with(uint64_t word, bool named)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/tmp/wl-unixfds.%d.%llu", getpid(), (unsigned long long)word);
	fd = (int)WL_SYS(open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
	wl_write(fd, &word, sizeof(word));
	if (!named)
		WL_SYS(unlink(path));
	return fd;
}

static void put(struct lane *l)
{
	uint64_t head[2] = { l->in, wl_word(7, l->in) };
	uint8_t body[2000];
	int fds[FDS], p[2], carrier[2];
	size_t i;

	WL_SYS(pipe2(p, O_CLOEXEC));
	fds[0] = p[1];
	l->kept[l->in % (KEEP + 1)] = p[0];
	fds[1] = file_with(l->in, l->in % 2);
	fds[2] = (int)WL_SYS(eventfd((unsigned)l->in + 1, EFD_CLOEXEC));
	/* a socket with one in its queue, which is nowhere else */
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, carrier));
	send_fds(carrier[0], "deep", 4, &fds[2], 1);
	fds[3] = carrier[1];
	send_fds(l->sv[0], head, sizeof(head), fds, FDS);
	WL_SYS(close(carrier[0]));
	for (i = 0; i < FDS; i++)
		WL_SYS(close(fds[i]));
	wl_fill(body, body_len(l->in), 8, l->in);
	WL_EQ("body", body_len(l->in), WL_SYS(send(l->sv[0], body, body_len(l->in), 0)));
	l->in++;
}

static void check_fds(struct lane *l, const int *fds)
{
	int in = l->kept[l->out % (KEEP + 1)], deep;
	uint64_t v = 0;
	char c[4];

	wl_write(fds[0], "p", 1);
	WL_SYS(close(fds[0]));
	wl_read(in, c, 1);
	WL_EQ("end of file of a pipe that came", 0, WL_SYS(read(in, c, 1)));
	WL_SYS(close(in));
	WL_EQ("position of a file that came", 8, WL_SYS(lseek(fds[1], 0, SEEK_CUR)));
	WL_EQ("read of a file that came", 8, WL_SYS(pread(fds[1], &v, 8, 0)));
	WL_EQ("its word", l->out, v);
	recv_fds("from a socket that came", fds[3], c, 4, &deep, 1, false);
	/* it is the same description in both */
	v = 1;
	wl_write(deep, &v, 8);
	wl_read(fds[2], &v, 8);
	WL_EQ("count of an eventfd that came twice", l->out + 2, v);
	WL_EQ("end of file of a socket that came", 0, WL_SYS(read(fds[3], c, 1)));
	WL_SYS(close(deep));
	WL_SYS(close(fds[1]));
	WL_SYS(close(fds[2]));
	WL_SYS(close(fds[3]));
}

static void get(struct lane *l)
{
	uint64_t head[2];
	uint8_t body[2000];
	char path[64];
	int fds[FDS];

	recv_fds(l->what, l->sv[1], head, sizeof(head), fds, FDS, l->cred);
	WL_EQ("number", l->out, head[0]);
	WL_EQ("word", wl_word(7, l->out), head[1]);
	check_fds(l, fds);
	recv_fds("body", l->sv[1], body, body_len(l->out), NULL, 0, l->cred);
	wl_verify("body", body, body_len(l->out), 8, l->out);
	snprintf(path, sizeof(path), "/tmp/wl-unixfds.%d.%llu", getpid(), (unsigned long long)l->out);
	if (l->out % 2)
		unlink(path); /* a lane may come after another's */
	l->out++;
}

/* Sends back what comes, without looking at it. */
static int mirror(void *arg)
{
	char c;
	int fd;

	(void)arg;
	WL_SYS(close(child[0]));
	for (;;) {
		recv_fds("in the child", child[1], &c, 1, &fd, 1, false);
		send_fds(child[1], &c, 1, &fd, 1);
		WL_SYS(close(fd));
		if (c == 'q')
			return 51;
	}
}

static void through_child(char what, uint64_t round)
{
	int fd = (int)WL_SYS(eventfd((unsigned)round + 1, EFD_CLOEXEC)), back;
	uint64_t v;
	char c;

	send_fds(child[0], &what, 1, &fd, 1);
	recv_fds("from the child", child[0], &c, 1, &back, 1, false);
	WL_EQ("what the child sent", what, c);
	wl_read(back, &v, 8);
	WL_EQ("count of an eventfd that was away", round + 1, v);
	WL_SYS(close(back));
	WL_SYS(close(fd));
}

int main(void)
{
	uint64_t round = 0;
	pid_t pid;
	size_t i;
	char c[5];
	int fd;

	wl_init();
	for (i = 0; i < ARRAY_SIZE(lane); i++) {
		WL_SYS(socketpair(AF_UNIX, lane[i].type | SOCK_CLOEXEC, 0, lane[i].sv));
		if (lane[i].cred)
			WL_SYS(setsockopt(lane[i].sv[1], SOL_SOCKET, SO_PASSCRED, (int[]){ 1 }, sizeof(int)));
	}
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, self));
	send_fds(self[0], "itself", 6, &self[1], 1);
	WL_SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, child));
	pid = wl_spawn(mirror, NULL);
	WL_SYS(close(child[1]));
	wl_ready();
	while (!wl_stopping()) {
		for (i = 0; i < ARRAY_SIZE(lane); i++) {
			if (lane[i].in - lane[i].out < KEEP)
				put(&lane[i]);
			if (lane[i].in - lane[i].out >= KEEP - (round + i) % 3)
				get(&lane[i]);
		}
		through_child('x', round++);
		wl_pace();
	}
	for (i = 0; i < ARRAY_SIZE(lane); i++)
		while (lane[i].out < lane[i].in)
			get(&lane[i]);
	recv_fds("a socket in its own queue", self[1], c, 5, &fd, 1, false);
	WL_EQ("its last byte", 1, WL_SYS(recv(fd, c, 5, 0)));
	through_child('q', round);
	wl_reap(pid, 51);
	wl_ok();
}
