/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Records on a stream: what two engines say to each other, and what an image file holds.
 *   {u32 magic, u32 len, u16 type, u16 version, u32 id, u64 xxh3} + payload
 * all little-endian; xxh3 is that of the payload, seeded with the xxh3 of the header before it. Page
 * frames (pod/mem/mem.h), which have a magic of their own, stand between records. A record is refused
 * before it is read if its length is over the cap of its type.
 */
#ifndef POD_IMAGE_STREAM_H
#define POD_IMAGE_STREAM_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "pod/base/err.h"

/* Types of objects that are not open files: what mappings and file trees refer to. */
enum { OBJ_MAPFILE = 1001, OBJ_CONTENT = 1002 };
/* In the id of a page frame: it belongs to a content, not to a process. */
#define CONTENT_FRAME 0x80000000u
enum content_source { CONTENT_MEMFD = 1, CONTENT_SHMEM = 2, CONTENT_UNLINKED = 3, CONTENT_TMPFS = 4, CONTENT_SYSV = 5 };

enum rec_type {
	REC_GREETING = 1, REC_NEEDS, REC_MISSING, REC_VERDICT, REC_OBJECTS, REC_TMPFS, REC_TREE,
	REC_CUT_END, REC_HELD, REC_HELD_END, REC_CLOCK, REC_FINAL, REC_SOON,
	REC_HEAD, REC_INDEX, REC_END, /* of image files alone: image.h */
	REC_LOCKS, /* the source has let go of its file locks */
	REC_HASHES,
	REC_LOG, /* of image files: what the pod has printed */
	REC_MAX
};

/* The longest frame that hold_take() gives. */
#define STREAM_HELD_MAX 65624u

struct stream {
	int fd;		 /* borrowed */
	uint64_t sent, received; /* bytes */
	uint64_t deadline;	 /* of each call, absolute; IO_FOREVER: none */
	bool file; /* an image, not a peer: nobody answers */
	int cancel; /* borrowed: ends a wait for a record with -ECANCELED when it is readable; 0: none */
};

/** One record as read: payload is malloc'ed and the caller's to free. */
struct record {
	enum rec_type type;
	uint32_t id;
	uint8_t *payload;
	size_t len;
};

int stream_send(struct stream *, enum rec_type type, uint32_t id, const void *payload, size_t len, struct err *e);
/** Packs @msg and sends it. */
int stream_send_msg(struct stream *, enum rec_type type, uint32_t id, const ProtobufCMessage *msg, struct err *e);
/** Reads one record whole, its digest checked. -EBADMSG for anything that is not one. */
int stream_recv(struct stream *, struct record *out, struct err *e);
/** Unpacks by @desc with an allocator that is capped; NULL and *e on failure. Free by protobuf_c_message_free_unpacked(m, NULL). */
ProtobufCMessage *record_unpack(const struct record *, const ProtobufCMessageDescriptor *desc, struct err *e);
/** Reads a record of @type or fails; a REC_VERDICT that says no is turned into its error. */
int stream_expect(struct stream *, enum rec_type type, struct record *out, struct err *e);
/** Waits for what comes next on a socket: 1 a page frame, 0 a record (or the end, which stream_recv() names). */
int stream_next_is_pages(struct stream *, struct err *e);
void record_done(struct record *);
/** The 24 bytes of a record's header: what it is, and how long its payload. -EBADMSG: not a record. */
int stream_parse_header(const void *header, uint16_t *type, uint32_t *len, struct err *e);

#endif
