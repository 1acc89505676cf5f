/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "agent/link/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pod/base/io.h"
#include "pod/base/util.h"

/*
 * A repeated empty submessage costs two bytes on the wire and ~60 in memory, so the unpacker gets
 * an allocator with a budget: the frame's size times this, plus some for the small ones.
 */
#define UNPACK_FACTOR 8
#define UNPACK_SLACK (64u << 10)

static void *budget_alloc(void *data, size_t size)
{
	size_t *left = data;

	if (size > *left)
		return NULL;
	*left -= size;
	return malloc(size ? size : 1);
}

static void budget_free(void *data, void *p)
{
	(void)data;
	free(p);
}

static void put_len(uint8_t *p, uint32_t len)
{
	p[0] = (uint8_t)len;
	p[1] = (uint8_t)(len >> 8);
	p[2] = (uint8_t)(len >> 16);
	p[3] = (uint8_t)(len >> 24);
}

static uint32_t get_len(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int link_pack(const Pm__Envelope *env, uint8_t **frame, size_t *len, struct err *e)
{
	size_t n = pm__envelope__get_packed_size(env);
	uint8_t *p;

	if (n > LINK_FRAME_MAX)
		return err_set(e, EMSGSIZE, "message %s has %zu bytes, more than a frame holds",
			       link_body_name(env->body_case), n);
	p = malloc(LINK_HEADER + n);
	if (!p)
		return err_num(e, ENOMEM, "message of %zu bytes", n);
	put_len(p, (uint32_t)n);
	pm__envelope__pack(env, p + LINK_HEADER);
	*frame = p;
	*len = LINK_HEADER + n;
	return 0;
}

Pm__Envelope *link_unpack(const uint8_t *data, size_t len, struct err *e)
{
	size_t left = len * UNPACK_FACTOR + UNPACK_SLACK;
	ProtobufCAllocator alloc = { budget_alloc, budget_free, &left };
	Pm__Envelope *env;

	if (len > LINK_FRAME_MAX) {
		err_set(e, EPROTO, "a frame of %zu bytes is too large", len);
		return NULL;
	}
	env = pm__envelope__unpack(&alloc, len, data);
	if (!env)
		err_set(e, EPROTO, "a frame of %zu bytes is not a message", len);
	return env;
}

void link_free(Pm__Envelope *env)
{
	if (env)
		pm__envelope__free_unpacked(env, NULL);
}

int link_send(int fd, const Pm__Envelope *env, uint64_t deadline, struct err *e)
{
	autofree uint8_t *frame = NULL;
	size_t len;
	int r;

	r = link_pack(env, &frame, &len, e);
	if (r < 0)
		return r;
	r = io_write_full(fd, frame, len, deadline, e);
	if (r < 0)
		return err_wrap(e, "send %s", link_body_name(env->body_case));
	return 0;
}

int link_recv(int fd, Pm__Envelope **out, uint64_t deadline, struct err *e)
{
	autofree uint8_t *data = NULL;
	uint8_t header[LINK_HEADER];
	Pm__Envelope *env;
	uint32_t len;
	int r;

	r = io_read_full(fd, header, sizeof(header), deadline, e);
	if (r < 0)
		return r;
	len = get_len(header);
	if (len > LINK_FRAME_MAX)
		return err_set(e, EPROTO, "a frame of %u bytes is too large", len);
	data = malloc(len ? len : 1);
	if (!data)
		return err_num(e, ENOMEM, "frame of %u bytes", len);
	r = io_read_full(fd, data, len, deadline, e);
	if (r < 0)
		return r;
	env = link_unpack(data, len, e);
	if (!env)
		return -EPROTO;
	*out = env;
	return 0;
}

int link_hello_check(const Pm__Envelope *env, struct err *e)
{
	const Pm__Hello *h;

	if (env->body_case == PM__ENVELOPE__BODY_ERROR && env->error)
		return err_set(e, EPROTO, "%s", env->error->cause);
	if (env->body_case != PM__ENVELOPE__BODY_HELLO || !env->hello)
		return err_set(e, EPROTO, "the other end said %s where hello was due",
			       link_body_name(env->body_case));
	h = env->hello;
	if (h->version < LINK_MIN_VERSION || h->min_version > LINK_VERSION)
		return err_set(e, EPROTONOSUPPORT,
			       "the %s (build %s) speaks protocol %u to %u, this program %d to %d",
			       h->role, h->build, h->min_version, h->version, LINK_MIN_VERSION,
			       LINK_VERSION);
	return 0;
}

int link_hello(int fd, const char *role, const char *name, Pm__Envelope **theirs,
	       uint64_t deadline, struct err *e)
{
	char build[] = LINK_BUILD;
	Pm__Envelope *got = NULL;
	int r;

	LINK_ENVELOPE(env, hello, HELLO, Pm__Hello, pm__hello__init);
	env_body.version = LINK_VERSION;
	env_body.min_version = LINK_MIN_VERSION;
	env_body.role = (char *)(uintptr_t)role;
	env_body.name = (char *)(uintptr_t)(name ? name : "");
	env_body.build = build;
	r = link_send(fd, &env, deadline, e);
	if (r == 0)
		r = link_recv(fd, &got, deadline, e);
	if (r == 0)
		r = link_hello_check(got, e);
	if (r == 0 && theirs)
		*theirs = take_ptr(&got);
	link_free(got);
	return r;
}

const char *link_body_name(Pm__Envelope__BodyCase body)
{
	const ProtobufCFieldDescriptor *f = NULL;

	if (body)
		f = protobuf_c_message_descriptor_get_field(&pm__envelope__descriptor, body);
	return f ? f->name : "nothing";
}
