/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * redis_check [-c CONNECTIONS] [-t SECONDS] [-n REQUESTS] [-w THINK_US] [-d BYTES] HOST PORT
 *
 * Asks a redis server over connections that are opened once and kept, and checks every reply. Each
 * connection has one request under way and goes round SET, GET, INCR on keys of its own: GET must
 * give what SET wrote, INCR must give the number of the round. So a lost, doubled or reordered
 * request or reply, or one that another connection should have got, is an error. At the end every
 * connection reads its counter and its last value once more.
 *
 * "stall" is the longest time that any request waited for its whole reply.
 */
#include "tests/clients/client.h"

#define MAX_VALUE 65536
#define BUF_SIZE (MAX_VALUE + 256)

enum step { STEP_SET, STEP_GET, STEP_INCR, NUM_STEPS };

struct conn {
	int fd, id;
	uint64_t round, prng;
	enum step step;
	char *out, *in, *want; /* request, what has come of the reply, what must come */
	size_t out_len, out_done, in_len, want_len;
	char *value;
	size_t value_len;
	uint64_t sent, next; /* 0: nothing under way; when the next one may go */
};

struct totals {
	uint64_t requests, errors, stall, limit, think;
	size_t size;
	uint64_t nonce;
};

static void complain(struct totals *t, const struct conn *c, const char *what)
{
	if (t->errors++ < 20)
		fprintf(stderr, "redis_check: connection %d, round %llu, step %d: %s\n", c->id,
			(unsigned long long)c->round, c->step, what);
}

static void make_value(struct conn *c, const struct totals *t)
{
	size_t i;

	/* mostly the asked size, now and then a long one that needs several segments */
	c->value_len = c->round % 64 == 63 ? MAX_VALUE / 4 : t->size;
	for (i = 0; i < c->value_len; i++)
		c->value[i] = (char)('!' + cl_next(&c->prng) % 90);
}

static size_t put_bulk(char *out, const char *data, size_t len)
{
	size_t n = (size_t)sprintf(out, "$%zu\r\n", len);

	memcpy(out + n, data, len);
	memcpy(out + n + len, "\r\n", 2);
	return n + len + 2;
}

static void make_request(struct conn *c, const struct totals *t)
{
	char key[64];
	size_t n;
	int k;

	k = sprintf(key, "check:%llx:%d:%s", (unsigned long long)t->nonce, c->id,
		    c->step == STEP_INCR ? "n" : "v");
	switch (c->step) {
	case STEP_SET:
		c->round++;
		make_value(c, t);
		n = (size_t)sprintf(c->out, "*3\r\n$3\r\nSET\r\n");
		n += put_bulk(c->out + n, key, (size_t)k);
		n += put_bulk(c->out + n, c->value, c->value_len);
		c->want_len = (size_t)sprintf(c->want, "+OK\r\n");
		break;
	case STEP_GET:
		n = (size_t)sprintf(c->out, "*2\r\n$3\r\nGET\r\n");
		n += put_bulk(c->out + n, key, (size_t)k);
		c->want_len = put_bulk(c->want, c->value, c->value_len);
		break;
	default:
		n = (size_t)sprintf(c->out, "*2\r\n$4\r\nINCR\r\n");
		n += put_bulk(c->out + n, key, (size_t)k);
		c->want_len = (size_t)sprintf(c->want, ":%llu\r\n", (unsigned long long)c->round);
		break;
	}
	c->out_len = n;
	c->out_done = c->in_len = 0;
	c->sent = cl_now();
}

/* false: the connection is of no use any more */
static bool push(struct conn *c, struct totals *t)
{
	ssize_t n;

	while (c->out_done < c->out_len) {
		n = send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (n < 0) {
			complain(t, c, strerror(errno));
			return false;
		}
		c->out_done += (size_t)n;
	}
	return true;
}

static bool pull(struct conn *c, struct totals *t)
{
	uint64_t took;
	ssize_t n = recv(c->fd, c->in + c->in_len, BUF_SIZE - c->in_len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0) {
		complain(t, c, n ? strerror(errno) : "closed by the server");
		return false;
	}
	c->in_len += (size_t)n;
	if (c->in_len < c->want_len && !memcmp(c->in, c->want, c->in_len))
		return true;
	if (c->in_len != c->want_len || memcmp(c->in, c->want, c->want_len) != 0) {
		fprintf(stderr, "redis_check: wanted '%.60s', got '%.*s'\n", c->want,
			(int)(c->in_len < 60 ? c->in_len : 60), c->in);
		complain(t, c, "wrong reply");
		return false;
	}
	took = cl_now() - c->sent;
	if (took > t->stall)
		t->stall = took;
	t->requests++;
	c->step = (c->step + 1) % NUM_STEPS;
	c->sent = 0;
	c->next = cl_now() + t->think;
	return true;
}

