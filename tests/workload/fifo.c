/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * FIFOs, in the pod's own /tmp and on a file system that both nodes see: a writer and a reader in two
 * processes, with bytes inside all the time; contents that a writer or a reader has left behind; a reader that has never
 * met a writer; one that is open for both ways, by two descriptions; packets (O_DIRECT); resized; a name that
 * is gone; a process that waits in open(2) for the other end.
 */
#include "wl.h"

#include <poll.h>
#include <sys/ioctl.h>

#define KEPT 20000

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t met[2], parted[2], fed[2];
} *sh;

struct place {
	char dir[200];
	int in, keep, left, unmet, deaf, both[2], packet[2], gone[2];
	uint64_t out, both_in, both_out, packet_in, packet_out, gone_in, gone_out, meetings;
	pid_t feeder, waiter;
};
static struct place place[2];

static const char *path(const struct place *p, const char *name)
{
	static char buf[300];

	snprintf(buf, sizeof(buf), "%s/%s", p->dir, name);
	return buf;
}

static int make(const struct place *p, const char *name)
{
	WL_SYS(mkfifo(path(p, name), 0640));
	return (int)WL_SYS(open(path(p, name), O_RDWR));
}

/* Keeps a FIFO full; opens it anew from time to time, which the reader does not see, as the parent has a writer too. */
static int feed(void *arg)
{
	struct place *p = arg;
	uint8_t buf[3000];
	uint64_t off = 0;
	int out = -1;

	WL_SYS(close_range(3, ~0u, 0));
	while (!sh->stop) {
		size_t n = 1 + wl_mix(off) % sizeof(buf);

		if (off % 8 == 0 || out < 0) {
			int again = (int)WL_SYS(open(path(p, "stream"), O_WRONLY));

			if (out >= 0)
				WL_SYS(close(out));
			out = again;
		}
		wl_fill(buf, n, 1, off);
		wl_write(out, buf, n);
		off += n;
		sh->fed[p - place] = off;
	}
	return 61;
}

/* Waits in open(2), again and again. Has all other ends as well, by inheritance. */
static int wait_for_writer(void *arg)
{
	struct place *p = arg;
	uint64_t n, want = 0;

	for (;;) {
		int fd = (int)WL_SYS(open(path(p, "meet"), O_RDONLY));

		ssize_t got = WL_SYS(read(fd, &n, sizeof(n)));

		WL_SYS(close(fd));
		/* two nodes on one machine: the writer may be the copy that stands still at the source, until it is removed */
		if (!got && p == &place[1])
			continue;
		WL_EQ("read from a FIFO that was waited for", sizeof(n), got);
		if (n == UINT64_MAX)
			return 62;
		WL_EQ("a word through a FIFO that was waited for", want++, n);
		sh->met[p - place] = want;
		WL_AWAIT(sh->parted[p - place] == want, "the writer's close");
	}
}

static void meet(struct place *p, uint64_t n)
{
	int fd = (int)WL_SYS(open(path(p, "meet"), O_WRONLY));

	wl_write(fd, &n, sizeof(n));
	WL_AWAIT(sh->met[p - place] == n + 1 || n == UINT64_MAX, "who waited in open(2)");
	WL_SYS(close(fd));
	sh->parted[p - place] = n + 1;
}

static void setup(struct place *p, const char *parent)
{
	static uint8_t buf[KEPT];
	int fd;

	snprintf(p->dir, sizeof(p->dir), "%s/wl-fifo.XXXXXX", parent);
	WL_CHECK(mkdtemp(p->dir), "mkdtemp: expected success, got %s", strerror(errno));
	/* read by a description of its own; another keeps the writing end open */
	fd = make(p, "stream");
	p->in = (int)WL_SYS(open(path(p, "stream"), O_RDONLY | O_CLOEXEC));
	WL_CHECK(WL_SYS(fcntl(fd, F_SETPIPE_SZ, 256 * 1024)) == 256 * 1024, "F_SETPIPE_SZ");
	p->keep = (int)WL_SYS(open(path(p, "stream"), O_WRONLY | O_APPEND));
	WL_SYS(close(fd));
	/* the writer has gone, its bytes have not */
	fd = make(p, "left");
	p->left = (int)WL_SYS(open(path(p, "left"), O_RDONLY));
	wl_fill(buf, sizeof(buf), 2, 0);
	wl_write(fd, buf, sizeof(buf));
	WL_SYS(close(fd));
	WL_SYS(close(make(p, "unmet")));
	p->unmet = (int)WL_SYS(open(path(p, "unmet"), O_RDONLY | O_NONBLOCK));
	fd = make(p, "deaf");
	p->deaf = (int)WL_SYS(open(path(p, "deaf"), O_WRONLY));
	wl_write(p->deaf, buf, 100);
	WL_SYS(close(fd));
	p->both[0] = make(p, "both");
	p->both[1] = (int)WL_SYS(open(path(p, "both"), O_RDWR | O_NONBLOCK));
	p->packet[0] = make(p, "packet");
	p->packet[1] = (int)WL_SYS(open(path(p, "packet"), O_WRONLY));
	WL_SYS(fcntl(p->packet[1], F_SETFL, O_DIRECT)); /* open(2) has it for files alone */
	p->gone[0] = make(p, "gone");
	p->gone[1] = (int)WL_SYS(open(path(p, "gone"), O_WRONLY));
	WL_SYS(unlink(path(p, "gone")));
	WL_SYS(mkfifo(path(p, "meet"), 0600));
	WL_SYS(mkfifo(path(p, "nobody"), 0600));
	p->feeder = wl_spawn(feed, p);
	p->waiter = wl_spawn(wait_for_writer, p);
}

