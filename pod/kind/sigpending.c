/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pending signals with their siginfo, of the process and of each thread. Queued again from inside:
 * only the task itself may send itself what the kernel or another thread had sent.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "pod/dump.h"
#include "pod/kind/task_kinds.h"

#define INFO 128
#define CHUNK 32
#define MAX_PENDING 4096

static int peek(struct dump *d, struct task *t, uint32_t flags, ProtobufCBinaryData *out, struct err *e)
{
	static siginfo_t buf[CHUNK];
	struct __ptrace_peeksiginfo_args a = { .off = 0, .flags = flags, .nr = CHUNK };
	uint8_t *all = NULL;
	size_t n = 0;
	long r;

	_Static_assert(sizeof(siginfo_t) == INFO, "the kernel's siginfo");
	while ((r = ptrace(PTRACE_PEEKSIGINFO, t->tid, &a, buf)) > 0) {
		uint8_t *more = dump_alloc(d, (n + (size_t)r) * INFO);

		if (n)
			memcpy(more, all, n * INFO);
		memcpy(more + n * INFO, buf, (size_t)r * INFO);
		all = more;
		n += (size_t)r;
		a.off = n;
		if (n > MAX_PENDING)
			return err_set(e, E2BIG, "more than %d pending signals", MAX_PENDING);
	}
	if (r < 0)
		return err_sys(e, "read pending signals");
	out->data = all;
	out->len = n * INFO;
	return 0;
}

static int take_shared(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
		       Pm__Thread *th, struct err *e)
{
	(void)b;
	(void)cookie;
	(void)th;
	return peek(d, t, PTRACE_PEEKSIGINFO_SHARED, &proc->siginfos, e);
}

static int take_private(struct dump *d, struct task *t, struct batch *b, uint64_t cookie, Pm__Proc *proc,
			Pm__Thread *th, struct err *e)
{
	(void)b;
	(void)cookie;
	(void)proc;
	return peek(d, t, 0, &th->siginfos, e);
}

static int give_all(const ProtobufCBinaryData *infos, uint32_t tgid, uint32_t tid, struct batch *b, struct err *e)
{
	size_t i;

	if (infos->len % INFO || infos->len / INFO > MAX_PENDING)
		return err_set(e, EBADMSG, "pending signals of %zu bytes", infos->len);
	for (i = 0; i < infos->len; i += INFO) {
		int signo;
		uint64_t at = batch_data(b, infos->data + i, INFO);

		memcpy(&signo, infos->data + i, sizeof(signo));
		if (signo < 1 || signo > 64)
			return err_set(e, EBADMSG, "pending signal %d", signo);
		if (tid)
			batch_add4(b, SYS_rt_tgsigqueueinfo, tgid, tid, signo, at);
		else
			batch_add3(b, SYS_rt_sigqueueinfo, tgid, signo, at);
	}
	return 0;
}

static int give_shared(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	(void)th;
	return give_all(&proc->siginfos, proc->pid, 0, b, e);
}

static int give_private(struct restore *r, const Pm__Proc *proc, const Pm__Thread *th, struct batch *b, struct err *e)
{
	(void)r;
	return give_all(&th->siginfos, proc->pid, th->tid, b, e);
}

const struct kind kind_sigpending_proc = { .name = "sigpending", .type = 102, .version = 1, .min_version = 1,
					   .scope = KIND_PROC, .take = take_shared, .give = give_shared };
const struct kind kind_sigpending_thread = { .name = "sigpending-thread", .type = 103, .version = 1,
					     .min_version = 1, .scope = KIND_THREAD, .take = take_private,
					     .give = give_private };
