/* SPDX-License-Identifier: GPL-3.0-or-later */
/* After READY a source that means ill, or stands still in the middle of a frame, holds up nobody. */
#include <errno.h>
#include <sys/socket.h>

#include "pod/base/io.h"
#include "pod/restore.h"
#include "tests/harness.h"

static void begin(struct restore *r, struct stream *src)
{
	int sv[2];

	T_REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	*src = (struct stream){ .fd = sv[0], .deadline = deadline_ms(60000) };
	/* as the engine has it all along */
	*r = (struct restore){ .s = { .fd = sv[1], .deadline = deadline_ms(3600000) } };
}

static void end(struct restore *r, struct stream *src)
{
	size_t i;

	for (i = 0; i < r->nheld; i++)
		free(r->held[i]);
	free(r->held);
	close_fdp(&r->s.fd);
	close_fdp(&src->fd);
}

static void test_frames(void)
{
	struct restore r;
	struct stream src;
	struct record rec;
	struct err e = { 0 };

	begin(&r, &src);
	T_OK(stream_send(&src, REC_HELD, 0, "frame", 5, &e), &e);
	T_OK(stream_send(&src, REC_HELD_END, 0, NULL, 0, &e), &e);
	T_CHECK_EQ(held_take(&r, &rec), 1);
	T_CHECK_EQ(rec.len, 5);
	T_CHECK_EQ(held_keep(&r, &rec), 0);
	record_done(&rec);
	T_CHECK_EQ(r.nheld, 1);
	T_CHECK_EQ(held_take(&r, &rec), 0);
	T_CHECK(r.s.fd >= 0);
	end(&r, &src);
}

static void test_half_a_frame(void)
{
	struct restore r;
	struct stream src;
	struct record rec;
	struct err e = { 0 };
	uint8_t bytes[64];
	uint64_t before;
	ssize_t n;

	begin(&r, &src);
	T_OK(stream_send(&src, REC_HELD, 0, "frame", 5, &e), &e);
	n = read(r.s.fd, bytes, sizeof(bytes));
	T_REQUIRE(n > 5);
	T_REQUIRE(write(src.fd, bytes, (size_t)n - 1) == n - 1);
	before = now_ns();
	T_CHECK_EQ(held_take(&r, &rec), -ETIMEDOUT);
	T_CHECK(now_ns() - before < 60 * NSEC_PER_SEC); /* not for the hour that the stream may take */
	T_CHECK(r.s.fd < 0);
	end(&r, &src);
}

static void test_not_a_frame(void)
{
	struct restore r;
	struct stream src;
	struct record rec;
	struct err e = { 0 };

	begin(&r, &src);
	T_OK(stream_send(&src, REC_SOON, 0, NULL, 0, &e), &e);
	T_CHECK_EQ(held_take(&r, &rec), -EPROTO);
	T_CHECK(r.s.fd < 0);
	end(&r, &src);
	begin(&r, &src);
	T_OK(stream_send(&src, REC_VERDICT, 0, NULL, 0, &e), &e);
	T_CHECK_EQ(held_take(&r, &rec), -ECANCELED);
	T_CHECK(r.s.fd < 0);
	end(&r, &src);
}

static void test_too_much(void)
{
	static uint8_t frame[STREAM_HELD_MAX];
	struct record rec = { .type = REC_HELD, .payload = frame, .len = sizeof(frame) };
	struct restore r = { .s = { .fd = -1 } };
	struct stream src = { .fd = -1 };
	size_t i;

	for (i = 0; i < 2000; i++)
		T_CHECK_EQ(held_keep(&r, &rec), 0);
	T_CHECK(r.nheld > 900 && r.nheld <= (64u << 20) / STREAM_HELD_MAX);
	end(&r, &src);
}

static const struct test_case cases[] = {
	{ "frames", test_frames },
	{ "half_a_frame", test_half_a_frame },
	{ "not_a_frame", test_not_a_frame },
	{ "too_much", test_too_much },
};
const struct test_suite rheld_suite = { "rheld", cases, ARRAY_SIZE(cases) };