static void keep_some(const char *what, int in, int out, uint64_t seed, uint64_t *written, uint64_t *read, uint64_t round)
{
	uint8_t buf[4000];
	size_t n = 1 + round * 41 % sizeof(buf);
	int have = -1;

	wl_fill(buf, n, seed, *written);
	wl_write(out, buf, n);
	*written += n;
	WL_SYS(ioctl(in, FIONREAD, &have));
	WL_EQ("bytes in a FIFO", *written - *read, have);
	while (*written - *read > KEPT) {
		wl_read(in, buf, sizeof(buf));
		wl_verify(what, buf, sizeof(buf), seed, *read);
		*read += sizeof(buf);
	}
}

/* Between three and six packets stay inside, each of a length of its own. */
static void packets(struct place *p)
{
	uint8_t buf[4096];
	size_t n;

	while (p->packet_in - p->packet_out < 6) {
		n = 1 + p->packet_in * 97 % 4000;
		wl_fill(buf, n, 5, p->packet_in);
		WL_EQ("write of a packet", n, WL_SYS(write(p->packet[1], buf, n)));
		p->packet_in++;
	}
	while (p->packet_in - p->packet_out > 3) {
		n = 1 + p->packet_out * 97 % 4000;
		WL_EQ("length of a packet", n, WL_SYS(read(p->packet[0], buf, sizeof(buf))));
		wl_verify("a packet", buf, n, 5, p->packet_out);
		p->packet_out++;
	}
}

static void events(const char *what, int fd, int want)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	WL_SYS(poll(&p, 1, 0));
	WL_EQ(what, want, p.revents);
}

static void odd_ones(struct place *p)
{
	struct stat a, b;
	char c = 0;

	events("events of a reader whose writer has gone", p->left, POLLIN | POLLHUP);
	events("events of a reader without a writer", p->unmet, 0);
	WL_EQ("read without a writer", 0, WL_SYS(read(p->unmet, &c, 1)));
	errno = 0;
	WL_EQ("write without a reader", -1, write(p->deaf, &c, 1));
	WL_EQ("errno", EPIPE, errno);
	errno = 0;
	WL_EQ("open for writing without a reader", -1, open(path(p, "nobody"), O_WRONLY | O_NONBLOCK));
	WL_EQ("errno", ENXIO, errno);
	WL_EQ("flags", O_WRONLY | O_APPEND, WL_SYS(fcntl(p->keep, F_GETFL)) & ~0100000);
	WL_EQ("flags", O_RDWR | O_NONBLOCK, WL_SYS(fcntl(p->both[1], F_GETFL)) & ~0100000);
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(p->in, F_GETFD)));
	WL_EQ("size", 256 * 1024, WL_SYS(fcntl(p->in, F_GETPIPE_SZ)));
	WL_SYS(fstat(p->both[0], &a));
	WL_SYS(stat(path(p, "both"), &b));
	WL_CHECK(a.st_ino == b.st_ino && a.st_dev == b.st_dev, "the name leads to another FIFO");
	WL_EQ("mode", S_IFIFO | 0640, a.st_mode);
	WL_SYS(fstat(p->gone[1], &a));
	WL_EQ("mode", S_IFIFO | 0640, a.st_mode);
	WL_EQ("links", 0, a.st_nlink);
}

static void round_of(struct place *p, uint64_t round)
{
	uint8_t buf[2000];
	ssize_t n = WL_SYS(read(p->in, buf, sizeof(buf)));

	wl_verify("stream", buf, (size_t)n, 1, p->out);
	p->out += (uint64_t)n;
	keep_some("open for both ways", p->both[round % 2], p->both[(round + 1) % 2], 3, &p->both_in, &p->both_out, round);
	keep_some("without a name", p->gone[0], p->gone[round % 3 ? 1 : 0], 4, &p->gone_in, &p->gone_out, round);
	packets(p);
	odd_ones(p);
	if (round % 4 == 0)
		meet(p, p->meetings++);
}

static void at_the_end(struct place *p)
{
	static const char *const names[] = { "stream", "left", "unmet", "deaf", "both", "packet", "meet", "nobody" };
	static uint8_t buf[KEPT];
	ssize_t n;
	size_t i;
	int fd;

	WL_SYS(close(p->keep));
	while ((n = WL_SYS(read(p->in, buf, sizeof(buf)))) > 0) {
		wl_verify("stream", buf, (size_t)n, 1, p->out);
		p->out += (uint64_t)n;
	}
	wl_reap(p->feeder, 61);
	WL_EQ("bytes of the stream", sh->fed[p - place], p->out);
	wl_read(p->left, buf, KEPT);
	wl_verify("what a writer left", buf, KEPT, 2, 0);
	WL_EQ("end of file", 0, WL_SYS(read(p->left, buf, 1)));
	fd = (int)WL_SYS(open(path(p, "deaf"), O_RDONLY));
	wl_read(fd, buf, 100);
	wl_verify("what nobody has read", buf, 100, 2, 0);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		WL_SYS(unlink(path(p, names[i])));
	WL_SYS(rmdir(p->dir));
}

int main(int argc, char **argv)
{
	uint64_t round = 0;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	signal(SIGPIPE, SIG_IGN);
	setup(&place[0], "/tmp");
	setup(&place[1], wl_dir(argc, argv));
	wl_ready();
	while (!wl_stopping()) {
		round_of(&place[0], round);
		round_of(&place[1], round++);
		wl_pace();
	}
	sh->stop = 1;
	for (round = 0; round < 2; round++) { /* they have inherited writing ends */
		meet(&place[round], UINT64_MAX);
		wl_reap(place[round].waiter, 62);
	}
	at_the_end(&place[0]);
	at_the_end(&place[1]);
	wl_ok();
}
