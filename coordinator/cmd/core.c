/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podctl image core: a process of an image as an ELF core, for debuggers.
 *
 * It is what the kernel would have written at the cut: a note of registers for each thread, and a
 * segment for each stretch of memory that the image has pages of, out of the whole chain. What is
 * still as in its file is not in an image either: such stretches have no bytes in the core, and
 * NT_FILE says which file to look in, as in the kernel's. A stretch of zeros is a hole in the
 * core, a long one has no bytes at all; how long decides how many segments there are, of which
 * ELF can have 65534.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <unistd.h>
#include <xxhash.h>

#include "coordinator/cmd/image.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image/image.h"
#include "pod/image/memory.h"
#include "pod/mem/mem.h"

#define SEGMENTS_MAX 65000u
#define GAP_FIRST    (64ull << 10)
#define COPY_PAGES   64u
#define XSTATE_LEAST 576u
#define XSTATE_MOST  16384u
#define VDSO_MAX     (64u << 10)

struct segment {
	const Pm__Vma *vma;
	uint64_t start, bytes, len; /* bytes: that are in the file, the first of len */
};

struct core {
	struct image_chain chain;
	struct image_memory mem;
	Pm__Tree *tree;
	const Pm__Proc *p;
	struct segment *seg;
	size_t n, cap;
	char *notes;
	size_t notes_len;
	char *vdso; /* NULL: that of the image's node is not known here */
	size_t vdso_len;
};

/* ---- segments */

/* Is the rest of it in a file that the debugger can open? */
static bool of_file(const Pm__Vma *v)
{
	return v->type == VMA_FILE;
}

static bool has_bytes(const struct core *k, const Pm__Vma *v, const struct span *x)
{
	if (v->type == VMA_VDSO)
		return k->vdso && k->vdso_len == v->end - v->start;
	return x->kind == SPAN_PAGES || (x->kind == SPAN_ZERO && of_file(v));
}

static int add_segment(struct core *k, const Pm__Vma *v, uint64_t start)
{
	if (k->n == SEGMENTS_MAX)
		return -EFBIG;
	if (k->n == k->cap) {
		size_t cap = k->cap ? k->cap * 2 : 256;
		struct segment *ns = reallocarray(k->seg, cap, sizeof(*ns));

		if (!ns)
			return -ENOMEM;
		k->seg = ns;
		k->cap = cap;
	}
	k->seg[k->n++] = (struct segment){.vma = v, .start = start};
	return 0;
}

/* Stretches without bytes that are shorter than @gap become zeros, unless the debugger shall find them in a file. */
static int add_mapping(struct core *k, const Pm__Vma *v, uint64_t gap)
{
	uint64_t at = v->start, end;
	int r = add_segment(k, v, at);

	for (; r >= 0 && at < v->end; at = end) {
		struct span x = memory_of_vma(&k->mem, k->p->pid, v, at, v->end);
		struct segment *s = &k->seg[k->n - 1];
		uint64_t bare = s->len - s->bytes;

		end = (uint64_t)x.end;
		if (has_bytes(k, v, &x)) {
			if (bare && (of_file(v) || bare >= gap))
				r = add_segment(k, v, at);
			s = &k->seg[k->n - 1];
			s->bytes = end - s->start;
		}
		s->len = end - s->start;
	}
	return r;
}

static int add_segments(struct core *k, struct err *e)
{
	uint64_t gap = GAP_FIRST;
	int r = -EFBIG;

	for (; r == -EFBIG && gap < PAGE_ADDR_MAX; gap *= 4) {
		k->n = 0;
		r = 0;
		for (size_t i = 0; r >= 0 && i < k->p->mm->n_vmas; i++)
			if (!(k->p->mm->vmas[i]->flags & VMF_DONTDUMP) &&
			    k->p->mm->vmas[i]->type != VMA_VVAR)
				r = add_mapping(k, k->p->mm->vmas[i], gap);
	}
	return r < 0 ? err_num(e, -r, "pid %u: its mappings as segments", k->p->pid) : 0;
}

/* ---- notes */

