/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Registers: each thread loads patterns into every register it can name (general, x87 with its control
 * word, SSE/AVX/AVX-512 with mask registers, MXCSR, flags, GS base, PKRU), stays in a loop of a few
 * milliseconds without touching them, or in a system call, and compares what is in them then.
 */
#include "wl.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <pthread.h>

struct vec {
	uint64_t w[32][8]; /* zmm0-31 */
	uint64_t k[8];
	uint16_t fcw, fcw_out;
	uint32_t mxcsr, mxcsr_out;
	double st[8];
} __attribute__((aligned(64)));

static bool has_avx, has_avx512, has_pku;
static _Atomic int stop;

static void probe_cpu(void)
{
	unsigned a, b, c = 0, d, xcr0 = 0, hi;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE))
		__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(hi) : "c"(0));
	has_avx = (c & bit_AVX) && (xcr0 & 6) == 6;
	if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
		has_avx512 = has_avx && (b & bit_AVX512F) && (b & bit_AVX512BW) &&
			     (xcr0 & 0xe0) == 0xe0;
		has_pku = c >> 4 & 1; /* OSPKE */
	}
}

/* Loads every vector register, waits @n turns (or in nanosleep when @ts is given), stores them. */
#define EACH16(OP) OP(0) OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11) OP(12) OP(13) \
	OP(14) OP(15)
#define EACH32(OP) EACH16(OP) OP(16) OP(17) OP(18) OP(19) OP(20) OP(21) OP(22) OP(23) OP(24) OP(25) OP(26) \
	OP(27) OP(28) OP(29) OP(30) OP(31)
#define LOAD_X(n) "movdqu " #n "*64(%[in]), %%xmm" #n "\n"
#define SAVE_X(n) "movdqu %%xmm" #n ", " #n "*64(%[out])\n"
#define LOAD_Y(n) "vmovdqu " #n "*64(%[in]), %%ymm" #n "\n"
#define SAVE_Y(n) "vmovdqu %%ymm" #n ", " #n "*64(%[out])\n"
#define LOAD_Z(n) "vmovdqu64 " #n "*64(%[in]), %%zmm" #n "\n"
#define SAVE_Z(n) "vmovdqu64 %%zmm" #n ", " #n "*64(%[out])\n"
#define LOAD_K(n) "kmovq 2048+" #n "*8(%[in]), %%k" #n "\n"
#define SAVE_K(n) "kmovq %%k" #n ", 2048+" #n "*8(%[out])\n"
/* r8 = turns; with turns = 0 a nanosleep of *rdi */
#define HOLD                                                                   \
	"mov %[turns], %%r8\n"                                                 \
	"test %%r8, %%r8\n"                                                    \
	"jz 2f\n"                                                              \
	"1: dec %%r8\n"                                                        \
	"jnz 1b\n"                                                             \
	"jmp 3f\n"                                                             \
	"2: mov %[ts], %%rdi\n"                                                \
	"xor %%esi, %%esi\n"                                                   \
	"mov $35, %%eax\n"                                                     \
	"syscall\n"                                                            \
	"3:\n"
#define HOLD_CLOBBERS "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r11", "memory", "cc"
#define XMMS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
	"xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

static void hold_sse(const struct vec *in, struct vec *out, uint64_t turns, struct timespec *ts)
{
	__asm__ volatile(EACH16(LOAD_X) HOLD EACH16(SAVE_X)
			 :
			 : [in] "r"(in), [out] "r"(out), [turns] "r"(turns), [ts] "r"(ts)
			 : HOLD_CLOBBERS, XMMS);
}

__attribute__((target("avx"))) static void hold_avx(const struct vec *in, struct vec *out,
						    uint64_t turns, struct timespec *ts)
{
	__asm__ volatile(EACH16(LOAD_Y) HOLD EACH16(SAVE_Y) "vzeroupper\n"
			 :
			 : [in] "r"(in), [out] "r"(out), [turns] "r"(turns), [ts] "r"(ts)
			 : HOLD_CLOBBERS, XMMS);
}

__attribute__((target("avx512f,avx512bw"))) static void
hold_avx512(const struct vec *in, struct vec *out, uint64_t turns, struct timespec *ts)
{
	__asm__ volatile(EACH32(LOAD_Z) LOAD_K(1) LOAD_K(2) LOAD_K(3) LOAD_K(4) LOAD_K(5) LOAD_K(6)
				 LOAD_K(7) HOLD EACH32(SAVE_Z) SAVE_K(1) SAVE_K(2) SAVE_K(3)
					 SAVE_K(4) SAVE_K(5) SAVE_K(6) SAVE_K(7) "vzeroupper\n"
			 :
			 : [in] "r"(in), [out] "r"(out), [turns] "r"(turns), [ts] "r"(ts)
			 : HOLD_CLOBBERS, XMMS, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21",
			   "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29",
			   "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", "k7");
}

