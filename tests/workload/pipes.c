/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pipes: with contents that stay for many rounds, both ends in one process, a writer that is blocked
 * on a full pipe, a reader that is blocked on an empty one, O_NONBLOCK on one end, packets (O_DIRECT),
 * resized, ends without a partner, ends dup'ed into children, and a pipeline of processes whose bytes
 * are counted and checked at its end.
 */
#include "wl.h"

#include <poll.h>
#include <sys/ioctl.h>

#define STAGES 3
#define CHUNK 3000

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t fed, drained, blocked_w, blocked_r;
} *sh;

static int kept[2], sized[2], nonblock[2], packet[2], eof[2], dead[2], full[2], empty[2];

/* Passes on what it reads, each byte plus one. */
static void stage(int in, int out)
{
	uint8_t buf[CHUNK];
	ssize_t n, i;

	while ((n = WL_SYS(read(in, buf, sizeof(buf)))) > 0) {
		for (i = 0; i < n; i++)
			buf[i]++;
		wl_write(out, buf, (size_t)n);
	}
	_exit(80);
}

static void feed(int out)
{
	uint8_t buf[CHUNK];
	uint64_t off = 0;

	while (!sh->stop) {
		size_t n = 1 + wl_mix(off) % CHUNK;

		wl_fill(buf, n, 1, off);
		wl_write(out, buf, n);
		off += n;
		sh->fed = off;
		if (off % 64 == 0)
			wl_pace();
	}
	_exit(81);
}

static void drain(int in)
{
	uint8_t buf[CHUNK];
	uint64_t off = 0;
	ssize_t n, i;

	while ((n = WL_SYS(read(in, buf, sizeof(buf)))) > 0) {
		for (i = 0; i < n; i++)
			buf[i] = (uint8_t)(buf[i] - STAGES);
		wl_verify("end of the pipeline", buf, (size_t)n, 1, off);
		off += (uint64_t)n;
		sh->drained = off;
		wl_sleep_ns(100000); /* slower than the feeder: all pipes are full */
	}
	WL_EQ("bytes through the pipeline", sh->fed, off);
	_exit(82);
}

static pid_t proc(void (*fn)(int), void (*fn2)(int, int), int in, int out, const int *others, int n)
{
	pid_t pid = (pid_t)WL_SYS(fork());
	int i;

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < n; i++)
		if (others[i] != in && others[i] != out)
			close(others[i]);
	if (fn)
		fn(in >= 0 ? in : out);
	fn2(in, out);
	_exit(99);
}

/* feeder | stage | stage | stage | drain */
static void pipeline(pid_t *pid)
{
	int p[STAGES + 1][2], i;

	for (i = 0; i <= STAGES; i++)
		WL_SYS(pipe(p[i]));
	pid[0] = proc(feed, NULL, -1, p[0][1], p[0], 2 * STAGES + 2);
	for (i = 0; i < STAGES; i++)
		pid[i + 1] = proc(NULL, stage, p[i][0], p[i + 1][1], p[0], 2 * STAGES + 2);
	pid[STAGES + 1] = proc(drain, NULL, p[STAGES][0], -1, p[0], 2 * STAGES + 2);
	for (i = 0; i <= STAGES; i++) {
		WL_SYS(close(p[i][0]));
		WL_SYS(close(p[i][1]));
	}
}

/* Always blocked in one big write; the parent takes a little from time to time. */
static int blocked_writer(void *arg)
{
	static uint8_t buf[200000];
	uint64_t off = 0;

	(void)arg;
	WL_SYS(close(full[0]));
	WL_SYS(close(empty[0]));
	WL_SYS(close(empty[1]));
	for (;;) {
		wl_fill(buf, sizeof(buf), 2, off);
		wl_write(full[1], buf, sizeof(buf));
		off += sizeof(buf);
		sh->blocked_w = off;
	}
	return 0;
}

