/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Image files; what is in them: image.h. */
#include "pod/image/image.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define HEADER 24u /* of a record, and of a frame */
#define ENTRIES_MAX (64u << 20 >> 4) /* in one INDEX: with frames of 256 KiB that is 1 TiB */

#define HASHES_EACH ((16u << 20) / sizeof(struct page_digest)) /* in one record */

/* The payload of END, little-endian */
struct image_end {
	uint64_t index;	  /* offset of INDEX */
	uint64_t entries; /* in it */
	uint64_t digest;  /* XXH3 of the digests of all records and frames before INDEX, and INDEX's own */
};

/* ---- in whose name */

int image_be_user(const struct image_user *u, struct err *e)
{
	/* raw calls: those of the library change the whole process */
	if (u && u->uid) {
		if (syscall(SYS_setgroups, u->ngroups, u->groups) < 0)
			return err_sys(e, "take the user's groups");
		setfsgid(u->gid);
		setfsuid(u->uid); /* the kernel takes CAP_DAC_* and the like away with it */
		if ((uid_t)setfsuid((uid_t)-1) != u->uid)
			return err_set(e, EPERM, "take the user's rights");
		return 0;
	}
	if (!u) {
		setfsuid(0);
		setfsgid(0);
		if (geteuid() == 0 && syscall(SYS_setgroups, 0, NULL) < 0)
			return err_sys(e, "give the user's groups back");
	}
	return 0;
}

/* ---- writing */

static int open_dir(struct image_file *f, const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];

	if (path[0] != '/' || !slash[1] || strlen(slash + 1) >= sizeof(f->name) || strlen(path) >= sizeof(dir))
		return err_set(e, EINVAL, "'%s' is not a path for an image", path);
	snprintf(f->name, sizeof(f->name), "%s", slash + 1);
	snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	f->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return f->dir < 0 ? err_sys(e, "open '%s'", dir) : 0;
}