static void note(FILE *f, const char *name, uint32_t type, const void *data, size_t len)
{
	Elf64_Nhdr h = {(Elf64_Word)strlen(name) + 1, (Elf64_Word)len, type};
	static const char zeros[8];

	fwrite(&h, sizeof(h), 1, f);
	fwrite(name, h.n_namesz, 1, f);
	fwrite(zeros, ALIGN_UP(h.n_namesz, 4u) - h.n_namesz, 1, f);
	fwrite(data, 1, len, f);
	fwrite(zeros, ALIGN_UP(len, 4u) - len, 1, f);
}

static int note_program(struct core *k, FILE *f, struct err *e)
{
	const Pm__Mm *mm = k->p->mm;
	struct elf_prpsinfo info = {.pr_sname = 'R',
				    .pr_nice = (char)k->p->threads[0]->nice,
				    .pr_uid = k->p->uid,
				    .pr_gid = k->p->gid,
				    .pr_pid = (int)k->p->pid,
				    .pr_ppid = (int)k->p->ppid,
				    .pr_pgrp = (int)k->p->pgid,
				    .pr_sid = (int)k->p->sid};
	size_t len = mm->arg_end > mm->arg_start
			     ? MIN(mm->arg_end - mm->arg_start, sizeof(info.pr_psargs) - 1)
			     : 0;

	memcpy(info.pr_fname, k->p->comm, strnlen(k->p->comm, sizeof(info.pr_fname)));
	if (memory_read(&k->chain, &k->mem, k->p, mm->arg_start, info.pr_psargs, len, e) < 0)
		return e->code;
	for (size_t i = 0; i + 1 < len; i++)
		if (!info.pr_psargs[i])
			info.pr_psargs[i] = ' ';
	note(f, "CORE", NT_PRPSINFO, &info, sizeof(info));
	note(f, "CORE", NT_AUXV, mm->auxv.data, mm->auxv.len);
	return 0;
}

static int note_files(const struct core *k, FILE *f, struct err *e)
{
	const Pm__Mm *mm = k->p->mm;
	uint64_t head[2] = {0, PAGE};
	char *data = NULL;
	size_t len;
	FILE *m = open_memstream(&data, &len);

	if (!m)
		return err_num(e, ENOMEM, "core");
	for (size_t i = 0; i < mm->n_vmas; i++)
		head[0] += of_file(mm->vmas[i]);
	fwrite(head, sizeof(head), 1, m);
	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Pm__Vma *v = mm->vmas[i];
		uint64_t entry[3] = {v->start, v->end, v->pgoff / PAGE};

		if (of_file(v))
			fwrite(entry, sizeof(entry), 1, m);
	}
	for (size_t i = 0; i < mm->n_vmas; i++)
		if (of_file(mm->vmas[i]))
			fwrite(mm->vmas[i]->name, strlen(mm->vmas[i]->name) + 1, 1, m);
	if (fclose(m) == 0)
		note(f, "CORE", NT_FILE, data, len);
	free(data);
	return 0;
}

static int note_threads(struct core *k, FILE *f, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < k->p->n_threads; i++) {
		const Pm__Thread *t = k->p->threads[i];
		struct elf_prstatus s = {.pr_sighold = t->sigmask,
					 .pr_pid = (int)t->tid,
					 .pr_ppid = (int)k->p->ppid,
					 .pr_pgrp = (int)k->p->pgid,
					 .pr_sid = (int)k->p->sid,
					 .pr_fpvalid = 1};

		_Static_assert(sizeof(struct user_regs_struct) == sizeof(s.pr_reg), "one layout");
		if (t->gp.len != sizeof(s.pr_reg) || t->xstate.len < XSTATE_LEAST || t->xstate.len > XSTATE_MOST)
			return err_set(e, EBADMSG, "thread %u: its registers are damaged", t->tid);
		memcpy(&s.pr_reg, t->gp.data, sizeof(s.pr_reg));
		note(f, "CORE", NT_PRSTATUS, &s, sizeof(s));
		if (!i)
			r = note_program(k, f, e);
		if (!i && r >= 0)
			r = note_files(k, f, e);
		note(f, "CORE", NT_FPREGSET, t->xstate.data, sizeof(struct user_fpregs_struct));
		note(f, "LINUX", NT_X86_XSTATE, t->xstate.data, t->xstate.len);
	}
	return r;
}

