/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An image: what a source's engine says to a target's, kept in a file. From the beginning:
 *
 *	HEAD		what pod it is, when and where it was made
 *	GREETING ... CUT_END, page frames between them: the stream of a move, as it is
 *	LOG		what the pod had printed: the last of each stream, in pieces (pod/image_log.c)
 *	HASHES		the digest of each page that is stored here, in their order (dedup.h)
 *	INDEX		where each record and frame is: so that nobody reads pages to find the rest
 *	END		where INDEX is, and the digest of the whole: always the last bytes of the file
 *
 * Every record and every frame carries its own digest, END one over all of those: what names an image.
 * An image has no name before it is whole and on the disk; images are 0600 and their user's.
 */
#ifndef POD_IMAGE_IMAGE_H
#define POD_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "image.pb-c.h"
#include "pod/image/dedup.h"
#include "pod/image/stream.h"

#define IMAGE_VERSION 2u /* 2: frames that are compressed */
#define IMAGE_SUFFIX ".img"
#define PIN_SUFFIX ".pin" /* after the name of the image */
/* In image_entry.type: a page frame */
#define IMAGE_FRAME 0xffffu
#define IMAGE_FRAME_LZ4 0xfffeu /* one that is compressed */
#define FRAME_PAGES_MAX 64u
#define CHAIN_MAX 16 /* images that build on one another */

/* One of INDEX, little-endian */
struct image_entry {
	uint64_t off;	/* of its header */
	uint32_t len;	/* with its header */
	uint16_t type;	/* enum rec_type or IMAGE_FRAME */
	uint16_t pages;	/* that are stored in a frame: its last bytes */
};

static inline bool entry_is_frame(const struct image_entry *en)
{
	return en->type == IMAGE_FRAME || en->type == IMAGE_FRAME_LZ4;
}

/* In whose name files are opened and made. */
struct image_user {
	uid_t uid;
	gid_t gid;
	const uint32_t *groups;
	size_t ngroups;
};

/** Takes @u's file system rights for this thread, and gives them back with NULL. 0 or negative errno. */
int image_be_user(const struct image_user *u, struct err *e);

/* ---- writing */
struct image_file {
	int dir, fd;
	char name[256], temp[272]; /* temp: "" while it has no name at all */
	const struct image_user *user;
	bool replace, published, replaced; /* replaced: there was another of its name */
	bool pin; /* it is pinned (see below) from its first moment on */
};
/** A new file, without a name, in the directory of @path (absolute), as @u. @replace: one of that name may be there. */
int image_create(struct image_file *f, const char *path, const struct image_user *u, bool replace, struct err *e);
/** Adds HASHES. */
int image_hashes(struct image_file *f, uint64_t *size, const struct page_digest *, size_t n, struct err *e);
/** Adds INDEX and END to the @size bytes that were written; *@size grows, *@digest: the image's. */
int image_seal(struct image_file *f, uint64_t *size, uint64_t *digest, struct err *e);
/** To the disk, then its name. -EEXIST: there is one of that name by now. */
int image_publish(struct image_file *f, struct err *e);
/** Takes the name back, unless the file is not ours any more or has replaced another. */
void image_retract(struct image_file *f);
/** Closes; what was not published is gone. */
void image_done(struct image_file *f);

/* ---- reading */
struct image {
	int fd;			/* owned */
	uint64_t size, digest;
	struct image_entry *entry;
	size_t n;
	uint64_t npages;	/* stored here */
	uint64_t older;		/* in those that it builds on; UINT64_MAX: not known (no chain_open()) */
	Pm__ImageHead *head;
};

