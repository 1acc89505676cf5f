/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/link/conn.h"

#include <errno.h>
#include <event2/buffer.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "pod/base/log.h"
#include "pod/base/util.h"

struct conn {
	struct event_base *base;
	struct event *rd, *wr;
	struct evbuffer *in, *out;
	const struct conn_ops *ops;
	void *arg;
	enum link_hop hop;
	int fd;
	bool reading, closed, freed, finishing;
	unsigned busy; /* we are below one of our callbacks: free later */
	const uint8_t *frame;
	size_t frame_len;
	struct event *linger;
	struct err why;
	struct event *tell; /* tells the owner of a failed send from the loop, never from conn_send() */
};

static void conn_destroy(struct conn *c)
{
	struct event *events[] = { c->rd, c->wr, c->linger, c->tell };

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (events[i])
			event_free(events[i]);
	if (c->in)
		evbuffer_free(c->in);
	if (c->out)
		evbuffer_free(c->out);
	close_fdp(&c->fd);
	free(c);
}

static void enter(struct conn *c)
{
	c->busy++;
}

static void leave(struct conn *c)
{
	if (--c->busy == 0 && c->freed)
		conn_destroy(c);
}

void conn_free(struct conn *c)
{
	if (!c)
		return;
	c->freed = true;
	c->closed = true;
	if (!c->busy)
		conn_destroy(c);
}

/* The end of the connection; the owner hears of it once. */
static void conn_end(struct conn *c, const struct err *e)
{
	if (c->closed)
		return;
	c->closed = true;
	event_del(c->rd);
	event_del(c->wr);
	if (c->finishing)
		conn_free(c);
	else
		c->ops->closed(c, e, c->arg);
}

/* One message from the buffer. 1: there was one; 0: not yet a whole one; negative: protocol error. */
static int take_message(struct conn *c, struct err *e)
{
	uint8_t head[LINK_HEADER], *p;
	Pm__Envelope *env;
	uint32_t len;

	if (evbuffer_copyout(c->in, head, sizeof(head)) < (ssize_t)sizeof(head))
		return 0;
	len = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
	if (len > LINK_FRAME_MAX)
		return err_set(e, EPROTO, "a frame of %u bytes is too large", len);
	if (evbuffer_get_length(c->in) < LINK_HEADER + len)
		return 0;
	p = evbuffer_pullup(c->in, (ssize_t)(LINK_HEADER + len));
	if (!p)
		return err_num(e, ENOMEM, "frame of %u bytes", len);
	env = link_unpack(p + LINK_HEADER, len, e);
	if (!env)
		return -EPROTO;
	if (!link_allowed(c->hop, env->body_case)) {
		err_set(e, EPROTO, "message '%s' is not allowed here",
			link_body_name(env->body_case));
		link_free(env);
		return -EPROTO;
	}
	c->frame = p;
	c->frame_len = LINK_HEADER + len;
	c->ops->message(c, env, c->arg);
	link_free(env);
	c->frame = NULL;
	if (!c->freed)
		evbuffer_drain(c->in, c->frame_len);
	return 1;
}

static void process(struct conn *c)
{
	struct err e = { 0 };
	int r = 1;

	enter(c);
	while (!c->closed && c->reading && r > 0) {
		r = take_message(c, &e);
		if (r < 0)
			conn_end(c, &e);
	}
	leave(c);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct err e = { 0 };
	int n;

	(void)what;
	enter(c);
	n = evbuffer_read(c->in, fd, 256 << 10);
	if (n > 0 && c->finishing) {
		evbuffer_drain(c->in, evbuffer_get_length(c->in));
	} else if (n > 0) {
		process(c);
	} else if (n == 0) {
		conn_end(c, &e);
	} else if (errno != EAGAIN && errno != EINTR) {
		err_sys(&e, "read");
		conn_end(c, &e);
	}
	leave(c);
}