/* Eight values on the x87 stack, control word and MXCSR with unusual rounding. */
static void hold_x87(const struct vec *in, struct vec *out, uint64_t turns, struct timespec *ts)
{
	uint16_t old_cw;
	uint32_t old_csr;

	__asm__ volatile("fnstcw %0\nstmxcsr %1" : "=m"(old_cw), "=m"(old_csr));
	__asm__ volatile("fninit\n"
			 "fldcw %[fcw]\n"
			 "ldmxcsr %[mxcsr]\n"
			 "fldl 0(%[st])\nfldl 8(%[st])\nfldl 16(%[st])\nfldl 24(%[st])\n"
			 "fldl 32(%[st])\nfldl 40(%[st])\nfldl 48(%[st])\nfldl 56(%[st])\n" HOLD
			 "fstpl 56(%[so])\nfstpl 48(%[so])\nfstpl 40(%[so])\nfstpl 32(%[so])\n"
			 "fstpl 24(%[so])\nfstpl 16(%[so])\nfstpl 8(%[so])\nfstpl 0(%[so])\n"
			 "fnstcw %[fcw_out]\n"
			 "stmxcsr %[mxcsr_out]\n"
			 : [fcw_out] "=m"(out->fcw_out), [mxcsr_out] "=m"(out->mxcsr_out)
			 : [fcw] "m"(in->fcw), [mxcsr] "m"(in->mxcsr), [st] "r"(in->st),
			   [so] "r"(out->st), [turns] "r"(turns), [ts] "r"(ts)
			 : HOLD_CLOBBERS, "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)",
			   "st(6)", "st(7)");
	__asm__ volatile("fldcw %0\nldmxcsr %1" : : "m"(old_cw), "m"(old_csr));
}

/*
 * rbx, rbp, r9-r10, r12-r15 (and rcx, rdx, rsi, rdi, r11 while it does not enter the kernel by itself)
 * and the flags CF, PF, ZF, SF, DF, OF through the loop.
 */
