/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pages on a stream. A frame is
 *
 *	struct page_frame	magic, number of runs, process or object, bytes of data, digest
 *	struct page_run[nruns]	address, pages, kind: data, zero or drop
 *	data of the data runs, in their order
 *
 * little-endian, at most 256 KiB of data (the block size at which process_vm_readv is fastest) and
 * 4096 runs. The sender gathers runs of any mappings of one process until they are 256 KiB, reads
 * them with one process_vm_readv of up to 64 remote pieces, takes the pages that are all zeros out
 * of the data by leaving them out of the vector, and writes header, runs and data with one writev:
 * no byte is copied by us, unless the data is compressed (pack.c), as one block for a frame. Runs of
 * zeros are only table entries, so an empty gigabyte is one frame.
 *
 * What cannot be read as the process reads it (PROT_NONE, a mapping that vanished while the process
 * runs) is tried through /proc/PID/mem, which knows no protection; pages that are in neither are
 * left out and counted. Before the freeze that is normal and harmless: the mapping's next scan
 * reports what is there then. In the freeze the caller treats a count above 0 as an error.
 *
 * The receiver trusts nothing: every number is checked against a cap before it is used, sums do not
 * wrap, data is read only after the whole table was found consistent. Whether an address belongs to
 * a declared mapping is the sink's to decide.
 *
 * The blocks live on the stack of pages_send() and pages_recv() (330 and 580 KiB): always warm, no globals.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <xxhash.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/mem/mem.h"
#include "pod/mem/pack.h"

#define BLOCK_PAGES (PAGE_FRAME_DATA_MAX / PAGE)
#define PUT_IOV 512 /* pieces per process_vm_writev */
#define SEND_RUN_PAGES (1u << 27) /* longer zero and drop runs are split */

/* a fuzzer shall get to what is behind the digest */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
#define DIGESTS 0
#else
#define DIGESTS 1
#endif

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "frames are written as they lie in memory");
_Static_assert(sizeof(struct page_frame) == 24 && sizeof(struct page_run) == 16, "wire format");

/* where the data of a stream comes from */
struct source {
	pid_t pid;	/* a process, read by process_vm_readv ... */
	int fd;		/* ... and /proc/PID/mem; or (pid 0) a file. -1: none */
	bool by_fd;	/* do not try process_vm_readv */
};

struct page_stream {
	int out;
	uint64_t deadline, sent, skipped;
	uint32_t id;
	const struct page_known *known;
	struct source src;
	size_t npend;		/* pieces gathered, not read yet */
	size_t pend_pages;
	struct run pend[BLOCK_PAGES];
	struct page_frame head;
	struct page_run runs[PAGE_FRAME_RUNS_MAX];
	char *block;		/* PAGE_FRAME_DATA_MAX bytes, page-aligned */
};

/* ---- reading */

static bool page_is_zero(const char *p)
{
	const uint64_t *w = (const uint64_t *)(const void *)p;

	/* most pages show within the first or the last line that they are none */
	if (w[0] | w[1] | w[7] | w[PAGE / 16] | w[PAGE / 8 - 1])
		return false;
	return !memcmp(p, p + 64, PAGE - 64) && !(w[2] | w[3] | w[4] | w[5] | w[6]);
}

/* Reads one piece through the fd, page by page where it must; *@have tells which pages are there. */
static int read_piece_fd(const struct source *src, const struct run *r, char *to, bool *have)
{
	uint64_t at = r->start;

	while (at < r->end) {
		ssize_t n = pread(src->fd, to, r->end - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EIO && errno != EFAULT)
			return -errno;
		if (n < (ssize_t)PAGE) { /* not there, or the file's end: its last piece */
			*have = n > 0 && !src->pid;
			if (*have)
				memset(to + n, 0, PAGE - (size_t)n);
			n = PAGE;
		} else {
			n = (ssize_t)ALIGN_DOWN((uint64_t)n, PAGE);
			memset(have, 1, (size_t)n / PAGE);
		}
		at += (uint64_t)n;
		to += n;
		have += (uint64_t)n / PAGE;
	}
	return 0;
}