static int flush(struct conn *c)
{
	while (evbuffer_get_length(c->out)) {
		int n = evbuffer_write(c->out, c->fd);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			event_add(c->wr, NULL);
			return 0;
		}
		if (n < 0)
			return -errno;
	}
	return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;
	struct err e = { 0 };
	int r;

	(void)fd;
	(void)what;
	enter(c);
	r = flush(c);
	if (r < 0) {
		err_num(&e, r, "write");
		conn_end(c, &e);
	} else if (evbuffer_get_length(c->out) == 0) {
		if (c->finishing)
			conn_free(c);
		else if (c->ops->drained)
			c->ops->drained(c, c->arg);
	}
	leave(c);
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	(void)fd;
	(void)what;
	enter(c);
	if (c->why.code)
		conn_end(c, &c->why);
	else
		process(c); /* reading was enabled again */
	leave(c);
}

static void on_linger(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	conn_free(arg);
}

struct conn *conn_new(struct event_base *base, int fd, enum link_hop in, const struct conn_ops *ops,
		      void *arg)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return NULL;
	}
	c->fd = fd;
	c->base = base;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	c->in = evbuffer_new();
	c->out = evbuffer_new();
	c->rd = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, c);
	c->wr = event_new(base, fd, EV_WRITE, on_writable, c);
	c->linger = event_new(base, -1, 0, on_linger, c);
	c->tell = event_new(base, -1, 0, on_tell, c);
	if (!c->in || !c->out || !c->rd || !c->wr || !c->linger || !c->tell) {
		conn_destroy(c);
		return NULL;
	}
	conn_set(c, in, ops, arg);
	c->reading = true;
	event_add(c->rd, NULL);
	return c;
}

void conn_set(struct conn *c, enum link_hop in, const struct conn_ops *ops, void *arg)
{
	c->hop = in;
	c->ops = ops;
	c->arg = arg;
}

int conn_fd(const struct conn *c)
{
	return c->fd;
}

static void fail_later(struct conn *c, int r)
{
	err_num(&c->why, r, "write");
	event_active(c->tell, EV_TIMEOUT, 0);
}

int conn_send_frame(struct conn *c, const uint8_t *frame, size_t len)
{
	ssize_t n = 0;

	if (c->closed || c->why.code)
		return -EPIPE;
	if (evbuffer_get_length(c->out) == 0) {
		do {
			n = send(c->fd, frame, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN) {
			n = -errno;
			fail_later(c, (int)n);
			return (int)n;
		}
		if (n < 0)
			n = 0;
	}
	if ((size_t)n == len)
		return 0;
	if (evbuffer_add(c->out, frame + n, len - (size_t)n) < 0) {
		fail_later(c, -ENOMEM);
		return -ENOMEM;
	}
	event_add(c->wr, NULL);
	return 0;
}

int conn_send(struct conn *c, const Pm__Envelope *env)
{
	autofree uint8_t *frame = NULL;
	struct err e;
	size_t len;
	int r;

	r = link_pack(env, &frame, &len, &e);
	if (r < 0) {
		log_error("%s", e.msg);
		return r;
	}
	return conn_send_frame(c, frame, len);
}

void conn_finish(struct conn *c)
{
	struct timeval tv = { .tv_sec = 5 };

	if (!c)
		return;
	if (c->closed || c->why.code || evbuffer_get_length(c->out) == 0) {
		conn_free(c);
		return;
	}
	c->finishing = true;
	if (!c->reading) {
		c->reading = true;
		event_add(c->rd, NULL);
	}
	event_add(c->linger, &tv);
}

void conn_current(const struct conn *c, const uint8_t **frame, size_t *len)
{
	*frame = c->frame;
	*len = c->frame_len;
}

void conn_read_enable(struct conn *c, bool on)
{
	if (c->closed || c->reading == on)
		return;
	c->reading = on;
	if (on) {
		event_add(c->rd, NULL);
		event_active(c->tell, EV_TIMEOUT, 0);
	} else {
		event_del(c->rd);
	}
}

void conn_drain(struct conn *c)
{
	struct err e = { 0 };

	enter(c);
	while (!c->closed && evbuffer_read(c->in, c->fd, 256 << 10) > 0)
		process(c);
	conn_end(c, &e);
	leave(c);
}

size_t conn_queued(const struct conn *c)
{
	return evbuffer_get_length(c->out);
}
