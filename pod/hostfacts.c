/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a host offers to a program that was started on another one: CPU features, state layout, vdso. */
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/utsname.h>
#include <xxhash.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/dump.h"
#include "pod/mem/mem.h"

/* The feature words that programs choose their code by: leaf 1 ecx edx, 7.0 ebx ecx edx, 7.1 eax, 0x80000001 ecx edx, xsave 13.0 eax 13.1 eax */
static const struct leaf {
	uint32_t leaf, sub;
	unsigned mask; /* bit n: register n of eax ebx ecx edx */
} leaves[] = { { 1, 0, 0xc }, { 7, 0, 0xe }, { 7, 1, 0x1 }, { 0x80000001, 0, 0xc }, { 13, 0, 0x1 }, { 13, 1, 0x1 } };
#define OSXSAVE_WORD 0 /* leaf 1 ecx holds bits of the moment (OSXSAVE) that do not differ between hosts */

static size_t read_features(uint32_t *words, size_t max)
{
	size_t n = 0, i;
	unsigned k;

	for (i = 0; i < ARRAY_SIZE(leaves); i++) {
		uint32_t r[4] = { 0 };

		__get_cpuid_count(leaves[i].leaf, leaves[i].sub, &r[0], &r[1], &r[2], &r[3]);
		for (k = 0; k < 4; k++)
			if (leaves[i].mask >> k & 1 && n < max)
				words[n++] = r[k];
	}
	return n;
}

int host_vdso(const uint8_t **image, size_t *len, struct err *e)
{
	struct vma_list maps = { 0 };
	uint64_t at = getauxval(AT_SYSINFO_EHDR);
	const struct vma *v;
	int r = maps_read(getpid(), &maps, e);

	if (r < 0)
		return r;
	v = vma_find(&maps, at);
	if (!v || v->type != VMA_VDSO)
		r = err_set(e, ENOENT, "this host has no vdso");
	else {
		*image = (const uint8_t *)v->start;
		*len = v->end - v->start;
	}
	vma_list_done(&maps);
	return r;
}

static void cpu_model(char *out, size_t len)
{
	uint32_t r[12] = { 0 };
	int i;

	for (i = 0; i < 3; i++)
		__get_cpuid(0x80000002u + (unsigned)i, &r[i * 4], &r[i * 4 + 1], &r[i * 4 + 2], &r[i * 4 + 3]);
	snprintf(out, len, "%.48s", (const char *)r);
}

int host_facts(Pm__HostFacts *out, void *(*alloc)(void *, size_t), void *arg, struct err *e)
{
	uint32_t words[16], eax, ebx, ecx, edx;
	struct utsname u;
	const uint8_t *vdso;
	size_t len, n;
	int r;

	pm__host_facts__init(out);
	r = host_vdso(&vdso, &len, e);
	if (r < 0)
		return r;
	if (uname(&u) < 0)
		return err_sys(e, "uname");
	out->kernel = alloc(arg, sizeof(u.release));
	out->cpu = alloc(arg, 64);
	n = read_features(words, ARRAY_SIZE(words));
	out->cpuid.data = alloc(arg, n * 4);
	if (!out->kernel || !out->cpu || !out->cpuid.data)
		return err_num(e, ENOMEM, "host facts");
	snprintf(out->kernel, sizeof(u.release), "%s", u.release);
	cpu_model(out->cpu, 64);
	out->cpuid.len = n * 4;
	memcpy(out->cpuid.data, words, n * 4);
	out->vdso_hash = XXH3_64bits(vdso, len);
	out->vdso_len = (uint32_t)len;
	if (__get_cpuid_count(13, 0, &eax, &ebx, &ecx, &edx)) {
		out->xcr0 = (uint64_t)edx << 32 | eax;
		out->xstate_len = ebx;
	}
	return 0;
}

/* Features that programs and libraries choose their code by, for messages; word: as read_features() counts */
static const struct {
	unsigned word, bit;
	const char *name;
} feature_names[] = {
	{ 0, 0, "sse3" },     { 0, 9, "ssse3" },    { 0, 12, "fma" },      { 0, 19, "sse4.1" },   { 0, 20, "sse4.2" },
	{ 0, 23, "popcnt" },  { 0, 25, "aes" },     { 0, 26, "xsave" },    { 0, 28, "avx" },      { 0, 29, "f16c" },
	{ 0, 30, "rdrand" },  { 1, 26, "sse2" },    { 2, 3, "bmi1" },      { 2, 5, "avx2" },      { 2, 8, "bmi2" },
	{ 2, 9, "erms" },     { 2, 16, "avx512f" }, { 2, 18, "rdseed" },   { 2, 29, "sha_ni" },   { 2, 30, "avx512bw" },
	{ 3, 8, "gfni" },     { 3, 9, "vaes" },     { 4, 24, "amx_tile" }, { 5, 4, "avx_vnni" },
};

static bool compare_cpu(const Pm__HostFacts *s, const Pm__HostFacts *t, char *why, size_t len)
{
	char names[100] = "", word[40];
	size_t i, k, first = SIZE_MAX;
	uint32_t a, b, lack = 0;

	if (s->cpuid.len != t->cpuid.len) {
		snprintf(why, len, "the two nodes describe their CPUs differently (other versions of podmigrate)");
		return true;
	}
	for (i = 0; i + 4 <= s->cpuid.len; i += 4) {
		memcpy(&a, s->cpuid.data + i, 4);
		memcpy(&b, t->cpuid.data + i, 4);
		if (!(a & ~b))
			continue;
		if (first == SIZE_MAX) {
			first = i / 4;
			lack = a & ~b;
		}
		for (k = 0; k < ARRAY_SIZE(feature_names); k++)
			if (feature_names[k].word == i / 4 && (a & ~b) >> feature_names[k].bit & 1 &&
			    strlen(names) + strlen(feature_names[k].name) + 2 < sizeof(names)) {
				strcat(names, feature_names[k].name);
				strcat(names, " ");
			}
	}
	if (first == SIZE_MAX)
		return false;
	snprintf(word, sizeof(word), "word %zu: %#x", first, lack);
	snprintf(why, len, "the target's CPU lacks features that programs here may use: %s(%s)", names, word);
	return true;
}

size_t host_compare(const Pm__HostFacts *s, const Pm__HostFacts *t, char why[HOST_LINES][200])
{
	size_t n = compare_cpu(s, t, why[0], sizeof(why[0]));

	if (s->xstate_len != t->xstate_len)
		snprintf(why[n++], sizeof(why[0]), "the extended registers differ: %u bytes on the target, %u here",
			 t->xstate_len, s->xstate_len);
	if (s->vdso_hash != t->vdso_hash || s->vdso_len != t->vdso_len)
		snprintf(why[n++], sizeof(why[0]),
			 "the target has another vdso, whose addresses programs have in use (kernel %s there, %s here)",
			 t->kernel, s->kernel);
	return n;
}

int host_timens_offsets(pid_t pid, int64_t out[2], struct err *e)
{
	autofree char *text = NULL;
	long long s, ns;
	char path[48], *l;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/timens_offsets", pid);
	r = io_read_file(path, 4096, &text, NULL, e);
	if (r < 0)
		return r;
	out[0] = out[1] = 0;
	for (l = text; l && *l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
		if (sscanf(l, "monotonic %lld %lld", &s, &ns) == 2)
			out[0] = s * 1000000000ll + ns;
		else if (sscanf(l, "boottime %lld %lld", &s, &ns) == 2)
			out[1] = s * 1000000000ll + ns;
	return 0;
}
