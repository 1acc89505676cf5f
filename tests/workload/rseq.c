/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rseq as the C library registers it: cpu_id follows the thread from CPU to CPU, and a critical
 * section that is interrupted is aborted. Four threads count in per-CPU counters with long critical
 * sections; one lost update shows in the sum.
 */
#include "wl.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/rseq.h>

#define THREADS 4
#define MAX_CPUS 1024

static _Atomic int stop;
static struct {
	volatile uint64_t n;
	char pad[56];
} counter[MAX_CPUS];
static uint64_t done[THREADS], aborts[THREADS];
static cpu_set_t allowed;

static struct rseq *mine(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/* counter[cpu]++ as a restartable sequence: load, wait, store. True if it was committed. */
static bool count(struct rseq *rs, uint32_t cpu)
{
	volatile uint64_t *v = &counter[cpu].n;

	__asm__ goto volatile(".pushsection __rseq_cs, \"aw\"\n"
			      ".balign 32\n"
			      "3: .long 0, 0\n"
			      ".quad 1f, 2f - 1f, 4f\n"
			      ".popsection\n"
			      "leaq 3b(%%rip), %%rax\n"
			      "movq %%rax, %c[cs_off](%[rs])\n"
			      "1:\n"
			      "cmpl %[cpu], %c[id_off](%[rs])\n"
			      "jnz 4f\n"
			      "movq (%[v]), %%rax\n"
			      "movl $3000, %%ecx\n"
			      "5: decl %%ecx\n"
			      "jnz 5b\n"
			      "incq %%rax\n"
			      "movq %%rax, (%[v])\n"
			      "2:\n"
			      ".pushsection __rseq_failure, \"ax\"\n"
			      ".byte 0x0f, 0xb9, 0x3d\n"
			      ".long %c[sig]\n"
			      "4: jmp %l[aborted]\n"
			      ".popsection\n"
			      :
			      : [rs] "r"(rs), [cpu] "r"(cpu), [v] "r"(v),
				[cs_off] "i"(offsetof(struct rseq, rseq_cs)),
				[id_off] "i"(offsetof(struct rseq, cpu_id)), [sig] "i"(RSEQ_SIG)
			      : "rax", "rcx", "memory", "cc"
			      : aborted);
	return true;
aborted:
	return false;
}

static void hop(uint64_t *rng)
{
	int n = (int)(wl_rand(rng) % (uint64_t)CPU_COUNT(&allowed)), cpu;
	unsigned got;
	cpu_set_t one;

	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && !n--)
			break;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	WL_SYS(sched_setaffinity(0, sizeof(one), &one));
	WL_SYS(syscall(SYS_getcpu, &got, NULL, NULL));
	WL_EQ("getcpu when pinned", cpu, got);
	WL_EQ("rseq cpu_id when pinned", cpu, *(volatile uint32_t *)&mine()->cpu_id);
	WL_EQ("rseq cpu_id_start when pinned", cpu, *(volatile uint32_t *)&mine()->cpu_id_start);
	WL_EQ("sched_getcpu when pinned", cpu, sched_getcpu());
	WL_SYS(sched_setaffinity(0, sizeof(allowed), &allowed));
}

static void *body(void *arg)
{
	size_t id = (uintptr_t)arg, i;
	struct rseq *rs = mine();
	uint64_t rng = id;

	while (!stop) {
		for (i = 0; i < 200; i++) {
			if (count(rs, *(volatile uint32_t *)&rs->cpu_id))
				done[id]++;
			else
				aborts[id]++;
		}
		hop(&rng);
		/* it is registered with this address: another one must be refused */
		errno = 0;
		WL_EQ("second rseq registration", -1,
		      syscall(SYS_rseq, (char *)rs + 4096, 32, 0, RSEQ_SIG));
		WL_EQ("errno", EINVAL, errno);
		wl_pace();
	}
	return NULL;
}

int main(void)
{
	uint64_t sum = 0, want = 0;
	pthread_t th[THREADS];
	uintptr_t i;

	wl_init();
	WL_CHECK(__rseq_size, "rseq: expected that the C library registers it, got nothing");
	WL_SYS(sched_getaffinity(0, sizeof(allowed), &allowed));
	for (i = 0; i < THREADS; i++)
		WL_ZERO(pthread_create(&th[i], NULL, body, (void *)i));
	wl_ready();
	while (!wl_stopping())
		wl_sleep_ns(WL_MS);
	stop = 1;
	for (i = 0; i < THREADS; i++) {
		WL_ZERO(pthread_join(th[i], NULL));
		want += done[i];
	}
	for (i = 0; i < MAX_CPUS; i++)
		sum += counter[i].n;
	WL_EQ("sum of the per-CPU counters", want, sum);
	wl_ok();
}
