/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The GNU build-id of a mapped program or library: two files with the same one are the same program. */
#include <elf.h>
#include <string.h>
#include <unistd.h>

#include "pod/base/util.h"
#include "pod/dump.h"

#define MAX_PHDRS 64
#define MAX_NOTES 4096

static size_t id_in_notes(const uint8_t *p, size_t len, uint8_t out[BUILD_ID_MAX])
{
	while (len >= sizeof(Elf64_Nhdr)) {
		size_t name, desc;
		Elf64_Nhdr n;

		memcpy(&n, p, sizeof(n));
		if (n.n_namesz > MAX_NOTES || n.n_descsz > MAX_NOTES)
			return 0;
		name = ALIGN_UP((size_t)n.n_namesz, (size_t)4);
		desc = ALIGN_UP((size_t)n.n_descsz, (size_t)4);
		if (sizeof(n) + name + desc > len)
			return 0;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && !memcmp(p + sizeof(n), "GNU", 4) &&
		    n.n_descsz && n.n_descsz <= BUILD_ID_MAX) {
			memcpy(out, p + sizeof(n) + name, n.n_descsz);
			return n.n_descsz;
		}
		p += sizeof(n) + name + desc;
		len -= sizeof(n) + name + desc;
	}
	return 0;
}

size_t elf_build_id(int fd, uint8_t out[BUILD_ID_MAX])
{
	uint8_t notes[MAX_NOTES];
	Elf64_Phdr ph;
	Elf64_Ehdr eh;
	size_t i, n;

	if (pread(fd, &eh, sizeof(eh), 0) != (ssize_t)sizeof(eh) || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
	    eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_phentsize != sizeof(ph))
		return 0;
	for (i = 0; i < eh.e_phnum && i < MAX_PHDRS; i++) {
		if (pread(fd, &ph, sizeof(ph), (off_t)(eh.e_phoff + i * sizeof(ph))) != (ssize_t)sizeof(ph))
			return 0;
		if (ph.p_type != PT_NOTE || ph.p_filesz > sizeof(notes) ||
		    pread(fd, notes, ph.p_filesz, (off_t)ph.p_offset) != (ssize_t)ph.p_filesz)
			continue;
		n = id_in_notes(notes, ph.p_filesz, out);
		if (n)
			return n;
	}
	return 0;
}