/* Fills the block with all pending pieces. have[i] tells for each page whether it could be read. */
static int read_block(struct page_stream *s, bool *have, struct err *e)
{
	struct iovec local = { .iov_base = s->block, .iov_len = s->pend_pages * PAGE };
	struct iovec remote[BLOCK_PAGES];
	size_t i, k = 0, page = 0;
	ssize_t n = 0;
	int r;

	memset(have, 0, s->pend_pages);
	if (!s->src.by_fd) {
		for (i = 0; i < s->npend; i++) {
			remote[i].iov_base = (void *)(uintptr_t)s->pend[i].start;
			remote[i].iov_len = s->pend[i].end - s->pend[i].start;
		}
		n = process_vm_readv(s->src.pid, &local, 1, remote, s->npend, 0);
		/* a process that is gone has no pages: not an error of the stream */
		if (n < 0 && errno != EFAULT && errno != ESRCH)
			return err_sys(e, "read memory of process %d", (int)s->src.pid);
		n = MAX(n, 0) / (ssize_t)PAGE;
		memset(have, 1, (size_t)n);
	}
	/* the rest of it, piece by piece, from the first page that is missing */
	for (k = 0; k < s->npend; k++) {
		struct run left = s->pend[k];
		size_t pages = (left.end - left.start) / PAGE;
		size_t done = (size_t)n > page ? MIN((size_t)n - page, pages) : 0;

		left.start += done * PAGE;
		if (left.start < left.end && s->src.fd >= 0) {
			r = read_piece_fd(&s->src, &left, s->block + (page + done) * PAGE,
					  have + page + done);
			if (r < 0)
				return err_num(e, r, "read %s %d at %llx",
					       s->src.pid ? "memory of process" : "object",
					       s->src.pid ? (int)s->src.pid : (int)s->id,
					       (unsigned long long)left.start);
		}
		page += pages;
	}
	return 0;
}

/* ---- writing */

/* Appends to the frame's table; merges with the last run if that fits. */
static void table_add(struct page_stream *s, uint64_t addr, uint32_t npages, uint32_t kind)
{
	struct page_run *last = s->head.nruns ? &s->runs[s->head.nruns - 1] : NULL;

	if (last && last->kind == kind && last->npages + npages <= SEND_RUN_PAGES &&
	    last->addr + last->npages * PAGE == addr) {
		last->npages += npages;
		return;
	}
	s->runs[s->head.nruns++] = (struct page_run){ addr, npages, kind };
}

uint64_t page_frame_digest(const struct page_frame *h, const struct iovec *iov, int n)
{
	XXH3_state_t *state = XXH3_createState();
	uint64_t digest;
	int i;

	if (!state)
		return 0; /* it will not fit */
	XXH3_64bits_reset_withSeed(state, XXH3_64bits(h, offsetof(struct page_frame, digest)));
	for (i = 0; i < n; i++)
		XXH3_64bits_update(state, iov[i].iov_base, iov[i].iov_len);
	digest = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return digest;
}

/* The same for a page that is stored elsewhere as number @at: two entries, which grow together. */
static void table_add_same(struct page_stream *s, uint64_t addr, uint64_t at)
{
	struct page_run *last = s->head.nruns > 1 ? &s->runs[s->head.nruns - 2] : NULL;

	if (last && last->kind == RUN_SAME && last->npages < SEND_RUN_PAGES && last->addr + last->npages * PAGE == addr &&
	    last[1].addr / PAGE + last->npages == at) {
		last[0].npages++;
		last[1].npages++;
		return;
	}
	s->runs[s->head.nruns++] = (struct page_run){ addr, 1, RUN_SAME };
	s->runs[s->head.nruns++] = (struct page_run){ at * PAGE, 1, RUN_SAME_AT };
}

