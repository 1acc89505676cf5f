/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The mappings of a process, from /proc/PID/maps.
 *
 * The whole file is read into one buffer that the list keeps, and parsed there by hand in one pass
 * (19 us for 124 mappings where sscanf takes 65): names are pointers into that buffer, ended by a
 * NUL in place of the newline. A second reading reuses buffer and table, so that inside the freeze
 * nothing is allocated.
 *
 * What a mapping is made of is told from its name and its device together: a name alone can be
 * forged by a file that is called "/memfd:x". Shared anonymous memory, memfds and SysV segments all
 * live on the kernel's internal tmpfs, whose device number is learnt from a memfd of our own; the
 * same names on another device are huge pages. A file on a hugetlbfs that is mounted somewhere can
 * only be told from smaps: maps_read_flags() turns it into VMA_OTHER.
 *
 * Limits: a path that really ends in " (deleted)" is taken for a deleted one. The list is a
 * snapshot:
 * of a running process it may be wrong before it is read; in the freeze it is exact.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "pod/base/util.h"
#include "pod/mem/mem.h"

#define MAPS_MAX (256u << 20) /* bytes of maps or smaps; 65530 mappings are 8 MiB of maps */
#define TASK_TOP 0x7ffffffff000ull

/* ---- reading */

/* Reads all of /proc/@pid/@file into *@buf (grown as needed, NUL-terminated). */
static int slurp(pid_t pid, const char *file, char **buf, size_t *cap, size_t *len, struct err *e)
{
	autoclose int fd = -1;
	char path[64];
	size_t n = 0;
	ssize_t r;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	for (;;) {
		if (*cap - n < 8192) {
			size_t want = *cap ? *cap * 2 : 32768;
			char *p = want <= MAPS_MAX ? realloc(*buf, want) : NULL;

			if (!p)
				return err_num(e, ENOMEM, "%s", path);
			*buf = p;
			*cap = want;
		}
		r = read(fd, *buf + n, *cap - n - 1);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_sys(e, "read '%s'", path);
		if (!r)
			break;
		n += (size_t)r;
	}
	(*buf)[n] = '\0';
	*len = n;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* A hex number ended by @end. Returns what follows, or NULL. */
static char *hex(char *p, char end, uint64_t *out)
{
	uint64_t v = 0;
	char *from = p;
	int d;

	while ((d = hex_digit(*p)) >= 0 && p - from < 16) {
		v = v << 4 | (uint64_t)d;
		p++;
	}
	if (p == from || *p != end)
		return NULL;
	*out = v;
	return p + 1;
}

static char *decimal(char *p, uint64_t *out)
{
	uint64_t v = 0;
	char *from = p;

	for (; *p >= '0' && *p <= '9'; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	*out = v;
	return p == from ? NULL : p;
}

/* The kernel writes a newline in a path as \012, and nothing else that way. */
static void unescape(char *s)
{
	char *to = strstr(s, "\\012");

	if (!to)
		return;
	for (s = to; *s; to++) {
		if (!strncmp(s, "\\012", 4)) {
			*to = '\n';
			s += 4;
		} else {
			*to = *s++;
		}
	}
	*to = '\0';
}

/* ---- what it is */

static bool starts(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

static const struct {
	const char *name;
	enum vma_type type;
} special[] = {
	{ "[heap]", VMA_ANON },	      { "[stack]", VMA_ANON },	     { "[vdso]", VMA_VDSO },
	{ "[vvar]", VMA_VVAR },	      { "[vvar_vclock]", VMA_VVAR }, { "[vsyscall]", VMA_VSYSCALL },
};

static enum vma_type bracket_type(const struct vma *v)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(special); i++)
		if (!strcmp(v->name, special[i].name))
			return special[i].type;
	if (starts(v->name, "[anon:") && !v->ino)
		return VMA_ANON;
	return VMA_OTHER; /* [uprobes], and whatever comes */
}

static enum vma_type vma_classify(const struct vma *v, uint64_t shm_dev)
{
	const char *s = v->name;

	if (!*s)
		return v->shared || v->ino ? VMA_OTHER : VMA_ANON;
	if (v->dev == shm_dev && (v->ino || starts(s, "/SYSV"))) { /* an id is the inode number, and the first is 0 */
		if (starts(s, "[anon_shmem:"))
			return VMA_SHMEM;
		if (!v->deleted)
			return VMA_OTHER;
		if (!strcmp(s, "/dev/zero"))
			return VMA_SHMEM;
		if (starts(s, "/memfd:"))
			return VMA_MEMFD;
		return starts(s, "/SYSV") && strlen(s) == 13 ? VMA_SYSV : VMA_OTHER;
	}
	if (*s == '[')
		return bracket_type(v);
	if (*s != '/' || !v->ino)
		return VMA_OTHER; /* anon_inode:[...], socket:[...] */
	if (v->deleted && (starts(s, "/memfd:") || starts(s, "/SYSV") || starts(s, "/[aio]") ||
			   starts(s, "/anon_hugepage") || starts(s, "/secretmem")))
		return VMA_OTHER;
	if (starts(s, "/dev/") && !starts(s, "/dev/shm/"))
		/* a private mapping of /dev/zero is anonymous memory in all but name */
		return !strcmp(s, "/dev/zero") && !v->shared ? VMA_ANON : VMA_OTHER;
	return VMA_FILE;
}

/* The device of the kernel's internal tmpfs. */
static int shm_dev_learn(uint64_t *dev, struct err *e)
{
	autoclose int fd = memfd_create("podmigrate", MFD_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, "memfd_create");
	*dev = st.st_dev;
	return 0;
}

/* ---- one line: "start-end rwxp offset major:minor inode    name" */

static char *parse_head(char *p, struct vma *v)
{
	uint64_t major_nr, minor_nr;

	if (!(p = hex(p, '-', &v->start)) || !(p = hex(p, ' ', &v->end)))
		return NULL;
	if (strnlen(p, 5) < 5 || p[4] != ' ')
		return NULL;
	v->prot = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) |
		  (p[2] == 'x' ? PROT_EXEC : 0);
	v->shared = p[3] == 's';
	p += 5;
	if (!(p = hex(p, ' ', &v->pgoff)) || !(p = hex(p, ':', &major_nr)) ||
	    !(p = hex(p, ' ', &minor_nr)))
		return NULL;
	v->dev = makedev(major_nr, minor_nr);
	return decimal(p, &v->ino);
}