static int open_new(struct image_file *f, const char *path, bool replace, struct err *e)
{
	struct stat st;
	int r = open_dir(f, path, e);

	if (r < 0)
		return r;
	if (fstatat(f->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && (!replace || !S_ISREG(st.st_mode)))
		return err_num(e, EEXIST, "'%s'", path);
	f->fd = openat(f->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (f->fd >= 0)
		return 0;
	/* a file system that has no files without a name */
	snprintf(f->temp, sizeof(f->temp), ".%.240s.part", f->name);
	unlinkat(f->dir, f->temp, 0);
	f->fd = openat(f->dir, f->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (f->fd >= 0)
		return 0;
	r = err_sys(e, "create '%s'", path);
	f->temp[0] = 0;
	return r;
}

int image_create(struct image_file *f, const char *path, const struct image_user *u, bool replace, struct err *e)
{
	struct err back;
	int r;

	*f = (struct image_file){ .dir = -1, .fd = -1, .user = u, .replace = replace };
	r = image_be_user(u, e);
	if (r >= 0)
		r = open_new(f, path, replace, e);
	if (image_be_user(NULL, &back) < 0)
		r = err_set(e, EPERM, "%s", back.msg);
	if (r < 0)
		image_done(f);
	return r;
}

int image_read_at(int fd, uint64_t off, void *buf, size_t len, struct err *e)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(e, "read the image");
		if (n == 0)
			return err_set(e, EBADMSG, "the image is too short");
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* How many pages the frame at @off stores: of one that is compressed only its table knows. */
static int frame_pages(int fd, uint64_t off, uint64_t end, const struct page_frame *h, struct err *e)
{
	struct page_run runs[PAGE_FRAME_RUNS_MAX];
	size_t len = h->nruns * sizeof(*runs);
	int r;

	if (h->magic == PAGE_FRAME_MAGIC)
		return (int)MIN(le32toh(h->bytes) / PAGE, (uint64_t)UINT16_MAX);
	if (h->nruns > PAGE_FRAME_RUNS_MAX || len > end - off - HEADER)
		return err_set(e, EBADMSG, "the image ends within a record");
	r = image_read_at(fd, off + HEADER, runs, len, e);
	if (r >= 0)
		r = image_read_error(page_frame_size(h, runs, e), e);
	return r < 0 ? r : r / (int)PAGE;
}

/* What stands at @off: its entry, and the digest in its header. */
static int look(int fd, uint64_t off, uint64_t end, struct image_entry *out, uint64_t *digest, struct err *e)
{
	union {
		struct page_frame frame;
		uint8_t bytes[HEADER];
	} h;
	uint64_t len;
	int r;

	_Static_assert(sizeof(struct page_frame) == HEADER, "headers are of one size");
	r = off + HEADER > end ? err_set(e, EBADMSG, "the image ends within a record") :
				 image_read_at(fd, off, &h, HEADER, e);
	if (r < 0)
		return r;
	memcpy(digest, h.bytes + 16, 8);
	*digest = le64toh(*digest);
	out->off = off;
	out->pages = 0;
	if (page_frame_is(le32toh(h.frame.magic))) {
		out->type = le32toh(h.frame.magic) == PAGE_FRAME_LZ4 ? IMAGE_FRAME_LZ4 : IMAGE_FRAME;
		r = frame_pages(fd, off, end, &h.frame, e);
		if (r < 0)
			return r;
		out->pages = (uint16_t)r;
		len = HEADER + le32toh(h.frame.nruns) * (uint64_t)sizeof(struct page_run) + le32toh(h.frame.bytes);
	} else {
		uint16_t type;
		uint32_t plen;

		r = stream_parse_header(h.bytes, &type, &plen, e);
		if (r < 0)
			return err_wrap(e, "at byte %lu", (unsigned long)off);
		out->type = type;
		len = HEADER + (uint64_t)plen;
	}
	if (len > end - off || len > UINT32_MAX)
		return err_set(e, EBADMSG, "the image ends within a record");
	out->len = (uint32_t)len;
	return 0;
}

struct walk {
	struct image_entry *entry;
	size_t n, cap;
	XXH3_state_t *sum;
};

static void walk_done(struct walk *w)
{
	free(w->entry);
	XXH3_freeState(w->sum);
}

/* Entries and digests of [0, @end). */
static int walk_image(int fd, uint64_t end, struct walk *w, struct err *e)
{
	uint64_t off = 0, digest;
	int r = 0;

	w->sum = XXH3_createState();
	if (!w->sum)
		return err_num(e, ENOMEM, "image");
	XXH3_64bits_reset(w->sum);
	while (r >= 0 && off < end) {
		if (w->n == w->cap) {
			size_t cap = w->cap ? w->cap * 2 : 1024;
			struct image_entry *ne = reallocarray(w->entry, cap, sizeof(*ne));

			if (!ne)
				return err_num(e, ENOMEM, "image");
			w->entry = ne;
			w->cap = cap;
		}
		if (w->n == ENTRIES_MAX)
			return err_set(e, EFBIG, "an image of more than %u pieces", ENTRIES_MAX);
		r = look(fd, off, end, &w->entry[w->n], &digest, e);
		if (r < 0)
			break;
		off += w->entry[w->n++].len;
		digest = htole64(digest);
		XXH3_64bits_update(w->sum, &digest, sizeof(digest));
	}
	return r;
}

static uint64_t end_digest(struct walk *w, uint64_t entries, uint64_t index)
{
	uint64_t v[2] = { htole64(entries), htole64(index) };

	XXH3_64bits_update(w->sum, v, sizeof(v));
	XXH3_64bits_update(w->sum, w->entry, w->n * sizeof(*w->entry));
	return XXH3_64bits_digest(w->sum);
}

int image_hashes(struct image_file *f, uint64_t *size, const struct page_digest *p, size_t n, struct err *e)
{
	struct stream s = { .fd = f->fd, .deadline = IO_FOREVER, .sent = *size };
	size_t i;
	int r = lseek(f->fd, (off_t)*size, SEEK_SET) < 0 ? err_sys(e, "seek") : 0;

	for (i = 0; r >= 0 && i < n; i += HASHES_EACH)
		r = stream_send(&s, REC_HASHES, 0, p + i, MIN(n - i, (size_t)HASHES_EACH) * sizeof(*p), e);
	*size = s.sent;
	return r;
}

int image_seal(struct image_file *f, uint64_t *size, uint64_t *digest, struct err *e)
{
	struct stream s = { .fd = f->fd, .deadline = IO_FOREVER, .sent = *size };
	struct image_end end = { .index = htole64(*size) };
	struct walk w = { 0 };
	int r = walk_image(f->fd, *size, &w, e);

	_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "entries are written as they lie in memory");
	end.entries = htole64(w.n);
	if (r >= 0 && lseek(f->fd, (off_t)*size, SEEK_SET) < 0)
		r = err_sys(e, "seek");
	if (r >= 0)
		r = stream_send(&s, REC_INDEX, 0, w.entry, w.n * sizeof(*w.entry), e);
	if (r >= 0) {
		*digest = end_digest(&w, w.n, *size);
		end.digest = htole64(*digest);
		r = stream_send(&s, REC_END, 0, &end, sizeof(end), e);
	}
	walk_done(&w);
	*size = s.sent;
	return r;
}

static int give_name(struct image_file *f, struct err *e)
{
	struct stat st;
	char self[48];

	f->replaced = fstatat(f->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (f->replaced && !f->replace)
		return err_num(e, EEXIST, "name '%s'", f->name);
	if (!f->temp[0]) {
		snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
		if (linkat(AT_FDCWD, self, f->dir, f->name, AT_SYMLINK_FOLLOW) == 0)
			return 0;
		if (errno != EEXIST || !f->replace)
			return err_sys(e, "name '%s'", f->name);
		f->replaced = true;
		snprintf(f->temp, sizeof(f->temp), ".%.240s.part", f->name);
		unlinkat(f->dir, f->temp, 0);
		if (linkat(AT_FDCWD, self, f->dir, f->temp, AT_SYMLINK_FOLLOW) < 0)
			return err_sys(e, "name '%s'", f->name);
	}
	if (renameat(f->dir, f->temp, f->dir, f->name) < 0)
		return err_sys(e, "name '%s'", f->name);
	f->temp[0] = 0;
	return 0;
}

static int make_pin(const struct image_file *f, bool pinned, struct err *e)
{
	autoclose int fd = -1;
	char pin[300];

	snprintf(pin, sizeof(pin), "%s" PIN_SUFFIX, f->name);
	if (!pinned)
		return unlinkat(f->dir, pin, 0);
	fd = openat(f->dir, pin, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	return fd < 0 ? err_sys(e, "pin '%s'", f->name) : 0;
}

int image_publish(struct image_file *f, struct err *e)
{
	struct err back;
	int r;

	if (fsync(f->fd) < 0)
		return err_sys(e, "write '%s' to the disk", f->name);
	r = image_be_user(f->user, e);
	if (r >= 0 && f->pin)
		r = make_pin(f, true, e);
	if (r >= 0) {
		r = give_name(f, e);
		if (r < 0 && f->pin)
			make_pin(f, false, NULL);
	}
	if (image_be_user(NULL, &back) < 0)
		r = err_set(e, EPERM, "%s", back.msg);
	f->published = r >= 0;
	if (r >= 0 && fsync(f->dir) < 0) {
		r = err_sys(e, "write the directory of '%s' to the disk", f->name);
		image_retract(f);
	}
	return r;
}

void image_retract(struct image_file *f)
{
	struct stat own, there;
	struct err e;

	if (!f->published || f->replaced)
		return;
	f->published = false;
	if (image_be_user(f->user, &e) >= 0 && fstat(f->fd, &own) == 0 &&
	    fstatat(f->dir, f->name, &there, AT_SYMLINK_NOFOLLOW) == 0 && own.st_dev == there.st_dev &&
	    own.st_ino == there.st_ino && unlinkat(f->dir, f->name, 0) == 0) {
		if (f->pin)
			make_pin(f, false, NULL);
		fsync(f->dir);
	}
	image_be_user(NULL, &e);
}

void image_done(struct image_file *f)
{
	/* made as the user: root may be nobody there */
	if (f->dir >= 0 && f->temp[0]) {
		struct err e;

		if (image_be_user(f->user, &e) >= 0)
			unlinkat(f->dir, f->temp, 0);
		image_be_user(NULL, &e);
	}
	close_fdp(&f->fd);
	close_fdp(&f->dir);
}

/* ---- reading */

int image_read_error(int r, struct err *e)
{
	if (r == -EPIPE)
		return err_set(e, EBADMSG, "the image ends within a record");
	if (r == -EPROTO && e)
		e->code = -EBADMSG;
	return r == -EPROTO ? -EBADMSG : r;
}

/* The record at @off, whole. */
static int read_record(int fd, uint64_t off, enum rec_type type, struct record *out, struct err *e)
{
	struct stream s = { .fd = fd, .deadline = IO_FOREVER };
	int r;

	if (lseek(fd, (off_t)off, SEEK_SET) < 0)
		return err_sys(e, "seek");
	r = image_read_error(stream_recv(&s, out, e), e);
	if (r < 0)
		return err_wrap(e, "the image");
	if (out->type == type)
		return 0;
	record_done(out);
	return err_set(e, EBADMSG, "the image has another record where %d should be", (int)type);
}

/* END, then INDEX, which must be all that is between them. */
static int read_index(struct image *im, struct err *e)
{
	struct image_end end;
	struct record rec;
	uint64_t index;
	int r;

	if (im->size < 2 * HEADER + sizeof(end))
		return err_set(e, EBADMSG, "it is not an image of a pod");
	r = read_record(im->fd, im->size - HEADER - sizeof(end), REC_END, &rec, e);
	if (r < 0)
		return r;
	if (rec.len != sizeof(end)) {
		record_done(&rec);
		return err_set(e, EBADMSG, "the image's end is damaged");
	}
	memcpy(&end, rec.payload, sizeof(end));
	record_done(&rec);
	index = le64toh(end.index);
	im->digest = le64toh(end.digest);
	im->n = le64toh(end.entries);
	if (im->n > ENTRIES_MAX || index + HEADER + im->n * sizeof(*im->entry) + HEADER + sizeof(end) != im->size)
		return err_set(e, EBADMSG, "the image's end is damaged");
	r = read_record(im->fd, index, REC_INDEX, &rec, e);
	if (r < 0)
		return r;
	if (rec.len != im->n * sizeof(*im->entry)) {
		record_done(&rec);
		return err_set(e, EBADMSG, "the image's index is damaged");
	}
	im->entry = (struct image_entry *)(void *)rec.payload;
	return 0;
}

/* Each entry begins where the one before ends. */
static int check_index(struct image *im, struct err *e)
{
	uint64_t off = 0;
	size_t i;

	for (i = 0; i < im->n; i++) {
		if (im->entry[i].off != off || im->entry[i].len < HEADER)
			return err_set(e, EBADMSG, "the image's index is damaged");
		if (entry_is_frame(&im->entry[i])) {
			if (im->entry[i].type == IMAGE_FRAME ? im->entry[i].pages * PAGE > im->entry[i].len :
							       im->entry[i].pages > FRAME_PAGES_MAX)
				return err_set(e, EBADMSG, "the image's index is damaged");
			im->npages += im->entry[i].pages;
		}
		off += im->entry[i].len;
	}
	/* each has its digest in the file */
	if (off > im->size || im->npages * sizeof(struct page_digest) > im->size)
		return err_set(e, EBADMSG, "the image's index is damaged");
	if (!im->n || im->entry[0].type != REC_HEAD)
		return err_set(e, EBADMSG, "it is not an image of a pod");
	return 0;
}

int image_open_fd(struct image *im, int fd, struct err *e)
{
	struct stat st;
	int r = 0;

	*im = (struct image){ .fd = fd };
	if (fstat(fd, &st) < 0)
		r = err_sys(e, "stat");
	else if (!S_ISREG(st.st_mode))
		r = err_set(e, EBADMSG, "it is not a regular file");
	im->size = r < 0 ? 0 : (uint64_t)st.st_size;
	if (r >= 0)
		r = read_index(im, e);
	if (r >= 0)
		r = check_index(im, e);
	if (r >= 0) {
		im->head = (Pm__ImageHead *)image_message(im, REC_HEAD, &pm__image_head__descriptor, e);
		r = im->head ? 0 : e ? e->code : -EBADMSG;
	}
	if (r >= 0 && im->head->parent[0])
		im->older = UINT64_MAX;
	if (r >= 0 && im->head->compat > IMAGE_VERSION)
		r = err_set(e, EOPNOTSUPP, "the image is of version %u, which needs a reader of version %u: this is version %u",
			    im->head->version, im->head->compat, IMAGE_VERSION);
	if (r < 0)
		image_close(im);
	return r;
}

/* Nothing is opened before it is known to be a file: to open a device may already do something. */
static int open_file(int dir, const char *path, int flags, struct err *e)
{
	autoclose int found = openat(dir, path, O_PATH | O_CLOEXEC | flags);
	char self[48];
	struct stat st;
	int fd;

	if (found < 0 || fstat(found, &st) < 0)
		return err_sys(e, "open '%s'", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EBADMSG, "'%s': it is not a regular file", path);
	snprintf(self, sizeof(self), "/proc/self/fd/%d", found);
	fd = open(self, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return fd < 0 ? err_sys(e, "open '%s'", path) : fd;
}

int image_open_at(struct image *im, int dir, const char *name, struct err *e)
{
	int fd = strchr(name, '/') ? err_set(e, EINVAL, "'%s' is no name of a file", name) :
				     open_file(dir, name, O_NOFOLLOW, e);

	*im = (struct image){ .fd = -1 };
	if (fd < 0)
		return fd;
	return image_open_fd(im, fd, e) < 0 ? err_wrap(e, "'%s'", name) : 0;
}

bool image_own_name(const char *id, const char *file)
{
	size_t n = strlen(id);

	return strncmp(file, id, n) == 0 && strcmp(file + n, IMAGE_SUFFIX) == 0;
}

int image_open(struct image *im, const char *path, const struct image_user *u, struct err *e)
{
	struct err back;
	int fd = -1, r = u ? image_be_user(u, e) : 0;

	*im = (struct image){ .fd = -1 };
	if (r >= 0) {
		fd = open_file(AT_FDCWD, path, 0, e);
		r = fd < 0 ? fd : 0;
	}
	if (u && image_be_user(NULL, &back) < 0)
		r = err_set(e, EPERM, "%s", back.msg);
	if (r >= 0)
		return image_open_fd(im, fd, e) < 0 ? err_wrap(e, "'%s'", path) : 0;
	close_fdp(&fd);
	return r;
}

int image_record_at(const struct image *im, size_t i, struct record *out, struct err *e)
{
	return read_record(im->fd, im->entry[i].off, (enum rec_type)im->entry[i].type, out, e);
}

int image_record(const struct image *im, enum rec_type type, struct record *out, struct err *e)
{
	size_t i;

	for (i = im->n; i-- > 0;)
		if (im->entry[i].type == (uint32_t)type)
			return read_record(im->fd, im->entry[i].off, type, out, e);
	return err_set(e, ENOENT, "the image has no record %d", (int)type);
}

ProtobufCMessage *image_message(const struct image *im, enum rec_type type, const ProtobufCMessageDescriptor *desc,
				struct err *e)
{
	ProtobufCMessage *m;
	struct record rec;

	if (image_record(im, type, &rec, e) < 0)
		return NULL;
	m = record_unpack(&rec, desc, e);
	record_done(&rec);
	return m;
}

/* The pages of an image as they come, and then what it says of them. */
struct verify {
	const struct image *im;
	struct page_digest *page;
	uint64_t n, said;
};

static int verify_same(void *arg, uint32_t id, uint64_t addr, uint64_t npages, uint64_t at, struct err *e)
{
	const struct verify *v = arg;
	uint64_t count = v->im->older + v->im->npages;

	(void)id, (void)addr;
	if (v->im->older != UINT64_MAX && (at >= count || npages > count - at))
		return err_set(e, EBADMSG, "it refers to page %lu of %lu", (unsigned long)(at + npages - 1),
			       (unsigned long)count);
	return 0;
}

static int verify_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e)
{
	struct verify *v = arg;

	(void)id, (void)addr, (void)kind;
	for (uint64_t i = 0; data && i < len / PAGE; i++) {
		if (v->n == v->im->npages)
			return err_set(e, EBADMSG, "more pages than the index says");
		v->page[v->n++] = page_digest((const char *)data + i * PAGE);
	}
	return 0;
}

static int verify_hashes(struct verify *v, const struct record *rec, struct err *e)
{
	uint64_t n = rec->len / sizeof(*v->page);

	if (rec->len % sizeof(*v->page) || n > v->n - v->said)
		return err_set(e, EBADMSG, "more digests than pages before them");
	if (memcmp(v->page + v->said, rec->payload, rec->len) != 0)
		return err_set(e, EBADMSG, "the digest of a page is not that of the page");
	v->said += n;
	return 0;
}

static int verify_at(struct verify *v, size_t i, struct stream *s, struct err *e)
{
	const struct page_sink sink = { .arg = v, .run = verify_run, .same = verify_same };
	struct record rec;
	int r;

	if (entry_is_frame(&v->im->entry[i]))
		return pages_recv(s->fd, &sink, NULL, IO_FOREVER, e);
	r = stream_recv(s, &rec, e);
	if (r < 0)
		return r;
	if (rec.type == REC_HASHES)
		r = verify_hashes(v, &rec, e);
	record_done(&rec);
	return r;
}

int image_verify(const struct image *im, struct err *e)
{
	struct stream s = { .fd = im->fd, .deadline = IO_FOREVER };
	struct verify v = { .im = im };
	uint64_t end = im->n ? im->entry[im->n - 1].off + im->entry[im->n - 1].len : 0;
	struct walk w = { 0 };
	size_t i;
	int r = walk_image(im->fd, end, &w, e);

	if (r >= 0 && (w.n != im->n || memcmp(w.entry, im->entry, w.n * sizeof(*w.entry)) != 0 ||
		       end_digest(&w, w.n, end) != im->digest))
		r = err_set(e, EBADMSG, "the image's index is not that of its records");
	walk_done(&w);
	if (r >= 0 && lseek(im->fd, 0, SEEK_SET) < 0)
		r = err_sys(e, "seek");
	v.page = r < 0 ? NULL : calloc(im->npages + 1, sizeof(*v.page));
	if (r >= 0 && !v.page)
		r = err_num(e, ENOMEM, "digests of an image");
	for (i = 0; r >= 0 && i < im->n; i++) {
		r = image_read_error(verify_at(&v, i, &s, e), e);
		if (r < 0)
			err_wrap(e, "at byte %lu", (unsigned long)im->entry[i].off);
	}
	if (r >= 0 && (v.n != im->npages || v.said != v.n))
		r = err_set(e, EBADMSG, "the image has %lu pages and %lu digests of them", (unsigned long)v.n,
			    (unsigned long)v.said);
	free(v.page);
	return r;
}

uint64_t image_stored(const struct image *im, uint64_t *compressed)
{
	uint64_t sum = 0;

	*compressed = 0;
	for (size_t i = 0; i < im->n; i++) {
		if (!entry_is_frame(&im->entry[i]) || !im->entry[i].pages)
			continue;
		sum += im->entry[i].len;
		*compressed += im->entry[i].type == IMAGE_FRAME_LZ4 ? im->entry[i].pages * PAGE : 0;
	}
	return sum;
}

void image_close(struct image *im)
{
	close_fdp(&im->fd);
	free(im->entry);
	im->entry = NULL;
	im->n = 0;
	if (im->head)
		pm__image_head__free_unpacked(im->head, NULL);
	im->head = NULL;
}
