/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/link/frame.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <sys/socket.h>

#include "agent/link/conn.h"
#include "agent/link/message.h"
#include "pod/base/io.h"
#include "tests/harness.h"

static void pair(int sv[2])
{
	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
}

static void test_round_trip(void)
{
	char op[] = "m1-00000000";
	Pm__Envelope *got = NULL;
	struct err e = { 0 };
	int sv[2];

	pair(sv);
	LINK_ENVELOPE(env, op_commit, OP_COMMIT, Pm__OpCommit, pm__op_commit__init);
	env.id = 42;
	env_body.op = op;
	env_body.epoch = 7;
	T_OK(link_send(sv[0], &env, deadline_ms(60000), &e), &e);
	T_OK(link_recv(sv[1], &got, deadline_ms(60000), &e), &e);
	T_CHECK_EQ(got->id, 42);
	T_REQUIRE(got->body_case == PM__ENVELOPE__BODY_OP_COMMIT);
	T_CHECK_STR(got->op_commit->op, op);
	T_CHECK_EQ(got->op_commit->epoch, 7);
	link_free(got);
	close(sv[0]);
	T_FAILS(link_recv(sv[1], &got, deadline_ms(60000), &e), -EPIPE);
	close(sv[1]);
}

static void send_raw(const void *data, size_t len, int expect)
{
	Pm__Envelope *got = NULL;
	struct err e = { 0 };
	int sv[2];

	pair(sv);
	T_REQUIRE(write(sv[0], data, len) == (ssize_t)len);
	close(sv[0]);
	T_FAILS(link_recv(sv[1], &got, deadline_ms(60000), &e), expect);
	T_CHECK(!got);
	T_CHECK(e.msg[0]);
	close(sv[1]);
}

static void test_hostile(void)
{
	static const uint8_t too_long[] = { 1, 0, 0, 1 };                /* 16 MiB + 1 */
	static const uint8_t huge[] = { 255, 255, 255, 255 };
	static const uint8_t cut_header[] = { 4, 0 };
	static const uint8_t cut_body[] = { 4, 0, 0, 0, 8, 1 };
	static const uint8_t garbage[] = { 4, 0, 0, 0, 255, 255, 255, 255 };
	static const uint8_t bad_inner[] = { 3, 0, 0, 0, 0x12, 0x7f, 0 }; /* hello longer than its frame */

	send_raw(too_long, sizeof(too_long), -EPROTO);
	send_raw(huge, sizeof(huge), -EPROTO);
	send_raw(cut_header, sizeof(cut_header), -EPIPE);
	send_raw(cut_body, sizeof(cut_body), -EPIPE);
	send_raw(garbage, sizeof(garbage), -EPROTO);
	send_raw(bad_inner, sizeof(bad_inner), -EPROTO);
}

/* Something of each type of field, with a message in a message. */
static size_t sample_frame(uint8_t *out, size_t max)
{
	char op[] = "m1-00000000", path[] = "/bin/true", name[] = "pod3", *argv[] = { path, op };
	Pm__PodSpec spec = PM__POD_SPEC__INIT;
	struct err e = { 0 };
	uint8_t *frame;
	size_t len;

	spec.name = name;
	spec.uid = 1000;
	spec.argv = argv;
	spec.n_argv = 2;
	LINK_ENVELOPE(env, agent_incoming, AGENT_INCOMING, Pm__AgentIncoming, pm__agent_incoming__init);
	env.id = 3;
	env_body.op = op;
	env_body.spec = &spec;
	env_body.epoch = 1ull << 40;
	env_body.token.data = (uint8_t *)path;
	env_body.token.len = 8;
	env_body.dry_run = true;
	T_OK(link_pack(&env, &frame, &len, &e), &e);
	T_REQUIRE(len <= max);
	memcpy(out, frame, len);
	free(frame);
	return len;
}

static void test_truncated(void)
{
	uint8_t frame[256];
	size_t len = sample_frame(frame, sizeof(frame)), i;

	for (i = 0; i < len; i++)
		send_raw(frame, i, -EPIPE);
}

