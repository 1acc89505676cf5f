/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "pod/image/stream.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "image.pb-c.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define REC_MAGIC 0x31494d50u /* "PMI1" */
#define SMALL (1u << 20)
#define LARGE (256u << 20)
/* what a record may become when it is unpacked: a short message many times itself, a long one not */
#define UNPACK_FACTOR 24
#define UNPACK_MAX ((size_t)1 << 30)

struct header {
	uint32_t magic, len;
	uint16_t type, version;
	uint32_t id;
	uint64_t digest;
};
_Static_assert(sizeof(struct header) == 24, "the format of records");

#define REC_VERSION 1

/* Of the payload, seeded with the header: neither can be changed alone. */
static uint64_t digest_of(const struct header *h, const void *payload)
{
	uint64_t seed = XXH3_64bits(h, offsetof(struct header, digest));

	return XXH3_64bits_withSeed(payload, le32toh(h->len), seed);
}

/* The longest payload that a record of a type may have. */
static const uint32_t caps[REC_MAX] = {
	[REC_GREETING] = SMALL, [REC_NEEDS] = LARGE,   [REC_MISSING] = SMALL, [REC_VERDICT] = SMALL,
	[REC_OBJECTS] = LARGE,	[REC_TMPFS] = LARGE,   [REC_TREE] = LARGE,    
	[REC_CUT_END] = SMALL,	[REC_HELD] = STREAM_HELD_MAX, [REC_HELD_END] = 0,    [REC_CLOCK] = SMALL,
	[REC_FINAL] = LARGE,   [REC_SOON] = 0,	       [REC_HEAD] = SMALL,    [REC_INDEX] = 64u << 20,
	[REC_END] = 64,		[REC_LOCKS] = 0,	[REC_HASHES] = 16u << 20,
	[REC_LOG] = (256u << 10) + 64,
};

/* What a user can do something about. */
static const char *what_is_in(enum rec_type type)
{
	switch (type) {
	case REC_NEEDS:
		return "the list of files that it needs";
	case REC_OBJECTS:
		return "its open files and what is unread in them";
	case REC_TMPFS:
		return "the list of the files in its /tmp, /run and /dev/shm";
	case REC_TREE:
	case REC_FINAL:
		return "its processes and their mappings";
	default:
		return "a record";
	}
}

static int check_len(enum rec_type type, size_t len, struct err *e)
{
	if (len <= caps[type])
		return 0;
	return err_set(e, EMSGSIZE, "the pod is too large: %s (record %d) take %zu bytes, at most %u are carried",
		       what_is_in(type), (int)type, len, caps[type]);
}

int stream_send(struct stream *s, enum rec_type type, uint32_t id, const void *payload, size_t len,
		struct err *e)
{
	struct header h = { .magic = htole32(REC_MAGIC), .len = htole32((uint32_t)len),
			    .type = htole16((uint16_t)type), .version = htole16(REC_VERSION), .id = htole32(id) };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, len } };
	int r = check_len(type, len, e);

	if (r < 0)
		return r;
	h.digest = htole64(digest_of(&h, payload));
	r = io_writev_full(s->fd, iov, len ? 2 : 1, s->deadline, e);
	if (r >= 0)
		s->sent += sizeof(h) + len;
	return r;
}

int stream_send_msg(struct stream *s, enum rec_type type, uint32_t id, const ProtobufCMessage *msg,
		    struct err *e)
{
	size_t len = protobuf_c_message_get_packed_size(msg);
	autofree uint8_t *buf = NULL;
	int r = check_len(type, len, e);

	if (r < 0)
		return r;
	buf = malloc(len ? len : 1);
	if (!buf)
		return err_num(e, ENOMEM, "record %d", (int)type);
	protobuf_c_message_pack(msg, buf);
	return stream_send(s, type, id, buf, len, e);
}

/* A peer whose node is dead says nothing, not even that it ends: who waits for it must hear the agent. */
static int wait_next(struct stream *s, struct err *e)
{
	struct pollfd p[2] = { { .fd = s->fd, .events = POLLIN }, { .fd = s->cancel, .events = POLLIN } };
	int n;

	if (s->cancel <= 0 || s->file)
		return 0;
	n = io_poll(p, 2, s->deadline);
	if (n < 0)
		return err_num(e, -n, "poll");
	return p[1].revents && !p[0].revents ? err_set(e, ECANCELED, "aborted") : 0;
}

