/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Live TCP connections move from one network namespace to another with the same address, again and
 * again, while their peer goes on. Every byte in both directions is checked against its position in
 * the stream, and the longest time without progress is measured.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "tests/harness.h"
#include "tests/net/world.h"

/*
 * How much longer than the longest standstill itself a stream may stall. A retransmission timer is
 * 200 ms at least, so one that had to fire is seen; a quiet machine shows 2-10 ms.
 */
#define EXCESS_MAX (150 * NSEC_PER_MSEC)
#define PATTERN    65521u /* a prime: no block size divides it */
#define BLOCK      65536

/* ---- one end of a checked full-duplex stream */

struct end {
	int fd;
	uint8_t *pattern; /* PATTERN + BLOCK bytes */
	uint64_t sent, received;
	uint64_t last_rx, longest; /* ns; time of the last arrival, longest time between two */
	uint64_t late;             /* longest round of end_run(), which waits for 1 ms at most: this machine's doing */
	int error;                 /* errno, or EBADMSG for a wrong byte */
	bool eof;
	atomic_bool park, parked, stop; /* parking, for the pod's side */
};

static uint8_t *make_pattern(void)
{
	uint8_t *p = malloc(PATTERN + BLOCK);
	uint32_t x = 1;
	size_t i;

	T_REQUIRE(p);
	for (i = 0; i < PATTERN + BLOCK; i++) {
		if (i % PATTERN == 0)
			x = 1;
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(x >> 24);
	}
	return p;
}

static void end_send(struct end *d)
{
	ssize_t n = send(d->fd, d->pattern + d->sent % PATTERN, BLOCK, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0)
		d->sent += (uint64_t)n;
	else if (n < 0 && errno != EAGAIN)
		d->error = errno;
}

static void end_receive(struct end *d, uint8_t *buf)
{
	ssize_t n = recv(d->fd, buf, BLOCK, MSG_DONTWAIT);
	uint64_t now;

	if (n < 0 && errno != EAGAIN)
		d->error = errno;
	if (n == 0)
		d->eof = true;
	if (n <= 0)
		return;
	if (memcmp(buf, d->pattern + d->received % PATTERN, (size_t)n))
		d->error = EBADMSG;
	d->received += (uint64_t)n;
	now = now_ns();
	if (d->last_rx && now - d->last_rx > d->longest)
		d->longest = now - d->last_rx;
	d->last_rx = now;
}

static void *end_run(void *p)
{
	struct end *d = p;
	uint8_t *buf = malloc(BLOCK);
	struct timespec nap = {0, 20000};
	uint64_t t;

	while (!d->stop && !d->error && !d->eof) {
		struct pollfd pf = {.fd = d->fd, .events = POLLIN | POLLOUT};

		if (d->park) {
			d->parked = true;
			while (d->park)
				nanosleep(&nap, NULL);
			d->parked = false;
		}
		t = now_ns();
		poll(&pf, 1, 1);
		if (pf.revents & POLLIN)
			end_receive(d, buf);
		if (pf.revents & POLLOUT)
			end_send(d);
		d->late = MAX(d->late, now_ns() - t);
	}
	free(buf);
	d->parked = true;
	return NULL;
}

static void park(struct end *d)
{
	uint64_t end = deadline_ms(60000);

	d->park = true;
	while (!d->parked)
		T_REQUIRE(now_ns() < end);
}

static void unpark(void *arg)
{
	struct end *d = arg;

	d->park = false;
	while (d->parked && !d->error && !d->stop)
		;
}

/* The program's work between moves, and after the last one, so that a stall that it causes is seen. */
static void sleep_us(unsigned us)
{
	struct timespec t = {us / 1000000, (long)(us % 1000000) * 1000};

	nanosleep(&t, NULL);
}

/* What both ends say at the end: stop sending, read to the end of what was sent. */
static void finish_streams(struct end *x, struct end *y)
{
	uint64_t end = deadline_ms(60000);
	uint8_t *buf = malloc(BLOCK);

	while ((x->received < y->sent || y->received < x->sent) && !x->error && !y->error &&
	       now_ns() < end) {
		end_receive(x, buf);
		end_receive(y, buf);
	}
	free(buf);
	T_CHECK_EQ(x->received, y->sent);
	T_CHECK_EQ(y->received, x->sent);
	T_CHECK_EQ(x->error, 0);
	T_CHECK_EQ(y->error, 0);
}

