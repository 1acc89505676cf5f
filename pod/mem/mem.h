/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Memory of a process, from outside: its mappings (maps.c), which pages were written since the last
 * look (track.c: userfaultfd WP_ASYNC + PAGEMAP_SCAN), and pages as runs on a data stream (pages.c).
 */
#ifndef POD_MEM_MEM_H
#define POD_MEM_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pod/base/err.h"

#define PAGE 4096ull

/* what a mapping is made of */
enum vma_type {
	VMA_ANON,	/* private, no file ([heap], [stack], [anon:x] too) */
	VMA_FILE,	/* private or shared mapping of a file that has a path */
	VMA_SHMEM,	/* "/dev/zero (deleted)": MAP_SHARED|MAP_ANONYMOUS */
	VMA_MEMFD,	/* "/memfd:name (deleted)" */
	VMA_SYSV,	/* "/SYSVxxxxxxxx (deleted)" */
	VMA_VDSO, VMA_VVAR, VMA_VSYSCALL,
	VMA_OTHER,	/* anon_inode:, devices, hugetlb ...: nobody's yet */
};

/* VmFlags of smaps that are carried or refused; 0 unless maps_flags() was called */
enum { VMF_GROWSDOWN = 1, VMF_NORESERVE = 2, VMF_HUGEPAGE = 4, VMF_NOHUGEPAGE = 8, VMF_DONTDUMP = 16,
       VMF_DONTFORK = 32, VMF_WIPEONFORK = 64, VMF_LOCKED = 128, VMF_IO = 256, VMF_PFNMAP = 512,
       VMF_HUGETLB = 1024, VMF_SEQ = 2048, VMF_RAND = 4096, VMF_MERGEABLE = 8192, VMF_DROPPABLE = 16384,
       VMF_ACCOUNT = 32768,
       VMF_MAYWRITE = 65536 /* of System V segments alone */,
       VMF_ONFAULT = 131072 /* locked, each page when it comes */, VMF_SEALED = 262144, VMF_SHADOW = 524288, VMF_PKEY = 1048576 };
/* Those that a mapping has for good: with another of them it is another mapping, whose pages are not those that came before. */
#define VMF_FOR_GOOD (VMF_MAYWRITE | VMF_GROWSDOWN | VMF_NORESERVE)

struct vma {
	uint64_t start, end;
	int prot;		/* PROT_* */
	bool shared;
	enum vma_type type;
	uint64_t pgoff;		/* bytes */
	uint64_t dev, ino;	/* makedev() form */
	uint32_t flags;		/* VMF_* */
	bool deleted;		/* the path ends in " (deleted)", cut off in name */
	char *name;		/* path or [name]; "" if none; owned by the list */
};

struct vma_list {
	struct vma *v;
	size_t n, cap;
	char *strings; size_t slen, scap; /* the text of maps; names point into it */
	uint64_t shm_dev; /* the kernel's internal tmpfs: memfd, SysV and shared anonymous memory */
};

/** Parses /proc/@pid/maps by hand (no sscanf). Refills @out (reuses its memory). */
int maps_read(pid_t pid, struct vma_list *out, struct err *e);
/** Fills flags of @list from /proc/@pid/smaps (slow: before the freeze only). */
int maps_read_flags(pid_t pid, struct vma_list *list, struct err *e);
/** Both from smaps at once: for a process that runs, where two readings would not fit together. Slow. */
int maps_read_all(pid_t pid, struct vma_list *out, struct err *e);
const struct vma *vma_find(const struct vma_list *, uint64_t addr);
void vma_list_done(struct vma_list *);
/** First hole of @len bytes at or above @from (page aligned) that is free in all @n lists; 0 = none. */
uint64_t vma_find_hole(const struct vma_list *const *lists, size_t n, uint64_t from, uint64_t len);

/* ---- runs of pages */
struct run {
	uint64_t start, end;	/* bytes, page aligned */
};
struct runs {
	struct run *r;
	size_t n, cap;
};
int runs_add(struct runs *, uint64_t start, uint64_t end); /* merges with the last one if adjacent; 0 or -ENOMEM */
uint64_t runs_pages(const struct runs *);
void runs_done(struct runs *);

