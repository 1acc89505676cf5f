/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http_check [-c PARALLEL] [-t SECONDS] [-n REQUESTS] [-k PER_CONNECTION] [-w THINK_US]
 *            -f FILE HOST PORT PATH
 *
 * Opens new connections to a web server all the time, PARALLEL at once, asks for PATH PER_CONNECTION
 * times on each (1), and checks that every answer is 200 with exactly the bytes of FILE. Counts
 * connections that were refused, that were reset, and other errors; all of them are errors.
 *
 * "stall" is the longest time from connect() or from a request to the end of its answer.
 */
#include <strings.h>
#include <sys/stat.h>

#include "tests/clients/client.h"

#define MAX_SLOTS 256
#define MAX_HEAD 8192

struct slot {
	int fd; /* -1: idle until .next */
	bool connected, in_body;
	uint64_t begun, next, asked;
	size_t out_done, head_len, body_len;
	char head[MAX_HEAD + 1];
};

struct totals {
	uint64_t requests, errors, refused, reset, stall, limit, think, per_conn, connections;
	struct sockaddr_in sa;
	char request[2][1024]; /* that keeps the connection, that ends it */
	char *body;
	size_t body_len;
};

static void slot_close(struct slot *s, const struct totals *t)
{
	close(s->fd);
	s->fd = -1;
	s->next = cl_now() + t->think;
}

static void fault(struct totals *t, struct slot *s, int err, const char *what)
{
	if (err == ECONNREFUSED)
		t->refused++;
	if (err == ECONNRESET || err == EPIPE)
		t->reset++;
	if (t->errors++ < 20)
		fprintf(stderr, "http_check: %s%s%s (after %.1f ms, %zu bytes of the body)\n", what,
			err ? ": " : "", err ? strerror(err) : "", (double)(cl_now() - s->begun) / 1e6,
			s->body_len);
	slot_close(s, t);
}

static void slot_ask(struct slot *s)
{
	s->out_done = s->head_len = s->body_len = 0;
	s->in_body = false;
}

static void slot_open(struct slot *s, struct totals *t)
{
	s->fd = cl_socket();
	s->begun = cl_now();
	s->connected = false;
	s->asked = 0;
	slot_ask(s);
	t->connections++;
	if (connect(s->fd, (struct sockaddr *)&t->sa, sizeof(t->sa)) < 0 && errno != EINPROGRESS)
		fault(t, s, errno, "connect");
}

static bool slot_push(struct slot *s, struct totals *t)
{
	const char *req = t->request[s->asked + 1 >= t->per_conn];
	size_t len = strlen(req);
	socklen_t elen = sizeof(int);
	int err = 0;
	ssize_t n;

	if (!s->connected) {
		getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &elen);
		if (err) {
			fault(t, s, err, "connect");
			return false;
		}
		s->connected = true;
	}
	n = send(s->fd, req + s->out_done, len - s->out_done, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		fault(t, s, errno, "send");
		return false;
	}
	s->out_done += n > 0 ? (size_t)n : 0;
	return true;
}

/* NULL, or what is wrong with the complete head */
static const char *check_head(const struct slot *s, const struct totals *t)
{
	static const char field[] = "\r\nContent-Length:";
	const char *p;

	if (strncmp(s->head, "HTTP/1.1 200 ", 13) != 0)
		return "not 200";
	p = strcasestr(s->head, field);
	if (!p || strtoull(p + sizeof(field) - 1, NULL, 10) != t->body_len)
		return "wrong Content-Length";
	return NULL;
}

static const char *take(struct slot *s, struct totals *t, const char *p, size_t n)
{
	const char *bad;
	char *end;
	size_t k, old = s->head_len;

	if (!s->in_body) {
		k = n < MAX_HEAD - old ? n : MAX_HEAD - old;
		memcpy(s->head + old, p, k);
		s->head[old + k] = '\0';
		end = strstr(s->head, "\r\n\r\n");
		if (!end) {
			s->head_len += k;
			return s->head_len == MAX_HEAD ? "an endless head" : NULL;
		}
		bad = check_head(s, t);
		if (bad)
			return bad;
		s->in_body = true;
		k = (size_t)(end + 4 - s->head) - old;
		p += k;
		n -= k;
	}
	if (n > t->body_len - s->body_len)
		return "too many bytes";
	if (memcmp(t->body + s->body_len, p, n) != 0)
		return "a wrong byte";
	s->body_len += n;
	return NULL;
}