/* Control frames carry no digest (each hop is a local socket): a changed one may be another message, but
 * it is a whole one or an error. */
static void test_flipped(void)
{
	uint8_t frame[256];
	size_t len = sample_frame(frame, sizeof(frame)), i, refused = 0;

	for (i = 0; i < len * 8; i++) {
		Pm__Envelope *got = NULL;
		struct err e = { 0 };
		uint8_t *again;
		size_t n;
		int sv[2], r;

		frame[i / 8] ^= (uint8_t)(1u << i % 8);
		pair(sv);
		T_REQUIRE(write(sv[0], frame, len) == (ssize_t)len);
		close(sv[0]);
		r = link_recv(sv[1], &got, deadline_ms(60000), &e);
		close(sv[1]);
		frame[i / 8] ^= (uint8_t)(1u << i % 8);
		if (r < 0) {
			if (got || !e.msg[0] || (r != -EPROTO && r != -EPIPE))
				T_FATAL("bit %zu of byte %zu: %d '%s'", i % 8, i / 8, r, e.msg);
			refused++;
			continue;
		}
		T_REQUIRE(got);
		T_OK(link_pack(got, &again, &n, &e), &e);
		free(again);
		link_free(got);
	}
	/* each bit of the length at the least */
	T_CHECK(refused >= 32);
}