/* ---- tracking: one per process (mm) */
struct tracker {
	pid_t pid;
	int uffd;		/* taken out of the process by pidfd_getfd; owned; -1: not tracked */
	int pagemap;		/* open /proc/PID/pagemap; owned; pins the mm it was opened on */
};
/** Arguments for the injected userfaultfd(2): O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY. */
int tracker_uffd_flags(void);
/** Takes over @uffd (already the engine's fd): UFFDIO_API with WP_ASYNC | WP_UNPOPULATED | WP_HUGETLBFS_SHMEM, opens pagemap. */
int tracker_init(struct tracker *, pid_t pid, int uffd, struct err *e);
/** UFFDIO_REGISTER (WP) of @v; cheap if it is tracked already, needed again where mremap has dropped tracking. 0; -EBUSY/-EINVAL... = this mapping cannot be tracked (copy it whole in the freeze). */
int tracker_register(struct tracker *, const struct vma *v, struct err *e);
/** Is all of @v tracked? What was mapped or moved since it was registered is not. 1, 0 or negative errno. */
int tracker_covers(struct tracker *, const struct vma *v, struct err *e);
/**
 * While the process runs: pages of private mapping @v written since the last call (all present ones at
 * first) into @out, and write-protects them again in the same step. Facts 15: mask WRITTEN, anyof PRESENT|SWAPPED, WP_MATCHING
 * without CHECK_WPASYNC. Skips PFNZERO and, in file mappings, pages still the file's.
 */
int tracker_scan_wp(struct tracker *, const struct vma *v, struct runs *out, struct err *e);
/**
 * In the freeze: @written = pages of @v to send, @dropped = ranges that have no page (any more) or the zero page and must read as
 * zeros/the file's content on the target. Fast path: a scan with mask = return = WRITTEN without WP over the whole of [start,end)
 * (it reports holes, too), then a scan of what it found. If @v is not tracked (WPALLOWED missing, i.e. a new mapping at an
 * old place) all present pages are written and all else is dropped. @guards: guard pages, which are dropped, too; NULL: nobody asks.
 */
int tracker_scan_final(struct tracker *, const struct vma *v, struct runs *written, struct runs *dropped, struct runs *guards,
		       struct err *e);
/** All pages of @v that hold data of the process's own (present or swapped; for VMA_FILE private: only the COWed ones), no tracking
 * needed: @pagemap is any open /proc/PID/pagemap. */
int pagemap_scan_present(int pagemap, const struct vma *v, struct runs *out, struct err *e);
/** Guard pages (MADV_GUARD_INSTALL, 6.13; must be made again on the target). -EINVAL: the kernel cannot tell them (before 6.15). */
int pagemap_scan_guard(int pagemap, const struct vma *v, struct runs *out, struct err *e);
/** Tries on ourselves (60 us) that this kernel tracks as tracker_scan_final() needs it: for host checks. 0, -ENOTSUP, ... */
int tracker_probe(struct err *e);
void tracker_done(struct tracker *);

/* ---- pages in and out */
/* What is on the stream: a frame, its runs, then the data of its data runs. Little-endian. */
#define PAGE_FRAME_MAGIC 0x32504d50u /* "PMP2" */
#define PAGE_FRAME_LZ4 0x335a4d50u /* "PMZ3": the data is one LZ4 block, and smaller than the runs say */
static inline bool page_frame_is(uint32_t magic)
{
	return magic == PAGE_FRAME_MAGIC || magic == PAGE_FRAME_LZ4;
}
#define PAGE_FRAME_DATA_MAX (256u << 10)
#define PAGE_FRAME_RUNS_MAX 4096u
#define PAGE_RUN_PAGES_MAX (1u << 28)
#define PAGE_ADDR_MAX (1ull << 56)
struct page_frame {
	uint32_t magic, nruns;
	uint32_t id; /* process or object */
	uint32_t bytes; /* of data, as it is here */
	uint64_t digest; /* XXH3 of runs and data, seeded with that of the fields above */
};
struct iovec;
struct page_pack;
/** What page_frame.digest must be: of the @n pieces that follow the header, seeded with the header's own fields. */
uint64_t page_frame_digest(const struct page_frame *h, const struct iovec *rest, int n);
/* RUN_SAME, in images only: pages that are stored elsewhere. The run after it is RUN_SAME_AT, whose addr is the number of
 * the first of them, times PAGE. */
enum { RUN_DATA, RUN_ZERO, RUN_DROP, RUN_SAME, RUN_SAME_AT };
struct page_run {
	uint64_t addr;
	uint32_t npages;
	uint32_t kind; /* RUN_* */
};
/** What a writer of images asks of a page that is not all zeros: 1 and its number if it is stored already, 0 if it is
 * stored now (and numbered), or negative errno. */
struct page_known {
	int (*look)(void *arg, const void *page, uint64_t *number); /* NULL: all pages are stored */
	void *arg;
	struct page_pack *pack; /* pack.h: compresses; NULL: nothing is compressed. Borrowed */
	int (*tick)(void *arg, uint64_t bytes, struct err *e); /* after each frame of so many bytes; < 0 ends it; NULL: not called */
	void *tick_arg;
};
/**
 * Reads runs of pages from process @pid (process_vm_readv; @memfd = open /proc/PID/mem for what is not
 * readable for the process itself, or -1) and writes them to @fd as page frames; zero pages are told
 * by kind. *@sent += bytes put on the stream. @v may be NULL.
 * Returns the number of pages that could not be read (>= 0: vanished; in the freeze that is an error) or a negative errno.
 */
