/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libFuzzer: page frames from an untrusted peer. What gets through must be within the caps. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pod/base/io.h"
#include "pod/mem/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static unsigned char sum;

static int check_run(void *arg, uint32_t id, uint64_t addr, uint64_t len, int kind,
		     const void *data, struct err *e)
{
	const unsigned char *p = data;
	uint64_t i;

	(void)arg, (void)id, (void)e;
	if (addr % PAGE || len % PAGE || !len || addr + len < addr || addr + len > PAGE_ADDR_MAX ||
	    kind < RUN_DATA || kind > RUN_DROP || (kind == RUN_DATA) != (p != NULL) ||
	    (p && len > PAGE_FRAME_DATA_MAX))
		abort();
	for (i = 0; p && i < len; i += 64)
		sum = (unsigned char)(sum + p[i]);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	const struct page_sink sink = { .run = check_run };
	struct err e;
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || pwrite(fd, bytes, len, 0) != (ssize_t)len)
		abort();
	while (pages_recv(fd, &sink, NULL, IO_FOREVER, &e) == 0)
		;
	close(fd);
	return 0;
}