static void slot_pull(struct slot *s, struct totals *t)
{
	static char buf[65536];
	const char *bad;
	uint64_t took;
	ssize_t n = recv(s->fd, buf, sizeof(buf), 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		fault(t, s, n ? errno : 0, n ? "recv" : "closed before the answer's end");
		return;
	}
	bad = take(s, t, buf, (size_t)n);
	if (bad) {
		fault(t, s, 0, bad);
		return;
	}
	if (!s->in_body || s->body_len < t->body_len)
		return;
	took = cl_now() - s->begun;
	if (took > t->stall)
		t->stall = took;
	t->requests++;
	if (++s->asked >= t->per_conn) {
		slot_close(s, t);
		return;
	}
	slot_ask(s);
	s->begun = cl_now();
}

static void serve(struct slot *slots, int n, struct totals *t, uint64_t end)
{
	struct pollfd p[MAX_SLOTS];
	bool stopping = false;
	uint64_t now;
	int i, busy = 0;

	while (!stopping || busy) {
		uint64_t wake = 100 * MSEC;
		struct timespec ts;

		now = cl_now();
		stopping = stopping || cl_stop || now > end || (t->limit && t->requests >= t->limit);
		busy = 0;
		for (i = 0; i < n; i++) {
			struct slot *s = &slots[i];

			if (s->fd < 0 && s->next <= now && !stopping)
				slot_open(s, t);
			if (s->fd < 0 && s->next > now && s->next - now < wake)
				wake = s->next - now;
			if (s->fd >= 0 && now > s->begun && now - s->begun > ANSWER_NS)
				fault(t, s, 0, "no answer");
			p[i].fd = s->fd;
			p[i].events = POLLIN;
			if (s->fd >= 0 && (!s->connected ||
					   s->out_done < strlen(t->request[s->asked + 1 >= t->per_conn])))
				p[i].events = POLLOUT;
			busy += s->fd >= 0;
		}
		ts = (struct timespec){0, (long)wake};
		if (ppoll(p, (nfds_t)n, &ts, NULL) <= 0)
			continue;
		for (i = 0; i < n; i++) {
			if (slots[i].fd < 0 || !p[i].revents)
				continue;
			if ((p[i].events & POLLOUT) && !slot_push(&slots[i], t))
				continue;
			if (p[i].events & POLLIN)
				slot_pull(&slots[i], t);
		}
	}
}

static void load_body(struct totals *t, const char *path)
{
	struct stat st;
	FILE *f = fopen(path, "re");

	if (!f || fstat(fileno(f), &st) < 0)
		cl_die("'%s': %s", path, strerror(errno));
	t->body_len = (size_t)st.st_size;
	t->body = malloc(t->body_len + 1);
	if (!t->body || fread(t->body, 1, t->body_len, f) != t->body_len)
		cl_die("'%s': cannot be read", path);
	fclose(f);
}

int main(int argc, char **argv)
{
	static struct slot slots[MAX_SLOTS];
	struct totals t = {.per_conn = 1};
	uint64_t start, end = UINT64_MAX;
	const char *file = NULL;
	int opt, i, n = 4;

	cl_init();
	while ((opt = getopt(argc, argv, "c:t:n:k:w:f:")) != -1) {
		switch (opt) {
		case 'c': n = atoi(optarg); break;
		case 't': end = strtoull(optarg, NULL, 10) * SEC; break;
		case 'n': t.limit = strtoull(optarg, NULL, 10); break;
		case 'k': t.per_conn = strtoull(optarg, NULL, 10); break;
		case 'w': t.think = strtoull(optarg, NULL, 10) * 1000; break;
		case 'f': file = optarg; break;
		default: return 2;
		}
	}
	if (argc - optind != 3 || !file || n < 1 || n > MAX_SLOTS || !t.per_conn)
		cl_die("usage: http_check [-c N] [-t SECONDS] [-n N] [-k N] [-w US] -f FILE HOST PORT PATH");
	t.sa = cl_addr(argv[optind], argv[optind + 1]);
	load_body(&t, file);
	for (i = 0; i < 2; i++)
		if (snprintf(t.request[i], sizeof(t.request[i]), "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n",
			     argv[optind + 2], argv[optind], i ? "Connection: close\r\n" : "") >=
		    (int)sizeof(t.request[i]))
			cl_die("the path is too long");
	for (i = 0; i < n; i++)
		slots[i].fd = -1;
	close(cl_connect(&t.sa, 60)); /* somebody listens */
	printf("ready\n");
	start = cl_now();
	serve(slots, n, &t, end == UINT64_MAX ? end : start + end);
	printf("{\"requests\": %llu, \"errors\": %llu, \"longest_stall_ms\": %.3f, \"connections\": %llu, "
	       "\"refused\": %llu, \"reset\": %llu, \"seconds\": %.3f}\n",
	       (unsigned long long)t.requests, (unsigned long long)t.errors, (double)t.stall / 1e6,
	       (unsigned long long)t.connections, (unsigned long long)t.refused, (unsigned long long)t.reset,
	       (double)(cl_now() - start) / 1e9);
	return t.requests && !t.errors ? 0 : 1;
}