int pages_send(int fd, pid_t pid, int memfd, uint32_t proc, const struct vma *v, const struct runs *, uint64_t *sent,
	       uint64_t deadline, struct err *e);
/** The same from a file-backed object (shared memory, memfd, tmpfs file): @src is its fd, runs are file offsets. */
int pages_send_file(int fd, int src, uint32_t object, const struct runs *, const struct page_known *, uint64_t *sent,
		    uint64_t deadline, struct err *e);
/** A drop frame for ranges. */
int pages_send_drop(int fd, uint32_t proc, const struct runs *, uint64_t *sent, uint64_t deadline, struct err *e);

/**
 * The same with a buffer that lasts, gathering the runs of many mappings into one frame: for the freeze, where each mapping has
 * few pages. Nothing is on the stream for sure before page_stream_flush(), which adds to *@sent and *@skipped (both may be NULL).
 */
struct page_stream;
struct page_stream *page_stream_new(int fd, const struct page_known *known); /* NULL: ENOMEM; @known may be NULL: borrowed */
int page_stream_pages(struct page_stream *, pid_t pid, int memfd, uint32_t proc, const struct vma *v, const struct runs *,
		      uint64_t deadline, struct err *e);
int page_stream_drop(struct page_stream *, uint32_t proc, const struct runs *, uint64_t deadline, struct err *e);
int page_stream_flush(struct page_stream *, uint64_t *sent, uint64_t *skipped, struct err *e);
void page_stream_free(struct page_stream *);

/** What the receiver does with a frame; @data is NULL for zero and drop. Nothing in a frame is trusted: addr, npages, counts are
 * checked against caps here; whether [addr, addr+len) is inside a mapping that the image declared is for the sink to check. */
struct page_sink {
	void *arg;
	/* data/zero/drop for @len bytes at @addr of process or object @id; 0 or negative errno */
	int (*run)(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind, const void *data, struct err *e);
	/* @npages that are stored as number @at and on; NULL: such runs are refused */
	int (*same)(void *arg, uint32_t id, uint64_t addr, uint64_t npages, uint64_t at, struct err *e);
	/* optional, instead of run: a whole frame; @data holds the data runs one after the other (-> pages_put_runs) */
	int (*frame)(void *arg, uint32_t id, const struct page_run *runs, size_t n, const void *data, struct err *e);
};
/** Reads ONE frame (the header's magic included) from @fd, hands its runs to @sink. */
int pages_recv(int fd, const struct page_sink *sink, uint64_t *got, uint64_t deadline, struct err *e);
/** How many bytes of pages the @nruns @runs of a frame with @bytes of data stand for; -EPROTO: they do not fit together. */
int page_frame_size(const struct page_frame *h, const struct page_run *runs, struct err *e);
#define PAGE_FRAME_MAX (sizeof(struct page_frame) + PAGE_FRAME_RUNS_MAX * sizeof(struct page_run) + PAGE_FRAME_DATA_MAX)
/** The pages of the frame at @frame, which is @len bytes, into the PAGE_FRAME_DATA_MAX at @out: how many bytes. Its digest is not looked at. */
int page_frame_unpack(const void *frame, size_t len, void *out, struct err *e);
/** Data ranges of a tmpfs/memfd file by SEEK_DATA/SEEK_HOLE, page aligned. */
int file_data_runs(int fd, uint64_t size, struct runs *out, struct err *e);
/** Puts data into process @pid: process_vm_writev if @writable, else through @memfd (/proc/PID/mem). */
int pages_put(pid_t pid, int memfd, bool writable, uint64_t addr, const void *data, uint64_t len, struct err *e);
/** The data runs of a whole frame, with few system calls; zero and drop runs are left to the caller. */
int pages_put_runs(pid_t pid, int memfd, bool writable, const struct page_run *, size_t n, const void *data, struct err *e);
/** Makes [@addr, @addr + @len) of anonymous mapping @v read as zeros: writes zeros where a page is, leaves holes alone.
 * @pagemap: of @pid. For zero and drop runs of anonymous memory without a call inside the process. */
int pages_zero_present(pid_t pid, int memfd, int pagemap, bool writable, const struct vma *v, uint64_t addr, uint64_t len,
		       struct err *e);

/** XXH3 of [@start, @end) as read through @memfd (/proc/PID/mem); never 0. Slow: it reads everything. */
uint64_t mem_digest(int memfd, uint64_t start, uint64_t end);

#endif