static int make_notes(struct core *k, struct err *e)
{
	FILE *f = open_memstream(&k->notes, &k->notes_len);
	int r = f ? note_threads(k, f, e) : -ENOMEM;

	if (f && fclose(f) != 0)
		r = -ENOMEM;
	return r == -ENOMEM ? err_num(e, ENOMEM, "core") : r;
}

/* The kernel's code in the process is in no file and in no image; it is ours if the image was made on such a kernel. */
static void find_vdso(struct core *k)
{
	Pm__Needs *needs = (Pm__Needs *)image_message(chain_top(&k->chain), REC_NEEDS,
						      &pm__needs__descriptor, &(struct err){0});
	autoclose int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	size_t len = needs && needs->host ? needs->host->vdso_len : 0;

	if (len && len <= VDSO_MAX && mem >= 0 && (k->vdso = malloc(len)) &&
	    pread(mem, k->vdso, len, (off_t)getauxval(AT_SYSINFO_EHDR)) == (ssize_t)len &&
	    XXH3_64bits(k->vdso, len) == needs->host->vdso_hash) {
		k->vdso_len = len;
	} else {
		free(k->vdso);
		k->vdso = NULL;
	}
	if (needs)
		pm__needs__free_unpacked(needs, NULL);
}

/* ---- the file */

static int put(int fd, const void *data, size_t len, uint64_t at, struct err *e)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_num(e, n ? errno : ENOSPC, "write");
		data = (const char *)data + n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

static int put_segment(const struct core *k, int fd, const struct segment *s, uint64_t off,
		       struct err *e)
{
	static char buf[COPY_PAGES * PAGE] __attribute__((aligned(4096)));
	uint64_t at = s->start, end = s->start + s->bytes;
	int r = 0;

	if (s->vma->type == VMA_VDSO)
		return put(fd, k->vdso, s->bytes, off, e);
	while (r >= 0 && at < end) {
		struct span x = memory_of_vma(&k->mem, k->p->pid, s->vma, at, end);
		uint64_t to = (uint64_t)x.end;

		if (x.kind == SPAN_PAGES) {
			to = MIN(to, at + sizeof(buf));
			r = chain_read(&k->chain, x.page, (to - at) / PAGE, buf, e);
			if (r >= 0)
				r = put(fd, buf, to - at, off + (at - s->start), e);
		}
		at = to;
	}
	return r;
}

static int put_core(const struct core *k, int fd, struct err *e)
{
	size_t n = k->n + 1;
	uint64_t heads = sizeof(Elf64_Ehdr) + n * sizeof(Elf64_Phdr),
		 off = ALIGN_UP(heads + k->notes_len, PAGE);
	autofree Elf64_Phdr *ph = calloc(n, sizeof(*ph));
	Elf64_Ehdr eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				     EV_CURRENT},
			 .e_type = ET_CORE,
			 .e_machine = EM_X86_64,
			 .e_version = EV_CURRENT,
			 .e_phoff = sizeof(eh),
			 .e_ehsize = sizeof(eh),
			 .e_phentsize = sizeof(*ph),
			 .e_phnum = (Elf64_Half)n};
	int r;

	if (!ph)
		return err_num(e, ENOMEM, "core");
	ph[0] = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = heads, .p_filesz = k->notes_len, .p_align = 4};
	r = put(fd, k->notes, k->notes_len, heads, e);
	for (size_t i = 0; r >= 0 && i < k->n; i++) {
		const struct segment *s = &k->seg[i];
		uint32_t prot = s->vma->prot;

		ph[i + 1] = (Elf64_Phdr){.p_type = PT_LOAD,
					 .p_offset = off,
					 .p_vaddr = s->start,
					 .p_filesz = s->bytes,
					 .p_memsz = s->len,
					 .p_align = PAGE,
					 .p_flags = (prot & 1 ? PF_R : 0) | (prot & 2 ? PF_W : 0) |
						    (prot & 4 ? PF_X : 0)};
		r = put_segment(k, fd, s, off, e);
		off += s->bytes;
	}
	if (r >= 0)
		r = put(fd, &eh, sizeof(eh), 0, e);
	if (r >= 0)
		r = put(fd, ph, n * sizeof(*ph), sizeof(eh), e);
	if (r >= 0 && ftruncate(fd, (off_t)off) < 0)
		r = err_sys(e, "write");
	return r;
}