/* ---- how late a thread is woken on this machine at this time: what nobody can blame on a move */

struct ticker {
	pthread_t thread;
	atomic_bool stop;
	uint64_t worst;
};

static void *tick(void *p)
{
	struct timespec nap = {0, 1000000}; /* what is measured */
	struct ticker *k = p;
	uint64_t t;

	while (!k->stop) {
		t = now_ns();
		nanosleep(&nap, NULL);
		k->worst = MAX(k->worst, now_ns() - t);
	}
	return NULL;
}

static void ticker_start(struct ticker *k)
{
	T_REQUIRE(pthread_create(&k->thread, NULL, tick, k) == 0);
}

/* The bound for stalls: standstill + this machine's noise + EXCESS_MAX; none if the machine itself stood still, which it then
 * may do more than once in a stall. Ends @k. */
static uint64_t ticker_bound(struct ticker *k, uint64_t frozen)
{
	k->stop = true;
	pthread_join(k->thread, NULL);
	return k->worst > NSEC_PER_SEC ? UINT64_MAX : frozen + k->worst + EXCESS_MAX;
}

static void set_cc(int fd, const char *cc)
{
	T_REQUIRE(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, cc, (socklen_t)strlen(cc)) == 0);
}

/* What tells a stall of the protocol from one of the machine. */
static void print_counters(const char *who, int ns)
{
	static const char *const names[] = {"TCPTimeouts",    "TCPLossProbes", "TCPRcvQDrop",     "RcvPruned",
					    "TCPBacklogDrop", "PAWSEstab",     "TCPSpuriousRTOs", "TCPFastRetrans",
					    "TCPChallengeACK", "TCPACKSkippedChallenge"};
	size_t i;

	printf("#   %s:", who);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (world_counter(ns, names[i]) > 0)
			printf(" %s %lld", names[i], world_counter(ns, names[i]));
	printf("\n");
}

/* A checked stream at full speed in both directions, moved @moves times. */
static void stream(const char *what, const char *cc, unsigned moves, const struct move_opts *o)
{
	struct world w;
	struct end pod = {0}, peer = {0};
	struct move_times t;
	struct ticker noise = {0};
	uint64_t frozen = 0, save = 0, restore = 0, moved_bytes, bound;
	unsigned held = 0, i, lost = 0;
	pthread_t tp, tq;
	int l;

	world_init(&w);
	l = world_listen(w.at->ns, POD_IP, 7000, 8);
	peer.fd = world_connect(w.peer, POD_IP, 7000);
	pod.fd = world_accept(l);
	set_cc(pod.fd, cc);
	set_cc(peer.fd, cc);
	pod.pattern = peer.pattern = make_pattern();
	T_REQUIRE(pthread_create(&tp, NULL, end_run, &pod) == 0);
	T_REQUIRE(pthread_create(&tq, NULL, end_run, &peer) == 0);
	ticker_start(&noise);
	for (i = 0; i < moves; i++) {
		int fds[2];

		sleep_us(20000 + i * 331 % 10000);
		park(&pod);
		fds[0] = pod.fd;
		fds[1] = l;
		world_move(&w, fds, 2, o, &t, unpark, &pod);
		frozen = MAX(frozen, t.frozen);
		save = MAX(save, t.save);
		restore = MAX(restore, t.restore);
		held += t.held;
		lost += t.lost;
	}
	sleep_us(300000);
	pod.stop = peer.stop = true;
	pthread_join(tp, NULL);
	pthread_join(tq, NULL);
	moved_bytes = pod.sent + peer.sent;
	finish_streams(&pod, &peer);
	bound = ticker_bound(&noise, frozen);
	bound = MAX(bound, frozen + MAX(pod.late, peer.late) + EXCESS_MAX);
	printf("# %s: %u moves, %.0f MiB, frozen max %.2f ms (save %.0f us, restore %.0f us), held "
	       "%u, lost %u,"
	       " longest stall peer %.1f ms, pod %.1f ms, bound %.1f ms; machine late %.1f, ends %.1f, %.1f ms\n",
	       what, moves, (double)moved_bytes / (1 << 20), (double)frozen / 1e6,
	       (double)save / 1e3, (double)restore / 1e3, held, lost, (double)peer.longest / 1e6,
	       (double)pod.longest / 1e6, (double)bound / 1e6, (double)noise.worst / 1e6, (double)peer.late / 1e6,
	       (double)pod.late / 1e6);
	print_counters("peer", w.peer);
	print_counters("pod at a", w.a.ns);
	print_counters("pod at b", w.b.ns);
	T_CHECK(peer.longest < bound);
	T_CHECK(pod.longest < bound);
	free(pod.pattern);
	close(pod.fd);
	close(peer.fd);
	close(l);
	world_done(&w);
}