/* A pods_rep of a million empty pods: two bytes each on the wire, far more in memory. */
static void test_amplification(void)
{
	size_t n = 1000000, len = 0;
	uint8_t *frame = malloc(2 * n + 16);
	struct err e = { 0 };

	T_REQUIRE(frame);
	frame[len++] = 0x6a; /* field 13, pods_rep */
	for (size_t v = 2 * n; v; v >>= 7)
		frame[len++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
	for (size_t i = 0; i < n; i++) {
		frame[len++] = 0x0a;
		frame[len++] = 0;
	}
	T_CHECK(!link_unpack(frame, len, &e));
	T_CHECK_EQ(e.code, -EPROTO);
	free(frame);
}

static void hello_with(uint32_t version, uint32_t min, int expect)
{
	char role[] = "client", empty[] = "";
	struct err e = { 0 };

	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = version;
	env_body.min_version = min;
	env_body.role = role;
	env_body.build = empty;
	T_CHECK_EQ(link_hello_check(&env, &e), expect);
}

static void test_hello(void)
{
	hello_with(LINK_VERSION, LINK_MIN_VERSION, 0);
	hello_with(LINK_VERSION + 5, LINK_VERSION, 0);
	hello_with(LINK_VERSION + 5, LINK_VERSION + 1, -EPROTONOSUPPORT);
	hello_with(LINK_MIN_VERSION - 1, 0, -EPROTONOSUPPORT);
	LINK_ENVELOPE(env, ok, OK, Pm__Ok, pm__ok__init);
	T_FAILS(link_hello_check(&env, NULL), -EPROTO);
}

static void test_hops(void)
{
	/* nobody may say anything before hello, and a client never what decides over a pod */
	for (int b = 1; b < 80; b++)
		T_CHECK_EQ(link_allowed(HOP_GREETING, (Pm__Envelope__BodyCase)b),
			   b == PM__ENVELOPE__BODY_HELLO || b == PM__ENVELOPE__BODY_ERROR);
	for (int b = PM__ENVELOPE__BODY_AGENT_RUN; b < 80; b++)
		T_CHECK(!link_allowed(HOP_FROM_CLIENT, (Pm__Envelope__BodyCase)b));
	T_CHECK(link_allowed(HOP_FROM_CLIENT, PM__ENVELOPE__BODY_MIGRATE_REQ));
	T_CHECK(!link_allowed(HOP_FROM_PODINIT, PM__ENVELOPE__BODY_AGENT_PODS));
	T_CHECK(!link_allowed(HOP_FROM_ENGINE, PM__ENVELOPE__BODY_OP_READY));
	T_CHECK_STR(link_body_name(PM__ENVELOPE__BODY_OP_COMMIT), "op_commit");
	T_CHECK_STR(link_body_name((Pm__Envelope__BodyCase)9999), "nothing");
}

/* ---- conn: messages in pieces, one that is not allowed, more than the socket holds */

struct seen {
	struct event_base *base;
	unsigned messages, closed;
	int code;
};

static void on_message(struct conn *c, const Pm__Envelope *env, void *arg)
{
	struct seen *s = arg;

	(void)c;
	(void)env;
	s->messages++;
}

static void on_closed(struct conn *c, const struct err *e, void *arg)
{
	struct seen *s = arg;

	(void)c;
	s->closed++;
	s->code = e->code;
	event_base_loopbreak(s->base);
}

static const struct conn_ops ops = { on_message, on_closed, NULL };

static void test_conn(void)
{
	struct seen s = { .base = event_base_new() };
	uint8_t *frame;
	struct conn *c;
	size_t len;
	int sv[2];

	pair(sv);
	c = conn_new(s.base, sv[0], HOP_FROM_COORD, &ops, &s);
	T_REQUIRE(c);
	LINK_ENVELOPE(env, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	env.id = 5;
	T_REQUIRE(link_pack(&env, &frame, &len, NULL) == 0);
	for (size_t i = 0; i < len; i++) { /* byte by byte: a message is seen when it is whole */
		T_CHECK_EQ(s.messages, 0);
		T_REQUIRE(write(sv[1], frame + i, 1) == 1);
		event_base_loop(s.base, EVLOOP_NONBLOCK);
	}
	T_CHECK_EQ(s.messages, 1);
	free(frame);
	LINK_ENVELOPE(bad, engine_start, ENGINE_START, Pm__EngineStart, pm__engine_start__init);
	T_OK(link_send(sv[1], &bad, deadline_ms(60000), NULL), NULL);
	event_base_loop(s.base, EVLOOP_ONCE);
	T_CHECK_EQ(s.closed, 1);
	T_CHECK_EQ(s.code, -EPROTO);
	T_CHECK_EQ(s.messages, 1);
	T_CHECK(conn_send(c, &env) < 0);
	conn_free(c);
	close(sv[1]);
	event_base_free(s.base);
}

static void *read_fifty(void *arg)
{
	int fd = *(int *)arg;
	uintptr_t n = 0;
	Pm__Envelope *got = NULL;

	while (link_recv(fd, &got, deadline_ms(60000), NULL) == 0) {
		n += got->id == n;
		link_free(got);
	}
	return (void *)n;
}

static void test_conn_queue(void)
{
	struct seen s = { .base = event_base_new() };
	static uint8_t data[100000];
	pthread_t reader;
	struct conn *c;
	void *n;
	int sv[2];

	pair(sv);
	c = conn_new(s.base, sv[0], HOP_FROM_COORD, &ops, &s);
	T_REQUIRE(c);
	LINK_ENVELOPE(env, console, CONSOLE, Pm__Console, pm__console__init);
	env_body.data.data = data;
	env_body.data.len = sizeof(data);
	for (unsigned i = 0; i < 50; i++) {
		env.id = i;
		T_REQUIRE(conn_send(c, &env) == 0);
	}
	T_CHECK(conn_queued(c) > 0);
	conn_finish(c); /* sends the rest, then goes */
	T_REQUIRE(pthread_create(&reader, NULL, read_fifty, &sv[1]) == 0);
	event_base_dispatch(s.base); /* until the connection, its only event, is gone */
	T_REQUIRE(pthread_join(reader, &n) == 0);
	T_CHECK_EQ((uintptr_t)n, 50);
	T_CHECK_EQ(s.closed, 0);
	close(sv[1]);
	event_base_free(s.base);
}

static const struct test_case cases[] = {
	{ "round_trip", test_round_trip }, { "hostile", test_hostile },
	{ "truncated", test_truncated },   { "flipped", test_flipped },
	{ "amplification", test_amplification }, { "hello", test_hello },
	{ "hops", test_hops },		   { "conn", test_conn },
	{ "conn_queue", test_conn_queue },
};
const struct test_suite link_suite = { "link", cases, ARRAY_SIZE(cases) };