/* Under its name when it is whole. It holds all that the process knew: it is for the caller alone. */
static int save_core(struct ctx *c, const struct core *k, const char *path)
{
	char temp[PATH_MAX];
	struct err e = {0};
	struct stat st;
	int fd, r;

	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return say(c, EXIT_OTHER, "'%s': it is not a regular file", path);
	if ((size_t)snprintf(temp, sizeof(temp), "%s.%d.part", path, (int)getpid()) >= sizeof(temp))
		return say_usage(c, "'%s' is too long", path);
	fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return say(c, EXIT_OTHER, "'%s': %s", temp, strerror(errno));
	r = put_core(k, fd, &e);
	if (close(fd) < 0 && r >= 0)
		r = err_sys(&e, "write");
	if (r >= 0 && rename(temp, path) < 0)
		r = err_sys(&e, "rename");
	if (r >= 0)
		return EXIT_OK;
	unlink(temp);
	err_wrap(&e, "'%s'", path);
	return image_error(c, &e);
}

/* ---- the command */

static int load(struct ctx *c, struct core *k, const char *path, uint64_t pid)
{
	struct err e = {0};

	if (chain_open(&k->chain, path, NULL, &e) < 0)
		return image_error(c, &e);
	k->tree = (Pm__Tree *)image_message(chain_top(&k->chain), REC_FINAL, &pm__tree__descriptor,
					    &e);
	if (!k->tree)
		return image_error(c, &e);
	for (size_t i = 0; !k->p && i < k->tree->n_procs; i++)
		if (k->tree->procs[i]->pid == pid)
			k->p = k->tree->procs[i];
	if (!k->p)
		return say(c, EXIT_NOTFOUND, "there is no process %lu in the image",
			   (unsigned long)pid);
	if (k->p->zombie || !k->p->mm || !k->p->n_threads)
		return say(c, EXIT_NOTFOUND, "process %lu had ended: it has no memory",
			   (unsigned long)pid);
	find_vdso(k);
	if (memory_check(k->p, &e) < 0 || memory_load(&k->chain, &k->mem, &e) < 0 ||
	    add_segments(k, &e) < 0 || make_notes(k, &e) < 0)
		return image_error(c, &e);
	return EXIT_OK;
}

static void unload(struct core *k)
{
	if (k->tree)
		pm__tree__free_unpacked(k->tree, NULL);
	free(k->seg);
	free(k->notes);
	free(k->vdso);
	memory_done(&k->mem);
	chain_close(&k->chain);
}

int image_core(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {{"output", required_argument, NULL, 'o'},
					      {"help", no_argument, NULL, 'h'},
					      {NULL, 0, NULL, 0}};
	const char *out = NULL;
	char path[PATH_MAX], own[32];
	struct core k = {.n = 0};
	uint64_t pid;
	int o, code;

	while ((o = next_option(c, argc, argv, ":o:h", longs)) != -1) {
		if (o != 'o')
			return o == 'h' ? EXIT_OK : usage_code(c);
		out = optarg;
	}
	if (argc - optind != 2)
		return say_usage(c, argc - optind < 2 ? "which process of which image?"
						      : "too many operands");
	if (parse_number(c, "PID", argv[optind + 1], 1, 1 << 22, &pid) < 0)
		return usage_code(c);
	code = find_image(c, argv[optind], path, sizeof(path), NULL);
	if (code)
		return code;
	snprintf(own, sizeof(own), "core.%lu", (unsigned long)pid);
	out = out ? out : own;
	code = load(c, &k, path, pid);
	if (!code)
		code = save_core(c, &k, out);
	if (!code)
		printf("%s\n", out);
	unload(&k);
	return code;
}