static void test_stream_cubic(void)
{
	stream("stream cubic", "cubic", 50, &(struct move_opts){0});
}

static void test_stream_drain(void)
{
	stream("stream cubic drained", "cubic", 25, &(struct move_opts){.drain = true});
}

static void test_stream_default(void)
{
	stream("stream bbr", "bbr", 50, &(struct move_opts){0});
}

static void test_stream_abort(void)
{
	stream("stream aborted", "cubic", 25, &(struct move_opts){.abort = true});
}

static void test_stream_early(void)
{
	stream("stream released early", "cubic", 25, &(struct move_opts){.early_release = true});
}

static void test_stream_pause(void)
{
	stream("stream 20 ms pause", "cubic", 20, &(struct move_opts){.pause_ns = 20000000});
}

/* ---- request and reply */

struct pinger {
	int fd;
	bool answers; /* this end answers, the other asks */
	unsigned size, rounds;
	uint64_t longest, sum;
	int error;
	atomic_bool park, parked, stop;
	struct timespec think;
};

/* All of @n bytes, parking in between where asked: the pod's side may stand still at any byte. */
static int ping_io(struct pinger *p, uint8_t *buf, unsigned n, bool out)
{
	static const struct timespec nap = {0, 20000};
	unsigned done = 0;

	while (done < n && !p->stop) {
		struct pollfd pf = {.fd = p->fd, .events = out ? POLLOUT : POLLIN};
		ssize_t k;

		if (p->park) {
			p->parked = true;
			while (p->park)
				nanosleep(&nap, NULL);
			p->parked = false;
		}
		if (poll(&pf, 1, 1) == 0)
			continue;
		k = out ? send(p->fd, buf + done, n - done, MSG_DONTWAIT | MSG_NOSIGNAL)
			: recv(p->fd, buf + done, n - done, MSG_DONTWAIT);
		if (k < 0 && errno == EAGAIN)
			continue;
		if (k <= 0)
			return k < 0 ? errno : EPIPE;
		done += (unsigned)k;
	}
	return 0;
}

static void *ping_run(void *arg)
{
	struct pinger *p = arg;
	uint8_t *out = malloc(p->size), *in = malloc(p->size);
	uint64_t t;

	while (!p->stop && !p->error) {
		memset(out, (int)(p->rounds & 0xff), p->size);
		t = now_ns();
		if (!p->answers)
			p->error = ping_io(p, out, p->size, true);
		if (!p->error)
			p->error = ping_io(p, in, p->size, false);
		if (!p->error && !p->stop && memcmp(in, out, p->size))
			p->error = EBADMSG;
		if (!p->error && p->answers)
			p->error = ping_io(p, out, p->size, true);
		t = now_ns() - t;
		p->longest = MAX(p->longest, t);
		p->sum += t;
		p->rounds++;
		if (p->think.tv_nsec)
			nanosleep(&p->think, NULL);
	}
	free(out);
	free(in);
	p->parked = true;
	return NULL;
}

struct pingers {
	struct pinger *p;
	unsigned n;
};

static void unpark_all(void *arg)
{
	struct pingers *a = arg;
	unsigned i;

	for (i = 0; i < a->n; i++)
		a->p[i].park = false;
}

/* @n connections on which one end asks and the other answers with the same, all moved @moves times.
 */
