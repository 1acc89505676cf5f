/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libFuzzer: image files that others wrote: END and INDEX, HEAD, digests, frames (compressed ones, too), and what is made of them
 * without a process: the chain, which page is where. The input is read as a file, its records' digests made right; then once
 * more as all that is before INDEX, with an index that fits it. Seeds: tests/fuzz/corpus_image (made by the unit tests).
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/image/image.h"
#include "pod/image/memory.h"
#include "pod/mem/mem.h"
#include "tests/fuzz/mend.h"

#define INPUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void look_at_process(const struct image_chain *c, const struct image_memory *m,
			    const Pm__Proc *p)
{
	static char buf[4 * PAGE];

	if (memory_check(p, NULL) < 0)
		return;
	for (size_t i = 0; p->mm && i < p->mm->n_vmas && i < 64; i++) {
		const Pm__Vma *v = p->mm->vmas[i];
		uint64_t at = v->start;

		for (int n = 0; at < v->end && n < 64; n++) {
			struct span x = memory_of_vma(m, p->pid, v, at, v->end);

			if (x.start != at || x.end <= at || x.end > v->end)
				abort();
			if (x.kind == SPAN_PAGES)
				chain_read(c, x.page, 1, buf, NULL);
			at = (uint64_t)x.end;
		}
	}
	if (p->mm)
		memory_read(c, m, p, p->mm->env_start, buf, sizeof(buf), NULL);
}

static void look_at_chain(int fd)
{
	struct image_memory m = {0};
	struct image_chain c;
	Pm__Tree *t;
	char path[48];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (chain_open(&c, path, NULL, NULL) < 0)
		return;
	for (uint64_t i = 0; i < chain_count(&c) && i < 256; i++) {
		static char page[PAGE];

		if (!chain_digest(&c, i))
			abort();
		chain_read(&c, i, 1, page, NULL);
	}
	t = (Pm__Tree *)image_message(chain_top(&c), REC_FINAL, &pm__tree__descriptor, NULL);
	if (memory_load(&c, &m, NULL) >= 0) {
		for (size_t i = 1; i < m.n; i++)
			if (m.s[i].start < m.s[i - 1].end || m.s[i].end <= m.s[i].start)
				abort();
		for (size_t i = 0; t && i < t->n_procs && i < 16; i++)
			look_at_process(&c, &m, t->procs[i]);
	}
	memory_done(&m);
	if (t)
		pm__tree__free_unpacked(t, NULL);
	chain_close(&c);
}

static void look_at_file(int fd)
{
	struct image im;
	struct record rec;
	uint64_t packed;

	if (image_open_fd(&im, dup(fd), NULL) < 0)
		return;
	image_verify(&im, NULL);
	image_stored(&im, &packed);
	for (size_t i = 0; i < im.n && i < 256; i++)
		if (!entry_is_frame(&im.entry[i]) && image_record_at(&im, i, &rec, NULL) >= 0)
			record_done(&rec);
	image_close(&im);
	look_at_chain(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	static uint8_t copy[INPUT_MAX];
	struct image_file f = {.dir = -1};
	uint64_t size = len, digest;

	if (len > INPUT_MAX)
		return 0;
	memcpy(copy, bytes, len);
	mend(copy, len);
	f.fd = memfd_create("image", MFD_CLOEXEC);
	if (f.fd < 0 || write(f.fd, copy, len) != (ssize_t)len)
		abort();
	look_at_file(f.fd);
	if (image_seal(&f, &size, &digest, NULL) >= 0)
		look_at_file(f.fd);
	close(f.fd);
	return 0;
}
