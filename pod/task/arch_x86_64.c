/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is particular to x86_64: the loop of a syscall batch and the frame that ends it. */
#include <errno.h>
#include <string.h>

#include "pod/task/task.h"

/*
 * rbx: next entry, r12: entries left, r13/r14: tgid/tid inside the pod, r15: rsp for rt_sigreturn.
 * The kernel keeps all but rax, rcx and r11 over a syscall.
 */
__asm__(".pushsection .rodata\n"
	".globl arch_batch_code\n"
	"arch_batch_code:\n"
	"1:	test %r12, %r12\n"
	"	jz 3f\n"
	"	mov (%rbx), %rax\n"
	"	mov 8(%rbx), %rdi\n"
	"	mov 16(%rbx), %rsi\n"
	"	mov 24(%rbx), %rdx\n"
	"	mov 32(%rbx), %r10\n"
	"	mov 40(%rbx), %r8\n"
	"	mov 48(%rbx), %r9\n"
	"	syscall\n"
	"	mov %rax, 56(%rbx)\n"
	"	mov 64(%rbx), %rcx\n"
	"	test %rcx, %rcx\n"
	"	jz 2f\n"
	"	mov %rax, (%rcx)\n"
	"2:	add $72, %rbx\n"
	"	dec %r12\n"
	"	jmp 1b\n"
	"3:	mov %r13, %rdi\n"
	"	mov %r14, %rsi\n"
	"	mov $23, %edx\n"	/* SIGURG */
	"	mov $234, %eax\n"	/* tgkill */
	"	syscall\n"
	".globl arch_batch_code_told\n"
	"arch_batch_code_told:\n"
	"	mov %r15, %rsp\n"
	"	mov $15, %eax\n"	/* rt_sigreturn */
	"	syscall\n"
	"	ud2\n"
	".globl arch_batch_code_end\n"
	"arch_batch_code_end:\n"
	".popsection\n");

/* The kernel's struct rt_sigframe up to where it reads on return. */
struct sigframe {
	uint64_t pretcode;
	uint64_t uc_flags, uc_link;
	uint64_t ss_sp;
	uint32_t ss_flags, ss_pad;
	uint64_t ss_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
	uint64_t sigmask;
};

#define UC_FP_XSTATE 1
#define UC_SIGCONTEXT_SS 2
#define UC_STRICT_RESTORE_SS 4
#define MAGIC1 0x46505853u
#define MAGIC2 0x46505845u
#define SW_RESERVED 464 /* offset of the software bytes in the legacy area */

/* After a syscall that was interrupted the program must find it restarted, not a raw -512. */
static void restart_regs(struct sigframe *f, const struct user_regs_struct *r)
{
	int64_t ax = (int64_t)r->rax;

	if ((int64_t)r->orig_rax < 0)
		return;
	if (ax <= -512 && ax >= -514) {
		f->ax = r->orig_rax;
		f->ip -= 2;
	} else if (ax == -516) {
		/* rt_sigreturn forgets how far it was: a sleep or a timeout begins again; what was restarted once ends with EINTR */
		f->ax = r->orig_rax;
		f->ip -= 2;
	}
}

int arch_sigframe(const struct task *t, uint64_t addr, uint8_t *buf, size_t len, uint64_t *rsp)
{
	const struct user_regs_struct *r = &t->regs;
	size_t xoff = (sizeof(struct sigframe) + 64 + 63) & ~(size_t)63;
	struct sigframe *f = (void *)buf;
	uint64_t xfeatures;
	uint32_t sw[12] = { 0 };

	if (addr % 64 || t->xlen < 576 || xoff + t->xlen + 4 > len)
		return -EMSGSIZE;
	memset(buf, 0, xoff);
	f->uc_flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	f->ss_flags = 0x7fffffff; /* invalid on purpose: the kernel leaves the altstack alone */
	f->r8 = r->r8; f->r9 = r->r9; f->r10 = r->r10; f->r11 = r->r11;
	f->r12 = r->r12; f->r13 = r->r13; f->r14 = r->r14; f->r15 = r->r15;
	f->di = r->rdi; f->si = r->rsi; f->bp = r->rbp; f->bx = r->rbx;
	f->dx = r->rdx; f->ax = r->rax; f->cx = r->rcx; f->sp = r->rsp;
	f->ip = r->rip; f->flags = r->eflags;
	f->cs = (uint16_t)r->cs; f->gs = (uint16_t)r->gs; f->fs = (uint16_t)r->fs; f->ss = (uint16_t)r->ss;
	f->sigmask = t->sigmask;
	f->fpstate = addr + xoff;
	restart_regs(f, r);

	memcpy(buf + xoff, t->xstate, t->xlen);
	memcpy(&xfeatures, t->xstate + SW_RESERVED, 8); /* the kernel leaves xcr0 there for tracers */
	sw[0] = MAGIC1;
	sw[1] = (uint32_t)t->xlen + 4;
	memcpy(&sw[2], &xfeatures, 8);
	sw[4] = (uint32_t)t->xlen;
	memcpy(buf + xoff + SW_RESERVED, sw, sizeof(sw));
	memcpy(buf + xoff + t->xlen, &(uint32_t){ MAGIC2 }, 4);
	*rsp = addr + 8; /* the kernel looks one word below rsp */
	return (int)(xoff + t->xlen + 4);
}

int64_t arch_find_syscall(const uint8_t *vdso, size_t len)
{
	static const uint8_t insn[] = { 0x0f, 0x05 };
	const uint8_t *p = memmem(vdso, len, insn, sizeof(insn));

	return p ? p - vdso : -ENOENT;
}