static int blocked_reader(void *arg)
{
	uint8_t buf[100];
	uint64_t off = 0;
	ssize_t n;

	(void)arg;
	WL_SYS(close(empty[1]));
	WL_SYS(close(full[0]));
	WL_SYS(close(full[1]));
	while ((n = WL_SYS(read(empty[0], buf, sizeof(buf)))) > 0) {
		wl_verify("read that was waiting", buf, (size_t)n, 3, off);
		off += (uint64_t)n;
		sh->blocked_r = off;
	}
	return 84;
}

static int available(int fd)
{
	int n = -1;

	WL_SYS(ioctl(fd, FIONREAD, &n));
	return n;
}

static uint64_t kept_in, kept_out, sized_out, pkt_in, pkt_out, full_out, empty_in;

static void setup(void)
{
	static uint8_t big[300000];
	int old[2];

	WL_SYS(pipe2(kept, O_CLOEXEC));
	WL_SYS(pipe(sized));
	WL_CHECK(WL_SYS(fcntl(sized[1], F_SETPIPE_SZ, 512 * 1024)) == 512 * 1024, "F_SETPIPE_SZ");
	wl_fill(big, sizeof(big), 4, 0);
	wl_write(sized[1], big, sizeof(big));
	WL_SYS(pipe2(nonblock, O_NONBLOCK));
	WL_SYS(fcntl(nonblock[0], F_SETFL, 0));
	/* whole pages: full however the bytes are packed */
	while (write(nonblock[1], big, WL_PAGE) > 0)
		;
	WL_EQ("errno of a full pipe", EAGAIN, errno);
	WL_SYS(pipe2(packet, O_DIRECT));
	/* data and no writer: the rest, then end of file; a writer without a reader: EPIPE */
	WL_SYS(pipe(eof));
	wl_write(eof[1], big, 1234);
	WL_SYS(close(eof[1]));
	WL_SYS(pipe(dead));
	WL_SYS(close(dead[0]));
	signal(SIGPIPE, SIG_IGN);
	WL_SYS(pipe(full));
	WL_SYS(pipe(empty));
	/* the numbers of both ends apart, one end twice */
	old[0] = kept[0];
	kept[0] = (int)WL_SYS(fcntl(kept[0], F_DUPFD, 300));
	WL_SYS(close(old[0]));
	WL_SYS(dup2(kept[1], 301));
}

static void both_ends(uint64_t round)
{
	uint8_t buf[2 * CHUNK];
	size_t n = 1 + round * 37 % 2000;

	/* between 20 and 40 KiB stay inside */
	wl_fill(buf, n, 5, kept_in);
	wl_write(round % 2 ? kept[1] : 301, buf, n);
	kept_in += n;
	WL_EQ("bytes in a pipe", kept_in - kept_out, available(kept[0]));
	while (kept_in - kept_out > 40000) {
		wl_read(kept[0], buf, 5000);
		wl_verify("pipe with contents", buf, 5000, 5, kept_out);
		kept_out += 5000;
	}
	WL_EQ("flags of the reading end", O_RDONLY, WL_SYS(fcntl(kept[0], F_GETFL)));
	WL_EQ("flags of the writing end", O_WRONLY, WL_SYS(fcntl(kept[1], F_GETFL)));
	WL_EQ("close-on-exec", FD_CLOEXEC, WL_SYS(fcntl(kept[1], F_GETFD)));
	WL_EQ("close-on-exec of a dup", 0, WL_SYS(fcntl(301, F_GETFD)));
}

static void resized(void)
{
	uint8_t buf[3000];

	WL_EQ("size of a pipe", 512 * 1024, WL_SYS(fcntl(sized[0], F_GETPIPE_SZ)));
	wl_read(sized[0], buf, sizeof(buf));
	wl_verify("resized pipe", buf, sizeof(buf), 4, sized_out);
	sized_out += sizeof(buf);
	wl_fill(buf, sizeof(buf), 4, sized_out + 300000 - sizeof(buf));
	wl_write(sized[1], buf, sizeof(buf));
	WL_EQ("bytes in a resized pipe", 300000, available(sized[0]));
}