static void hold_gpr(const uint64_t *v, uint64_t *out, uint64_t turns)
{
	__asm__ volatile(
		"lea -128(%%rsp), %%rsp\n"
		"push %%rbp\npush %%rbx\n"
		"sub $136, %%rsp\n" /* the pointers, out of the registers' way */
		"mov %%rcx, 120(%%rsp)\n"
		"mov %%rdx, 112(%%rsp)\n"
				"mov 0(%%rax), %%rbx\nmov 8(%%rax), %%rbp\nmov 16(%%rax), %%rcx\n"
		"mov 24(%%rax), %%rdx\nmov 32(%%rax), %%rsi\nmov 40(%%rax), %%rdi\n"
		"mov 48(%%rax), %%r8\nmov 56(%%rax), %%r9\nmov 64(%%rax), %%r10\n"
		"mov 72(%%rax), %%r11\nmov 80(%%rax), %%r12\nmov 88(%%rax), %%r13\n"
		"mov 96(%%rax), %%r14\nmov 104(%%rax), %%r15\n"
		"mov 112(%%rsp), %%rax\n"
		"pushq $0xcd7\npopfq\n" /* CF PF AF ZF SF DF OF (and IF) */
		"1: lea -1(%%rax), %%rax\n" /* leaves the flags alone, as does jrcxz */
		"xchg %%rax, %%rcx\n"
		"jrcxz 2f\n"
		"xchg %%rax, %%rcx\n"
		"jmp 1b\n"
		"2: xchg %%rax, %%rcx\n"
		"pushfq\npopq 104(%%rsp)\n" /* computed after the pop: the slot below */
		"cld\n"
		"mov 120(%%rsp), %%rax\n"
		"mov %%rbx, 0(%%rax)\nmov %%rbp, 8(%%rax)\nmov %%rcx, 16(%%rax)\n"
		"mov %%rdx, 24(%%rax)\nmov %%rsi, 32(%%rax)\nmov %%rdi, 40(%%rax)\n"
		"mov %%r8, 48(%%rax)\nmov %%r9, 56(%%rax)\nmov %%r10, 64(%%rax)\n"
		"mov %%r11, 72(%%rax)\nmov %%r12, 80(%%rax)\nmov %%r13, 88(%%rax)\n"
		"mov %%r14, 96(%%rax)\nmov %%r15, 104(%%rax)\n"
		"mov 104(%%rsp), %%rcx\n"
		"mov %%rcx, 112(%%rax)\n"
		"add $136, %%rsp\n"
		"pop %%rbx\npop %%rbp\n"
		"lea 128(%%rsp), %%rsp\n"
		: "+a"(v), "+c"(out), "+d"(turns)
		:
		: "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}

static void check_gpr(uint64_t seed, uint64_t turns)
{
	uint64_t v[15], out[15];
	size_t i;

	for (i = 0; i < 14; i++)
		v[i] = wl_word(seed, i);
	hold_gpr(v, out, turns);
	for (i = 0; i < 14; i++)
		WL_CHECK(out[i] == v[i], "general register %zu: expected %llx, got %llx", i,
			 (unsigned long long)v[i], (unsigned long long)out[i]);
	WL_EQ("flags", 0xcd5, out[14] & 0xcd5);
}

static void check_words(const char *what, const struct vec *in, const struct vec *out, size_t regs,
			size_t words)
{
	size_t r, w;

	for (r = 0; r < regs; r++)
		for (w = 0; w < words; w++)
			WL_CHECK(in->w[r][w] == out->w[r][w],
				 "%s%zu word %zu: expected %llx, got %llx", what, r, w,
				 (unsigned long long)in->w[r][w], (unsigned long long)out->w[r][w]);
}

static void check_vectors(uint64_t seed, uint64_t turns)
{
	struct timespec ts = { 0, 3000000 };
	struct vec in, out = { 0 };
	size_t i;

	wl_fill(&in, sizeof(in), seed, 0);
	if (has_avx512) {
		hold_avx512(&in, &out, turns, &ts);
		check_words("zmm", &in, &out, 32, 8);
		for (i = 1; i < 8; i++)
			WL_EQ("mask register", in.k[i], out.k[i]);
	}
	if (has_avx) {
		hold_avx(&in, &out, turns, &ts);
		check_words("ymm", &in, &out, 16, 4);
	}
	memset(&out, 0, sizeof(out));
	hold_sse(&in, &out, turns, &ts);
	check_words("xmm", &in, &out, 16, 2);
	for (i = 0; i < 8; i++)
		in.st[i] = (double)seed * 1.25 + (double)i;
	in.fcw = (uint16_t)(0x037f | (seed & 3) << 10);
	in.mxcsr = 0x1f80 | (uint32_t)(seed & 3) << 13 | (uint32_t)(seed >> 2 & 1) << 15;
	hold_x87(&in, &out, turns, &ts);
	for (i = 0; i < 8; i++)
		WL_CHECK(in.st[i] == out.st[i], "st(%zu): expected %a, got %a", i, in.st[i],
			 out.st[i]);
	WL_EQ("x87 control word", in.fcw, out.fcw_out);
	WL_EQ("mxcsr", in.mxcsr, out.mxcsr_out & ~0x3fu);
}

static unsigned read_pkru(void)
{
	unsigned a, d;

	__asm__ volatile("rdpkru" : "=a"(a), "=d"(d) : "c"(0));
	return a;
}

static void *body(void *arg)
{
	uint64_t id = (uintptr_t)arg, seed = id * 1000000, gs = 0;
	unsigned pkru = 0x55555554 & ~(3u << 2 * (id + 1));

	WL_SYS(syscall(SYS_arch_prctl, ARCH_SET_GS, 0x7000000000 + id * 4096));
	if (has_pku)
		__asm__ volatile("wrpkru" : : "a"(pkru), "c"(0), "d"(0));
	while (!stop) {
		seed++;
		check_gpr(seed, 1 + (seed * 7919) % 3000000);
		check_vectors(seed, seed % 3 ? 1 + (seed * 7919) % 3000000 : 0);
		WL_SYS(syscall(SYS_arch_prctl, ARCH_GET_GS, &gs));
		WL_EQ("gs base", 0x7000000000 + id * 4096, gs);
		if (has_pku)
			WL_EQ("pkru", pkru, read_pkru());
		wl_pace();
	}
	return NULL;
}

int main(void)
{
	pthread_t th[4];
	uintptr_t i;

	wl_init();
	probe_cpu();
	for (i = 0; i < ARRAY_SIZE(th); i++)
		WL_ZERO(pthread_create(&th[i], NULL, body, (void *)i));
	wl_ready();
	while (!wl_stopping())
		wl_sleep_ns(WL_MS);
	stop = 1;
	for (i = 0; i < ARRAY_SIZE(th); i++)
		WL_ZERO(pthread_join(th[i], NULL));
	wl_ok();
}