/* An image and those that it builds on, the oldest first. */
struct image_chain {
	struct image im[CHAIN_MAX];
	size_t n;
	struct chain_pages *pages; /* of each */
};
/** Opens @path as @u. -EBADMSG: it is none, or damaged; in its pages is not looked. */
int image_open(struct image *im, const char *path, const struct image_user *u, struct err *e);
/** Opens the file @name in the directory @dir, following no link: of a directory that others may write to. */
int image_open_at(struct image *im, int dir, const char *name, struct err *e);
/** Takes over @fd. */
int image_open_fd(struct image *im, int fd, struct err *e);
/** The bytes that frames with pages take in the file, and of those that are compressed: of how many they are made. */
uint64_t image_stored(const struct image *im, uint64_t *compressed);
/** Is @file called as the image @id calls itself? Else it is a copy, or was renamed. */
bool image_own_name(const char *id, const char *file);
/** The last record of @type; record_done() it. -ENOENT: there is none. */
int image_record(const struct image *im, enum rec_type type, struct record *out, struct err *e);
/** The @i-th record of the index, which is not a frame. */
int image_record_at(const struct image *im, size_t i, struct record *out, struct err *e);
/** Its message, by @desc; free by protobuf_c_message_free_unpacked(). */
ProtobufCMessage *image_message(const struct image *im, enum rec_type type, const ProtobufCMessageDescriptor *desc,
				struct err *e);
/** Reads all of it and compares every digest, those of pages too; what it refers to must be there. */
int image_verify(const struct image *im, struct err *e);
/** @len bytes at @off, whatever interrupts it; -EBADMSG: the file is too short. */
int image_read_at(int fd, uint64_t off, void *buf, size_t len, struct err *e);
/** What a peer may do, a file may not: to end early, to say what it should not. @r, or -EBADMSG for such. */
int image_read_error(int r, struct err *e);
void image_close(struct image *im);

/* ---- the store (store.c) */
struct store_talk {
	void *arg;
	void (*gone)(void *arg, const char *id);	/* NULL: not told */
	/* an image that cannot be read: all of pods of that name stay, it may need them */
	void (*bad)(void *arg, const char *pod, const struct err *e);
};
struct store_scope {
	const char *pod;	/* NULL: all */
	const uint64_t *born;	/* its created_ns; NULL: all of that name */
	const char *fresh;	/* a file that stays, with what it builds on; or NULL */
};
/** Removes images in @dir but the newest @keep of each pod and what those build on. */
int store_prune(const char *dir, const struct store_scope *, size_t keep, const struct store_talk *, struct err *e);
/** -ENOENT: there is none. -EBUSY: another builds on it, or may, or will. */
int store_remove(const char *dir, const char *id, struct err *e);
/**
 * A pinned image is not removed, nor what it builds on: a file of its name with PIN_SUFFIX stands beside it. -ENOENT: there is no
 * image of that id; -EBUSY: it is being removed.
 */
int store_pin(const char *dir, const char *id, bool pinned, struct err *e);
/** Is the image in @file, in the directory @dir, pinned? */
bool store_pinned(int dir, const char *file);
/** The path of the newest image of a pod, and when it was made. 1, or 0: there is none. */
int store_newest(const char *dir, const char *pod, uint64_t born, char *path, size_t len, uint64_t *made, struct err *e);

/* ---- chains (chain.c) */
/** Opens @path and its parents, all of them with the digests that their children name. */
int chain_open(struct image_chain *c, const char *path, const struct image_user *u, struct err *e);
/** The image itself: the last one. */
static inline struct image *chain_top(struct image_chain *c)
{
	return &c->im[c->n - 1];
}
/** All pages of the chain, to look new ones up. */
int chain_known(const struct image_chain *c, struct dedup *out, struct err *e);
/** Pages number @at to @at + @n - 1 into @buf, each compared with its digest. */
int chain_read(const struct image_chain *c, uint64_t at, size_t n, void *buf, struct err *e);
/** The digest of page number @at; NULL: there is none. */
const struct page_digest *chain_digest(const struct image_chain *c, uint64_t at);
/** Nobody removes them from the store until the chain is closed. -EBUSY: somebody is about to. */
int chain_hold(const struct image_chain *c, struct err *e);
/** How many pages are stored in all of it. */
uint64_t chain_count(const struct image_chain *c);
void chain_close(struct image_chain *c);

#endif