int stream_parse_header(const void *header, uint16_t *type, uint32_t *len, struct err *e)
{
	struct header h;

	memcpy(&h, header, sizeof(h));
	*type = le16toh(h.type);
	*len = le32toh(h.len);
	if (le32toh(h.magic) != REC_MAGIC || *type == 0 || *type >= REC_MAX)
		return err_set(e, EBADMSG, "not a record");
	if (*len > caps[*type])
		return err_set(e, EBADMSG, "record %u of %u bytes", *type, *len);
	if (le16toh(h.version) != REC_VERSION)
		return err_set(e, EBADMSG, "record %u of version %u: this program reads version %u", *type,
			       le16toh(h.version), REC_VERSION);
	return 0;
}

int stream_recv(struct stream *s, struct record *out, struct err *e)
{
	autofree uint8_t *buf = NULL;
	struct header h;
	uint16_t type;
	uint32_t len;
	int r = wait_next(s, e);

	if (r >= 0)
		r = io_read_full(s->fd, &h, sizeof(h), s->deadline, e);
	if (r >= 0)
		r = stream_parse_header(&h, &type, &len, e);
	if (r < 0)
		return r;
	buf = malloc(len ? len : 1);
	if (!buf)
		return err_num(e, ENOMEM, "record %u of %u bytes", type, len);
	r = io_read_full(s->fd, buf, len, s->deadline, e);
	if (r < 0)
		return r;
	if (le64toh(h.digest) != digest_of(&h, buf))
		return err_set(e, EBADMSG, "record %u is damaged", type);
	s->received += sizeof(h) + len;
	*out = (struct record){ .type = (enum rec_type)type, .id = le32toh(h.id), .len = len };
	out->payload = take_ptr(&buf);
	return 0;
}

/* What protobuf-c may allocate for one record: its own size many times over, but not without end. */
struct cap {
	size_t left;
};

static void *cap_alloc(void *data, size_t size)
{
	struct cap *c = data;

	if (size > c->left)
		return NULL;
	c->left -= size;
	return malloc(size);
}

static void cap_free(void *data, void *p)
{
	(void)data;
	free(p);
}

ProtobufCMessage *record_unpack(const struct record *rec, const ProtobufCMessageDescriptor *desc,
				struct err *e)
{
	struct cap c = { MIN(rec->len * UNPACK_FACTOR + SMALL, UNPACK_MAX) };
	ProtobufCAllocator a = { cap_alloc, cap_free, &c };
	ProtobufCMessage *m = protobuf_c_message_unpack(desc, &a, rec->len, rec->payload);

	if (!m)
		err_set(e, EBADMSG, "record %d: not a %s", (int)rec->type, desc->short_name);
	return m;
}

int stream_expect(struct stream *s, enum rec_type type, struct record *out, struct err *e)
{
	Pm__Verdict *v;
	int r = stream_recv(s, out, e);

	if (r < 0)
		return r;
	if (out->type == REC_VERDICT) {
		v = (Pm__Verdict *)record_unpack(out, &pm__verdict__descriptor, e);
		if (!v) {
			record_done(out);
			return -EBADMSG;
		}
		r = v->ok ? 0 : err_set(e, EREMOTEIO, "%s", v->cause);
		pm__verdict__free_unpacked(v, NULL);
		if (r < 0) {
			record_done(out);
			return r;
		}
	}
	if (out->type == type)
		return 0;
	r = err_set(e, EPROTO, "record %d where %d was due", (int)out->type, (int)type);
	record_done(out);
	return r;
}

/* Has the other side said its last? What it has said before may still be unread. */
static bool has_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

int stream_next_is_pages(struct stream *s, struct err *e)
{
	uint32_t magic = 0;

	if (s->file) {
		off_t at = lseek(s->fd, 0, SEEK_CUR);

		return at >= 0 && pread(s->fd, &magic, sizeof(magic), at) == sizeof(magic) &&
		       page_frame_is(le32toh(magic));
	}
	for (;;) {
		ssize_t n;
		bool ended;
		int r = wait_next(s, e);

		if (r >= 0)
			r = io_wait_readable(s->fd, s->deadline, e);
		if (r < 0)
			return r;
		ended = has_ended(s->fd); /* asked first, so that nothing can follow what is read now */
		n = recv(s->fd, &magic, sizeof(magic), MSG_PEEK);
		if (n == sizeof(magic))
			return page_frame_is(le32toh(magic));
		if (n == 0 || (n > 0 && ended))
			return 0;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return err_sys(e, "read");
		if (deadline_past(s->deadline))
			return err_set(e, ETIMEDOUT, "a record that does not go on");
		/* the rest of the four bytes is on its way */
		if (n > 0)
			sched_yield();
	}
}

void record_done(struct record *r)
{
	free(r->payload);
	r->payload = NULL;
}