/* Instead of the @n pieces of the block, which are gathered at its beginning, what they become; if that is worth it. */
static int compress_frame(struct page_stream *s, struct iovec *iov, int n)
{
	struct page_pack *p = s->known ? s->known->pack : NULL;
	const char *packed;
	size_t at = 0, len;

	if (!p || !n || !pack_wants(p, iov[n / 2].iov_base, iov[n / 2].iov_len))
		return n;
	for (int i = 0; i < n; i++) {
		memmove(s->block + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	len = pack_data(p, s->block, at, &packed);
	if (len) {
		s->head.magic = PAGE_FRAME_LZ4;
		s->head.bytes = (uint32_t)len;
	}
	iov[0] = len ? (struct iovec){ (void *)(uintptr_t)packed, len } : (struct iovec){ s->block, at };
	return 1;
}

static int write_out(struct page_stream *s, struct iovec *iov, int n, uint64_t len, struct err *e)
{
	struct page_pack *p = s->known ? s->known->pack : NULL;
	uint64_t t = p ? now_ns() : 0;
	int r = io_writev_full(s->out, iov, n, s->deadline, e);

	if (p && r >= 0)
		pack_written(p, len, now_ns() - t);
	return r < 0 ? err_wrap(e, "pages") : 0;
}

/* Writes the frame out: header and table, then the block without its holes (@have). */
static int frame_write(struct page_stream *s, const bool *data, size_t pages, struct err *e)
{
	struct iovec iov[2 + BLOCK_PAGES];
	uint64_t len;
	size_t i, end;
	int n = 2, r;

	s->head.magic = PAGE_FRAME_MAGIC;
	s->head.id = s->id;
	s->head.bytes = 0;
	iov[0] = (struct iovec){ &s->head, sizeof(s->head) };
	iov[1] = (struct iovec){ s->runs, s->head.nruns * sizeof(*s->runs) };
	for (i = 0; i < pages; i = end) {
		for (end = i + 1; end < pages && data[end] == data[i]; end++)
			;
		if (!data[i])
			continue;
		iov[n++] = (struct iovec){ s->block + i * PAGE, (end - i) * PAGE };
		s->head.bytes += (uint32_t)((end - i) * PAGE);
	}
	n = 2 + compress_frame(s, iov + 2, n - 2);
	s->head.digest = page_frame_digest(&s->head, iov + 1, n - 1);
	len = sizeof(s->head) + s->head.nruns * sizeof(*s->runs) + s->head.bytes;
	r = write_out(s, iov, n, len, e);
	if (r < 0)
		return r;
	s->sent += len;
	s->head.nruns = 0;
	return s->known && s->known->tick ? s->known->tick(s->known->tick_arg, len, e) : 0;
}

/* Reads what is pending and writes a frame, unless it was nothing but zeros and there is room. */
static int block_emit(struct page_stream *s, struct err *e)
{
	bool have[BLOCK_PAGES], data[BLOCK_PAGES], any = false;
	size_t i, page = 0;
	uint64_t number;
	int r;

	if (!s->npend)
		return 0;
	r = read_block(s, have, e);
	if (r < 0)
		return r;
	for (i = 0; i < s->npend; i++) {
		uint64_t at = s->pend[i].start;

		for (; at < s->pend[i].end; at += PAGE, page++) {
			data[page] = have[page] && !page_is_zero(s->block + page * PAGE);
			s->skipped += !have[page];
			r = data[page] && s->known && s->known->look ? s->known->look(s->known->arg, s->block + page * PAGE, &number) : 0;
			if (r < 0)
				return err_num(e, r, "pages");
			if (r > 0) {
				data[page] = false;
				table_add_same(s, at, number);
				continue;
			}
			any |= data[page];
			if (have[page])
				table_add(s, at, 1, data[page] ? RUN_DATA : RUN_ZERO);
		}
	}
	s->npend = s->pend_pages = 0;
	if (!any && s->head.nruns + 2 * BLOCK_PAGES <= PAGE_FRAME_RUNS_MAX)
		return 0;
	return frame_write(s, data, page, e);
}

static int stream_flush(struct page_stream *s, struct err *e)
{
	int r = block_emit(s, e);

	if (r < 0 || !s->head.nruns)
		return r;
	return frame_write(s, NULL, 0, e);
}

static int stream_add(struct page_stream *s, const struct runs *rs, struct err *e)
{
	size_t i;
	int r;

	for (i = 0; i < rs->n; i++) {
		uint64_t at = rs->r[i].start;

		while (at < rs->r[i].end) {
			uint64_t len = MIN(rs->r[i].end - at,
					   (BLOCK_PAGES - s->pend_pages) * PAGE);

			s->pend[s->npend++] = (struct run){ at, at + len };
			s->pend_pages += len / PAGE;
			at += len;
			if (s->pend_pages < BLOCK_PAGES)
				continue;
			r = block_emit(s, e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int stream_drop(struct page_stream *s, const struct runs *rs, struct err *e)
{
	size_t i;
	int r;

	r = block_emit(s, e); /* drops do not overtake pages */
	for (i = 0; !r && i < rs->n; i++) {
		uint64_t at = rs->r[i].start;

		while (!r && at < rs->r[i].end) {
			uint64_t n = MIN((rs->r[i].end - at) / PAGE, SEND_RUN_PAGES);

			table_add(s, at, (uint32_t)n, RUN_DROP);
			at += n * PAGE;
			if (s->head.nruns + 2 * BLOCK_PAGES > PAGE_FRAME_RUNS_MAX)
				r = frame_write(s, NULL, 0, e);
		}
	}
	return r;
}

/* ---- the sender's interface */

static void stream_init(struct page_stream *s, char *block, int fd, uint64_t deadline)
{
	/* the tables need no clearing */
	s->out = fd;
	s->deadline = deadline;
	s->sent = s->skipped = 0;
	s->npend = s->pend_pages = 0;
	s->head.nruns = 0;
	s->id = 0;
	s->known = NULL;
	s->src = (struct source){ .fd = -1 };
	s->block = block;
}

/* Turns to another source; what is gathered of the old one goes out first. */
static int stream_source(struct page_stream *s, uint32_t id, struct source src, struct err *e)
{
	int r = 0;

	if (s->id != id || s->src.pid != src.pid || s->src.fd != src.fd)
		r = stream_flush(s, e);
	else if (s->src.by_fd != src.by_fd)
		r = block_emit(s, e);
	s->id = id;
	s->src = src;
	return r;
}

static struct source process_source(pid_t pid, int memfd, const struct vma *v)
{
	return (struct source){ .pid = pid, .fd = memfd,
				.by_fd = memfd >= 0 && v && !(v->prot & PROT_READ) };
}

struct page_stream *page_stream_new(int fd, const struct page_known *known)
{
	struct page_stream *s = malloc(sizeof(*s));
	char *block = s ? mmap(NULL, PAGE_FRAME_DATA_MAX, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0) : MAP_FAILED;

	if (block == MAP_FAILED) {
		free(s);
		return NULL;
	}
	stream_init(s, block, fd, IO_FOREVER);
	s->known = known;
	return s;
}

void page_stream_free(struct page_stream *s)
{
	if (!s)
		return;
	munmap(s->block, PAGE_FRAME_DATA_MAX);
	free(s);
}

int page_stream_pages(struct page_stream *s, pid_t pid, int memfd, uint32_t proc,
		      const struct vma *v, const struct runs *rs, uint64_t deadline, struct err *e)
{
	int r;

	s->deadline = deadline;
	r = stream_source(s, proc, process_source(pid, memfd, v), e);
	return r < 0 ? r : stream_add(s, rs, e);
}

int page_stream_drop(struct page_stream *s, uint32_t proc, const struct runs *rs,
		     uint64_t deadline, struct err *e)
{
	int r = 0;

	s->deadline = deadline;
	if (s->id != proc)
		r = stream_source(s, proc, (struct source){ .fd = -1 }, e);
	return r < 0 ? r : stream_drop(s, rs, e);
}

int page_stream_flush(struct page_stream *s, uint64_t *sent, uint64_t *skipped, struct err *e)
{
	int r = stream_flush(s, e);

	if (sent)
		*sent += s->sent;
	if (skipped)
		*skipped += s->skipped;
	s->sent = s->skipped = 0;
	return r;
}

/* One call's worth of a stream, on the stack. */
static int send_once(int fd, uint32_t id, struct source src, const struct runs *rs, bool drop,
		     const struct page_known *known, uint64_t *sent, uint64_t deadline, struct err *e)
{
	char block[PAGE_FRAME_DATA_MAX] __attribute__((aligned(4096)));
	struct page_stream s;
	int r;

	stream_init(&s, block, fd, deadline);
	s.id = id;
	s.src = src;
	s.known = known;
	r = drop ? stream_drop(&s, rs, e) : stream_add(&s, rs, e);
	if (!r)
		r = stream_flush(&s, e);
	if (sent)
		*sent += s.sent;
	return r < 0 ? r : (int)MIN(s.skipped, (uint64_t)INT32_MAX);
}

int pages_send(int fd, pid_t pid, int memfd, uint32_t proc, const struct vma *v,
	       const struct runs *rs, uint64_t *sent, uint64_t deadline, struct err *e)
{
	return send_once(fd, proc, process_source(pid, memfd, v), rs, false, NULL, sent, deadline, e);
}

int pages_send_file(int fd, int src, uint32_t object, const struct runs *rs, const struct page_known *known,
		    uint64_t *sent, uint64_t deadline, struct err *e)
{
	return send_once(fd, object, (struct source){ .fd = src, .by_fd = true }, rs, false, known, sent,
			 deadline, e);
}

int pages_send_drop(int fd, uint32_t proc, const struct runs *rs, uint64_t *sent,
		    uint64_t deadline, struct err *e)
{
	return send_once(fd, proc, (struct source){ .fd = -1 }, rs, true, NULL, sent, deadline, e);
}

/* ---- receiving */

/* RUN_SAME and RUN_SAME_AT come in pairs of one length. */
static bool same_pairs(const struct page_run *runs, uint32_t n, uint32_t i)
{
	if (runs[i].kind == RUN_SAME)
		return i + 1 < n && runs[i + 1].kind == RUN_SAME_AT && runs[i + 1].npages == runs[i].npages;
	return runs[i].kind != RUN_SAME_AT || (i > 0 && runs[i - 1].kind == RUN_SAME);
}

static int header_check(const struct page_frame *h, struct err *e)
{
	if (!page_frame_is(h->magic) || !h->nruns || h->nruns > PAGE_FRAME_RUNS_MAX || h->bytes > PAGE_FRAME_DATA_MAX ||
	    (h->magic == PAGE_FRAME_MAGIC ? h->bytes % PAGE : !h->bytes))
		return err_set(e, EPROTO, "page frame: bad header: magic %x, %u runs, %u bytes", h->magic, h->nruns, h->bytes);
	return 0;
}

/* Checks a table of runs against the caps and against the bytes that the header announces. */
int page_frame_size(const struct page_frame *h, const struct page_run *runs, struct err *e)
{
	uint64_t data = 0;
	uint32_t i;

	for (i = 0; i < h->nruns; i++) {
		const struct page_run *r = &runs[i];

		if (r->addr % PAGE || !r->npages || r->npages > PAGE_RUN_PAGES_MAX ||
		    r->addr > PAGE_ADDR_MAX || r->npages * PAGE > PAGE_ADDR_MAX - r->addr ||
		    r->kind > RUN_SAME_AT || !same_pairs(runs, h->nruns, i))
			return err_set(e, EPROTO, "page frame: bad run %u: %llx + %u pages, kind %u", i,
				       (unsigned long long)r->addr, r->npages, r->kind);
		if (r->kind == RUN_DATA)
			data += r->npages * PAGE;
	}
	/* what was compressed is smaller, and no more than fits a frame that is not */
	if (h->magic == PAGE_FRAME_MAGIC ? data != h->bytes : data <= h->bytes || data > PAGE_FRAME_DATA_MAX)
		return err_set(e, EPROTO, "page frame: %llu bytes in its runs, %u announced",
			       (unsigned long long)data, h->bytes);
	return (int)data;
}

int page_frame_unpack(const void *frame, size_t len, void *out, struct err *e)
{
	const struct page_run *runs = (const void *)((const char *)frame + sizeof(struct page_frame));
	const struct page_frame *h = frame;
	size_t table;
	int r = len < sizeof(*h) ? err_set(e, EPROTO, "page frame: too short") : header_check(h, e);

	if (r < 0)
		return r;
	table = sizeof(*h) + h->nruns * sizeof(*runs);
	if (table > len || h->bytes != len - table)
		return err_set(e, EPROTO, "page frame: %u bytes announced in %zu", h->bytes, len);
	r = page_frame_size(h, runs, e);
	if (r >= 0 && h->magic == PAGE_FRAME_LZ4 && pack_undo((const char *)frame + table, h->bytes, out, (size_t)r, e) < 0)
		return -EBADMSG;
	if (r >= 0 && h->magic == PAGE_FRAME_MAGIC)
		memcpy(out, (const char *)frame + table, h->bytes);
	return r;
}

static int frame_apply(const struct page_sink *sink, const struct page_frame *h,
		       const struct page_run *runs, const char *data, struct err *e)
{
	uint32_t i;
	int r;

	for (i = 0; i < h->nruns && !sink->same; i++)
		if (runs[i].kind >= RUN_SAME)
			return err_set(e, EPROTO, "page frame: pages that are stored elsewhere");
	if (sink->frame)
		return sink->frame(sink->arg, h->id, runs, h->nruns, data, e);
	for (i = 0; i < h->nruns; i++) {
		uint64_t len = runs[i].npages * PAGE;
		bool is_data = runs[i].kind == RUN_DATA;

		if (runs[i].kind == RUN_SAME_AT)
			continue;
		r = runs[i].kind == RUN_SAME ?
			    sink->same(sink->arg, h->id, runs[i].addr, runs[i].npages, runs[i + 1].addr / PAGE, e) :
			    sink->run(sink->arg, h->id, runs[i].addr, len, (int)runs[i].kind,
			      is_data ? data : NULL, e);
		if (r < 0)
			return r;
		if (is_data)
			data += len;
	}
	return 0;
}

int pages_recv(int fd, const struct page_sink *sink, uint64_t *got, uint64_t deadline,
	       struct err *e)
{
	char block[PAGE_FRAME_DATA_MAX] __attribute__((aligned(4096)));
	char packed[PAGE_FRAME_DATA_MAX];
	struct page_run runs[PAGE_FRAME_RUNS_MAX];
	struct iovec in[2];
	struct page_frame h;
	char *data;
	int r, size;

	r = io_read_full(fd, &h, sizeof(h), deadline, e);
	if (r < 0)
		return err_wrap(e, "page frame");
	r = header_check(&h, e);
	if (r < 0)
		return r;
	data = h.magic == PAGE_FRAME_LZ4 ? packed : block;
	r = io_read_full(fd, runs, h.nruns * sizeof(*runs), deadline, e);
	if (r < 0)
		return err_wrap(e, "page frame");
	size = page_frame_size(&h, runs, e);
	if (size < 0)
		return size;
	if (h.bytes) {
		r = io_read_full(fd, data, h.bytes, deadline, e);
		if (r < 0)
			return err_wrap(e, "page frame");
	}
	in[0] = (struct iovec){ runs, h.nruns * sizeof(*runs) };
	in[1] = (struct iovec){ data, h.bytes };
	if (DIGESTS && page_frame_digest(&h, in, 2) != h.digest)
		return err_set(e, EBADMSG, "page frame: damaged");
	if (data == packed && pack_undo(packed, h.bytes, block, (size_t)size, e) < 0)
		return -EBADMSG;
	if (got)
		*got += sizeof(h) + h.nruns * sizeof(*runs) + h.bytes;
	return frame_apply(sink, &h, runs, block, e);
}

/* ---- putting pages in place */

int pages_put(pid_t pid, int memfd, bool writable, uint64_t addr, const void *data, uint64_t len,
	      struct err *e)
{
	const char *p = data;

	if (writable) {
		struct iovec local = { (void *)(uintptr_t)data, len };
		struct iovec remote = { (void *)(uintptr_t)addr, len };
		ssize_t n = process_vm_writev(pid, &local, 1, &remote, 1, 0);

		if (n < 0 && (errno != EFAULT || memfd < 0))
			return err_sys(e, "write memory of process %d at %llx", (int)pid,
				       (unsigned long long)addr);
		n = MAX(n, 0);
		addr += (uint64_t)n;
		len -= (uint64_t)n;
		p += n;
	}
	while (len) {
		ssize_t n = pwrite(memfd, p, len, (off_t)addr);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_num(e, n ? errno : EIO, "write memory of process %d at %llx",
				       (int)pid, (unsigned long long)addr);
		addr += (uint64_t)n;
		len -= (uint64_t)n;
		p += n;
	}
	return 0;
}

int pages_put_runs(pid_t pid, int memfd, bool writable, const struct page_run *runs, size_t n,
		   const void *data, struct err *e)
{
	struct iovec remote[PUT_IOV];
	const char *p = data;
	size_t i = 0, k, from;
	int r;

	while (i < n) {
		struct iovec local = { (void *)(uintptr_t)p, 0 };
		ssize_t done = 0;

		from = i;
		for (k = 0; i < n && k < PUT_IOV; i++) {
			if (runs[i].kind != RUN_DATA)
				continue;
			remote[k].iov_base = (void *)(uintptr_t)runs[i].addr;
			remote[k].iov_len = runs[i].npages * PAGE;
			local.iov_len += remote[k++].iov_len;
		}
		if (writable && k)
			done = process_vm_writev(pid, &local, 1, remote, k, 0);
		if (done < 0 && errno != EFAULT)
			return err_sys(e, "write memory of process %d", (int)pid);
		if (done == (ssize_t)local.iov_len) {
			p += done;
			continue;
		}
		for (; from < i; from++) { /* one of them is not writable: one by one */
			uint64_t len = runs[from].npages * PAGE;

			if (runs[from].kind != RUN_DATA)
				continue;
			r = pages_put(pid, memfd, writable, runs[from].addr, p, len, e);
			if (r < 0)
				return r;
			p += len;
		}
	}
	return 0;
}

int pages_zero_present(pid_t pid, int memfd, int pagemap, bool writable, const struct vma *v,
		       uint64_t addr, uint64_t len, struct err *e)
{
	static const char zeros[16 * PAGE];
	struct vma part = *v;
	struct runs there = { 0 };
	size_t i;
	int r;

	part.start = addr;
	part.end = addr + len;
	r = pagemap_scan_present(pagemap, &part, &there, e);
	for (i = 0; !r && i < there.n; i++) {
		uint64_t at = there.r[i].start;

		while (!r && at < there.r[i].end) {
			uint64_t k = MIN(there.r[i].end - at, sizeof(zeros));

			r = pages_put(pid, memfd, writable, at, zeros, k, e);
			at += k;
		}
	}
	runs_done(&there);
	return r;
}

int file_data_runs(int fd, uint64_t size, struct runs *out, struct err *e)
{
	autoclose int own = -1; /* a description of our own: the other's offset stays where it is */
	char path[40];
	uint64_t at = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0)
		return err_sys(e, "open '%s'", path);
	while (at < size) {
		off_t data = lseek(own, (off_t)at, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			break; /* nothing but hole up to the end */
		hole = data < 0 ? -1 : lseek(own, data, SEEK_HOLE);
		if (hole < 0)
			return err_sys(e, "SEEK_DATA");
		if ((uint64_t)data >= size)
			break;
		if (runs_add(out, ALIGN_DOWN((uint64_t)data, PAGE),
			     MIN(ALIGN_UP((uint64_t)hole, PAGE), ALIGN_UP(size, PAGE))))
			return err_num(e, ENOMEM, "SEEK_DATA");
		at = ALIGN_UP((uint64_t)hole, PAGE);
	}
	return 0;
}