static void packets(void)
{
	uint8_t buf[CHUNK];
	size_t n;

	while (pkt_in < pkt_out + 8) {
		n = 1 + pkt_in * 131 % 1000;
		wl_fill(buf, n, pkt_in, 0);
		WL_EQ("packet", n, WL_SYS(write(packet[1], buf, n)));
		pkt_in++;
	}
	WL_EQ("size of a packet", 1 + pkt_out * 131 % 1000, WL_SYS(read(packet[0], buf, CHUNK)));
	wl_verify("packet", buf, 1 + pkt_out * 131 % 1000, pkt_out, 0);
	pkt_out++;
	WL_EQ("flags of a packet pipe", O_WRONLY | O_DIRECT, WL_SYS(fcntl(packet[1], F_GETFL)));
}

static void odd_ones(void)
{
	struct pollfd p = { .fd = nonblock[1], .events = POLLOUT };
	char c = 0;

	errno = 0;
	WL_EQ("write to a full pipe", -1, write(nonblock[1], &c, 1));
	WL_EQ("errno", EAGAIN, errno);
	WL_EQ("poll of a full pipe", 0, WL_SYS(poll(&p, 1, 0)));
	WL_EQ("flags", O_WRONLY | O_NONBLOCK, WL_SYS(fcntl(nonblock[1], F_GETFL)));
	WL_EQ("flags", O_RDONLY, WL_SYS(fcntl(nonblock[0], F_GETFL)));
	WL_EQ("bytes left behind by a writer", 1234, available(eof[0]));
	p = (struct pollfd){ .fd = eof[0], .events = POLLIN };
	WL_EQ("poll of a pipe without writer", 1, WL_SYS(poll(&p, 1, 0)));
	WL_EQ("its events", POLLIN | POLLHUP, p.revents);
	errno = 0;
	WL_EQ("write without a reader", -1, write(dead[1], &c, 1));
	WL_EQ("errno", EPIPE, errno);
}

static void with_blocked(uint64_t round)
{
	uint8_t buf[1000];
	size_t n = 1 + round % 100;

	wl_read(full[0], buf, sizeof(buf));
	wl_verify("from a blocked writer", buf, sizeof(buf), 2, full_out);
	full_out += sizeof(buf);
	wl_fill(buf, n, 3, empty_in);
	wl_write(empty[1], buf, n);
	empty_in += n;
	if (round % 16 == 0)
		WL_AWAIT(sh->blocked_r == empty_in, "the reader");
}

int main(void)
{
	pid_t pid[STAGES + 2], writer, reader;
	uint8_t buf[2000];
	uint64_t round = 0;
	int i, status;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	pipeline(pid);
	setup();
	writer = wl_spawn(blocked_writer, NULL);
	reader = wl_spawn(blocked_reader, NULL);
	WL_SYS(close(full[1]));
	WL_SYS(close(empty[0]));
	WL_AWAIT(sh->drained, "the pipeline");
	wl_ready();
	while (!wl_stopping()) {
		both_ends(round);
		resized();
		packets();
		odd_ones();
		with_blocked(round++);
		wl_pace();
	}
	sh->stop = 1;
	WL_SYS(close(empty[1]));
	wl_reap(reader, 84);
	WL_EQ("bytes read", empty_in, sh->blocked_r);
	WL_SYS(kill(writer, SIGKILL));
	WL_EQ("waitpid", writer, WL_SYS(waitpid(writer, &status, 0)));
	wl_reap(pid[0], 81);
	for (i = 0; i < STAGES; i++)
		wl_reap(pid[i + 1], 80);
	wl_reap(pid[STAGES + 1], 82);
	wl_read(eof[0], buf, 1234);
	wl_verify("bytes left behind by a writer", buf, 1234, 4, 0);
	WL_EQ("end of file", 0, WL_SYS(read(eof[0], buf, 1)));
	wl_ok();
}