static int parse_line(char *line, char *eol, struct vma *v)
{
	static const char gone[] = " (deleted)";
	const size_t glen = sizeof(gone) - 1;
	char *p;

	memset(v, 0, sizeof(*v));
	*eol = '\0';
	p = parse_head(line, v);
	if (!p)
		return -EPROTO;
	while (*p == ' ')
		p++;
	v->name = p;
	if ((size_t)(eol - p) > glen && !memcmp(eol - glen, gone, glen)) {
		v->deleted = true;
		eol[-(ptrdiff_t)glen] = '\0';
	}
	unescape(p);
	return 0;
}

static int list_grow(struct vma_list *l)
{
	size_t cap = l->cap ? l->cap * 2 : 128;
	struct vma *v = realloc(l->v, cap * sizeof(*v));

	if (!v)
		return -ENOMEM;
	l->v = v;
	l->cap = cap;
	return 0;
}

static int learn(struct vma_list *out, struct err *e)
{
	out->n = 0;
	return out->shm_dev ? 0 : shm_dev_learn(&out->shm_dev, e);
}

static int add_line(pid_t pid, struct vma_list *out, char *p, char *eol, struct err *e)
{
	struct vma *v;
	int r;

	if (out->n == out->cap && list_grow(out)) {
		out->n = 0;
		return err_num(e, ENOMEM, "maps of %d", (int)pid);
	}
	v = &out->v[out->n];
	r = parse_line(p, eol, v);
	if (r < 0) {
		out->n = 0;
		return err_set(e, r, "/proc/%d/maps: not understood: '%.100s'", (int)pid, p);
	}
	v->type = vma_classify(v, out->shm_dev);
	out->n++;
	return 0;
}

/**
 * maps_read - the mappings of @pid, ascending
 * @out: refilled; start it zeroed. Names are valid until it is refilled or done. On failure empty.
 */
int maps_read(pid_t pid, struct vma_list *out, struct err *e)
{
	char *p, *eol;
	int r = learn(out, e);

	if (r >= 0)
		r = slurp(pid, "maps", &out->strings, &out->scap, &out->slen, e);
	for (p = out->strings; r >= 0 && (eol = strchr(p, '\n')); p = eol + 1)
		r = add_line(pid, out, p, eol, e);
	return r < 0 ? r : 0;
}

/* ---- smaps */

static const struct {
	char name[3];
	uint32_t flag;
} vm_flags[] = {
	{ "gd", VMF_GROWSDOWN }, { "nr", VMF_NORESERVE }, { "hg", VMF_HUGEPAGE },
	{ "ac", VMF_ACCOUNT },
	{ "nh", VMF_NOHUGEPAGE }, { "dd", VMF_DONTDUMP },  { "dc", VMF_DONTFORK },
	{ "wf", VMF_WIPEONFORK }, { "lo", VMF_LOCKED },    { "io", VMF_IO },
	{ "pf", VMF_PFNMAP },	  { "ht", VMF_HUGETLB },   { "sr", VMF_SEQ },
	{ "rr", VMF_RAND },	  { "mg", VMF_MERGEABLE }, { "dp", VMF_DROPPABLE },
	{ "mw", VMF_MAYWRITE },	  { "lf", VMF_ONFAULT },   { "sl", VMF_SEALED },
	{ "ss", VMF_SHADOW },
};