static void pingpong(const char *what, unsigned n, unsigned size, bool pod_asks, unsigned moves,
		     unsigned think_us, const struct move_opts *o)
{
	struct world w;
	struct pinger *pod = calloc(n, sizeof(*pod)), *peer = calloc(n, sizeof(*peer));
	pthread_t *th = calloc(2 * n, sizeof(*th));
	int *fds = calloc(n + 1, sizeof(*fds)), one = 1;
	struct ticker noise = {0};
	uint64_t frozen = 0, longest = 0, end, bound;
	unsigned i, m, rounds = 0;
	struct move_times t;

	T_REQUIRE(pod && peer && th && fds);
	world_init(&w);
	fds[n] = world_listen(w.at->ns, POD_IP, 7000, 128);
	for (i = 0; i < n; i++) {
		peer[i].fd = world_connect(w.peer, POD_IP, 7000);
		fds[i] = pod[i].fd = world_accept(fds[n]);
		setsockopt(peer[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(pod[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		pod[i].answers = !pod_asks;
		peer[i].answers = pod_asks;
		(pod_asks ? pod : peer)[i].think.tv_nsec = think_us * 1000;
		pod[i].size = peer[i].size = size;
		T_REQUIRE(pthread_create(&th[i], NULL, ping_run, &pod[i]) == 0);
		T_REQUIRE(pthread_create(&th[n + i], NULL, ping_run, &peer[i]) == 0);
	}
	ticker_start(&noise);
	for (m = 0; m < moves; m++) {
		sleep_us(8000 + m * 331 % 5000);
		for (i = 0; i < n; i++)
			pod[i].park = true;
		end = deadline_ms(60000);
		for (i = 0; i < n; i++)
			while (!pod[i].parked)
				T_REQUIRE(now_ns() < end);
		world_move(&w, fds, n + 1, o, &t, unpark_all, &(struct pingers){pod, n});
		frozen = MAX(frozen, t.frozen);
	}
	sleep_us(250000);
	for (i = 0; i < n; i++)
		pod[i].stop = peer[i].stop = true;
	for (i = 0; i < 2 * n; i++)
		pthread_join(th[i], NULL);
	for (i = 0; i < n; i++) {
		T_CHECK_EQ(pod[i].error, 0);
		T_CHECK_EQ(peer[i].error, 0);
		longest = MAX(longest, MAX(peer[i].longest, pod[i].longest));
		rounds += peer[i].rounds;
		close(pod[i].fd);
		close(peer[i].fd);
	}
	printf("# %s: %u moves, %u connections, %u rounds of %u bytes, frozen max %.2f ms, longest "
	       "round %.1f ms\n",
	       what, moves, n, rounds, size, (double)frozen / 1e6, (double)longest / 1e6);
	bound = ticker_bound(&noise, frozen);
	T_CHECK(longest < bound);
	T_CHECK(rounds > moves * n);
	close(fds[n]);
	world_done(&w);
	free(pod);
	free(peer);
	free(th);
	free(fds);
}

static void test_ping_peer_asks(void)
{
	pingpong("peer asks", 1, 64, false, 40, 0, &(struct move_opts){0});
}

static void test_ping_pod_asks(void)
{
	pingpong("pod asks", 1, 64, true, 40, 0, &(struct move_opts){0});
}

static void test_ping_early(void)
{
	pingpong("released early", 2, 5000, true, 30, 0,
		 &(struct move_opts){.early_release = true});
}

static void test_ping_large(void)
{
	pingpong("large messages", 1, 300000, false, 40, 0, &(struct move_opts){0});
}

static void test_ping_idle(void)
{
	pingpong("mostly idle", 4, 1000, false, 30, 3000, &(struct move_opts){0});
}

static void test_ping_many(void)
{
	pingpong("many", 16, 20000, true, 25, 500, &(struct move_opts){0});
}

static const struct test_case cases[] = {
	{"stream_cubic", test_stream_cubic},     {"stream_drain", test_stream_drain},
	{"stream_default", test_stream_default}, {"stream_abort", test_stream_abort},
	{"stream_pause", test_stream_pause},     {"stream_early", test_stream_early},
	{"ping_peer_asks", test_ping_peer_asks}, {"ping_pod_asks", test_ping_pod_asks},
	{"ping_early", test_ping_early},         {"ping_large", test_ping_large},
	{"ping_idle", test_ping_idle},           {"ping_many", test_ping_many},
};

const struct test_suite tcp_move_suite = {"tcp_move", cases, ARRAY_SIZE(cases)};