/* One request and reply, waiting. For the beginning and the last reading. */
static bool turn(struct conn *c, struct totals *t)
{
	struct pollfd p = {.fd = c->fd};

	while (c->sent) {
		if (cl_now() - c->sent > ANSWER_NS) {
			complain(t, c, "no reply");
			return false;
		}
		if (!push(c, t))
			return false;
		p.events = c->out_done < c->out_len ? POLLOUT | POLLIN : POLLIN;
		if (poll(&p, 1, 100) > 0 && (p.revents & (POLLIN | POLLERR | POLLHUP)) && !pull(c, t))
			return false;
	}
	return true;
}

static void drop(struct conn *c)
{
	close(c->fd);
	c->fd = -1;
}

/* What was written is still there: the counter stands at the finished rounds. */
static void last_reading(struct conn *c, struct totals *t)
{
	uint64_t done;

	if (c->fd >= 0 && !turn(c, t))
		drop(c);
	if (c->fd < 0)
		return;
	while (c->step != STEP_SET) {
		make_request(c, t);
		if (!turn(c, t)) {
			drop(c);
			return;
		}
	}
	done = c->round;
	c->step = STEP_GET;
	make_request(c, t);
	if (!turn(c, t))
		return;
	c->step = STEP_INCR;
	c->round = done + 1;
	make_request(c, t);
	turn(c, t);
}

static void serve(struct conn *conns, int n, struct totals *t, uint64_t end)
{
	struct pollfd *p = calloc((size_t)n, sizeof(*p));
	int i, left = n;
	uint64_t now;

	while (p && left && !cl_stop && (now = cl_now()) < end && (!t->limit || t->requests < t->limit)) {
		uint64_t wake = now + 100 * MSEC;
		struct timespec ts;

		for (i = 0; i < n; i++) {
			struct conn *c = &conns[i];
			bool ok = true;

			p[i].fd = c->fd;
			if (c->fd < 0)
				continue;
			if (!c->sent && c->next <= now)
				make_request(c, t);
			if (c->sent && now > c->sent && now - c->sent > ANSWER_NS) {
				complain(t, c, "no reply");
				ok = false;
			}
			if (ok && c->sent)
				ok = push(c, t);
			if (!ok) {
				drop(c);
				left--;
				continue;
			}
			if (!c->sent && c->next < wake)
				wake = c->next;
			p[i].events = c->sent && c->out_done < c->out_len ? POLLIN | POLLOUT : POLLIN;
		}
		wake = wake > now ? wake - now : 0;
		ts = (struct timespec){0, (long)wake};
		if (ppoll(p, (nfds_t)n, &ts, NULL) <= 0)
			continue;
		for (i = 0; i < n; i++) {
			if (conns[i].fd < 0 || !(p[i].revents & (POLLIN | POLLERR | POLLHUP)))
				continue;
			if (!pull(&conns[i], t)) {
				drop(&conns[i]);
				left--;
			}
		}
	}
	free(p);
}

int main(int argc, char **argv)
{
	struct totals t = {.size = 100, .nonce = cl_seed()};
	uint64_t start, end = UINT64_MAX;
	struct sockaddr_in sa;
	struct conn *conns;
	int opt, i, n = 8;

	cl_init();
	while ((opt = getopt(argc, argv, "c:t:n:w:d:")) != -1) {
		switch (opt) {
		case 'c': n = atoi(optarg); break;
		case 't': end = strtoull(optarg, NULL, 10) * SEC; break;
		case 'n': t.limit = strtoull(optarg, NULL, 10); break;
		case 'w': t.think = strtoull(optarg, NULL, 10) * 1000; break;
		case 'd': t.size = strtoull(optarg, NULL, 10); break;
		default: return 2;
		}
	}
	if (argc - optind != 2 || n < 1 || t.size > MAX_VALUE)
		cl_die("usage: redis_check [-c CONNS] [-t SECONDS] [-n REQUESTS] [-w US] [-d BYTES] HOST PORT");
	sa = cl_addr(argv[optind], argv[optind + 1]);
	conns = calloc((size_t)n, sizeof(*conns));
	for (i = 0; conns && i < n; i++) {
		struct conn *c = &conns[i];

		c->id = i;
		c->prng = t.nonce + (uint64_t)i;
		c->out = malloc(BUF_SIZE);
		c->in = malloc(BUF_SIZE);
		c->want = malloc(BUF_SIZE);
		c->value = malloc(MAX_VALUE);
		if (!c->out || !c->in || !c->want || !c->value)
			cl_die("no memory");
		c->fd = cl_connect(&sa, 60);
		make_request(c, &t);
		if (!turn(c, &t))
			drop(c);
	}
	printf("ready\n");
	start = cl_now();
	serve(conns, n, &t, end == UINT64_MAX ? end : start + end);
	for (i = 0; i < n; i++)
		last_reading(&conns[i], &t);
	printf("{\"requests\": %llu, \"errors\": %llu, \"longest_stall_ms\": %.3f, \"connections\": %d, "
	       "\"seconds\": %.3f}\n", (unsigned long long)t.requests, (unsigned long long)t.errors,
	       (double)t.stall / 1e6, n, (double)(cl_now() - start) / 1e9);
	return t.requests && !t.errors ? 0 : 1;
}