/* "VmFlags: rd wr mr mw me ac sd " */
static uint32_t parse_flags(const char *p, const char *end)
{
	uint32_t out = 0;
	size_t i;

	for (; p + 2 <= end; p++) {
		if (*p == ' ')
			continue;
		for (i = 0; i < ARRAY_SIZE(vm_flags); i++)
			if (!memcmp(p, vm_flags[i].name, 2))
				out |= vm_flags[i].flag;
		p += 2;
	}
	return out;
}

/* Gives @flags to the mappings of @list that begin inside [start, end); *@i walks along. */
static void flags_apply(struct vma_list *list, size_t *i, uint64_t start, uint64_t end,
			uint32_t flags)
{
	while (*i < list->n && list->v[*i].start < start)
		(*i)++;
	for (; *i < list->n && list->v[*i].start < end; (*i)++) {
		struct vma *v = &list->v[*i];

		v->flags = v->type == VMA_SYSV ? flags : flags & ~(uint32_t)VMF_MAYWRITE;
		if (flags & (VMF_HUGETLB | VMF_PFNMAP | VMF_IO) && v->type <= VMA_SYSV)
			v->type = VMA_OTHER;
	}
}

/* "ProtectionKey:         3", above the flags of the same mapping */
static uint32_t parse_key(const char *p, const char *end)
{
	for (p += 14; p < end && *p == ' '; p++)
		;
	return p < end && *p != '0' ? VMF_PKEY : 0;
}

int maps_read_flags(pid_t pid, struct vma_list *list, struct err *e)
{
	autofree char *buf = NULL;
	size_t cap = 0, len = 0, i = 0;
	uint64_t start = 0, end = 0;
	uint32_t key = 0;
	char *p, *eol;
	int r;

	r = slurp(pid, "smaps", &buf, &cap, &len, e);
	if (r < 0)
		return r;
	for (p = buf; (eol = strchr(p, '\n')); p = eol + 1) {
		char *q;

		if (starts(p, "VmFlags:"))
			flags_apply(list, &i, start, end, key | parse_flags(p + 8, eol));
		else if (starts(p, "ProtectionKey:"))
			key = parse_key(p, eol);
		else if (hex_digit(*p) >= 0 && (q = hex(p, '-', &start)))
			hex(q, ' ', &end);
	}
	return 0;
}

/** maps_read_all - mappings and flags of a running process: those of one mapping belong together */
int maps_read_all(pid_t pid, struct vma_list *out, struct err *e)
{
	uint32_t key = 0;
	char *p, *eol;
	int r = learn(out, e);

	if (r >= 0)
		r = slurp(pid, "smaps", &out->strings, &out->scap, &out->slen, e);
	for (p = out->strings; r >= 0 && (eol = strchr(p, '\n')); p = eol + 1) {
		uint64_t start;

		if (starts(p, "VmFlags:") && out->n) {
			size_t i = out->n - 1;

			flags_apply(out, &i, out->v[i].start, out->v[i].end, key | parse_flags(p + 8, eol));
		} else if (starts(p, "ProtectionKey:")) {
			key = parse_key(p, eol);
		} else if (hex_digit(*p) >= 0 && hex(p, '-', &start)) {
			r = add_line(pid, out, p, eol, e);
		}
	}
	return r < 0 ? r : 0;
}

/* ---- looking things up */

/* The first mapping that ends above @addr; list->n if none. */
static size_t vma_lower(const struct vma_list *list, uint64_t addr)
{
	size_t lo = 0, hi = list->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (list->v[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/** The mapping that contains @addr, or NULL. */
const struct vma *vma_find(const struct vma_list *list, uint64_t addr)
{
	size_t i = vma_lower(list, addr);

	return i < list->n && list->v[i].start <= addr ? &list->v[i] : NULL;
}

uint64_t vma_find_hole(const struct vma_list *const *lists, size_t n, uint64_t from, uint64_t len)
{
	uint64_t at = ALIGN_UP(from, PAGE);
	bool moved = true;
	size_t i, k;

	if (!len || len > TASK_TOP || at < from)
		return 0;
	len = ALIGN_UP(len, PAGE);
	while (moved) {
		moved = false;
		if (at > TASK_TOP - len)
			return 0;
		for (i = 0; i < n; i++) {
			k = vma_lower(lists[i], at);
			if (k < lists[i]->n && lists[i]->v[k].start < at + len) {
				at = lists[i]->v[k].end;
				moved = true;
			}
			if (at > TASK_TOP - len)
				return 0;
		}
	}
	return at;
}

void vma_list_done(struct vma_list *list)
{
	free(list->v);
	free(list->strings);
	memset(list, 0, sizeof(*list));
}
