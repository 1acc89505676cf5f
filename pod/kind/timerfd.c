/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * timerfd.
 *
 * Theory of operation. A timer travels as the moment of its next expiry, read on the pod's own clock,
 * and is armed absolutely inside a process of the pod (place()), whose time namespace turns that
 * into the same moment on the target: it is neither late by the time that the move took nor does a
 * periodic one lose its phase. Ticks that nobody has read are periods that have passed: the moment
 * is put back by as many, and the kernel counts them again. A timer on CLOCK_REALTIME that was set
 * absolutely is armed so by the engine, as that clock has no namespaces; one that was set relatively
 * counts on the monotonic clock inside the kernel and gets the time it had left.
 *
 * A periodic timer that has expired and was not read stands still: the kernel goes on by the old phase
 * at the next read, and fdinfo shows no time left. timerfd_gettime(2) makes it go on, ticks counted,
 * which no program can tell from what its read(2) would have done. So that is asked first; fdinfo for
 * the ticks; and once more, to see whether it has expired in between.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define SET_TICKS _IOW('T', 0, uint64_t)
#define ABSTIME 1u
#define CANCEL_ON_SET 2u
#define TRIES 16

static bool match(const struct probe *p)
{
	return !strcmp(p->link, "anon_inode:[timerfd]") && !kind_is_o_path(p);
}

static int refuse_flags(const char *info, uint64_t *flags, struct err *e)
{
	if (!kind_info_u64(info, "settime flags", 8, flags))
		return err_set(e, EPROTO, "fdinfo of a timerfd without flags");
	if (*flags & CANCEL_ON_SET)
		return KIND_REFUSE(e, "a timerfd with TFD_TIMER_CANCEL_ON_SET: cannot be carried yet");
	return 0;
}

static int check(struct dump *d, const struct probe *p, struct err *e)
{
	uint64_t flags;
	int r = kind_check_common(p, e);

	(void)d;
	return r < 0 ? r : refuse_flags(p->info, &flags, e);
}

static bool is_realtime(uint32_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM;
}

static clockid_t base_clock(uint32_t clock)
{
	return is_realtime(clock) ? CLOCK_REALTIME :
	       clock == CLOCK_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_BOOTTIME;
}

static uint64_t to_ns(struct timespec ts)
{
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* A process's offset against the initial time namespace, ns. */
static int clock_offset(pid_t pid, clockid_t clock, int64_t *off, struct err *e)
{
	const char *name = clock == CLOCK_MONOTONIC ? "monotonic" : "boottime", *p;
	autofree char *text = NULL;
	long long s, ns;
	char path[48];
	int r;

	*off = 0;
	if (clock == CLOCK_REALTIME)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/timens_offsets", pid);
	r = io_read_file(path, 4096, &text, NULL, e);
	if (r == -ENOENT)
		return 0; /* a kernel without time namespaces */
	if (r < 0)
		return r;
	p = strstr(text, name);
	if (!p || sscanf(p + strlen(name), "%lld %lld", &s, &ns) != 2)
		return err_set(e, EPROTO, "'%s' cannot be read", path);
	*off = s * (int64_t)NSEC_PER_SEC + ns;
	return 0;
}

struct reading {
	uint64_t left, interval, ticks, at; /* at: the engine's clock when left was read */
};

static int read_timer(int fd, clockid_t clock, struct reading *out, uint64_t *flags, struct err *e)
{
	struct itimerspec a, b;
	struct timespec now;
	int i, r;

	for (i = 0; i < TRIES; i++) {
		autofree char *info = NULL;

		if (timerfd_gettime(fd, &a) < 0)
			return err_sys(e, "timerfd_gettime");
		r = kind_info_now(fd, &info, e);
		if (r == 0)
			r = refuse_flags(info, flags, e);
		if (r < 0)
			return r;
		if (!kind_info_u64(info, "ticks", 10, &out->ticks))
			return err_set(e, EPROTO, "fdinfo of a timerfd without ticks");
		if (timerfd_gettime(fd, &b) < 0)
			return err_sys(e, "timerfd_gettime");
		clock_gettime(clock, &now);
		out->left = to_ns(b.it_value);
		out->interval = to_ns(b.it_interval);
		out->at = to_ns(now);
		/* it has expired between the two: the ticks may be one too few */
		if (out->left <= to_ns(a.it_value) && (out->left || !to_ns(a.it_value)))
			break;
	}
	return 0;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyTimerfd *m = dump_alloc(d, sizeof(*m));
	uint64_t flags = 0, clock = 0, back;
	int64_t mine = 0, pods = 0;
	struct reading t = { 0 };
	int r = kind_check_common(&o->p, e);

	if (r < 0)
		return r;
	if (!kind_info_u64(o->p.info, "clockid", 10, &clock))
		return err_set(e, EPROTO, "fdinfo of a timerfd without a clock");
	pm__body_timerfd__init(m);
	*body = &m->base;
	m->clock = (uint32_t)clock;
	r = read_timer(o->p.fd, base_clock(m->clock), &t, &flags, e);
	if (r == 0)
		r = clock_offset(getpid(), base_clock(m->clock), &mine, e);
	if (r == 0)
		r = clock_offset(o->p.pid, base_clock(m->clock), &pods, e);
	if (r < 0)
		return r;
	m->settime_flags = (uint32_t)flags;
	m->interval_ns = t.interval;
	m->ticks = t.ticks;
	m->value_ns = t.left;
	if (!t.left || (is_realtime(m->clock) && !(flags & ABSTIME)))
		return 0;
	m->absolute = true;
	m->value_ns = t.at + t.left - (uint64_t)mine + (uint64_t)pods;
	if (t.ticks && t.interval && !__builtin_mul_overflow(t.ticks, t.interval, &back) &&
	    back < m->value_ns) {
		m->value_ns -= back;
		m->ticks = 0;
	}
	return 0;
}

static struct itimerspec to_spec(const Pm__BodyTimerfd *m)
{
	return (struct itimerspec){
		{ (time_t)(m->interval_ns / NSEC_PER_SEC), (long)(m->interval_ns % NSEC_PER_SEC) },
		{ (time_t)(m->value_ns / NSEC_PER_SEC), (long)(m->value_ns % NSEC_PER_SEC) }
	};
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyTimerfd *m = (const void *)o->body;
	struct itimerspec it = to_spec(m);
	autoclose int fd = timerfd_create((int)m->clock, TFD_CLOEXEC);

	(void)r;
	if (fd < 0)
		return err_sys(e, "timerfd of clock %u", m->clock);
	if (!m->absolute || is_realtime(m->clock)) {
		if (timerfd_settime(fd, m->absolute ? TFD_TIMER_ABSTIME : 0, &it, NULL) < 0)
			return err_sys(e, "arm a timerfd");
		if (m->ticks && ioctl(fd, SET_TICKS, &m->ticks) < 0)
			return err_sys(e, "ticks of a timerfd");
	}
	o->fd = take_fd(&fd);
	return 0;
}

/* Once more in another process, or by another fd, does no harm. */
static int place(struct restore *r, struct robject *o, const Pm__Proc *proc, int fdno, struct batch *b,
		 struct err *e)
{
	const Pm__BodyTimerfd *m = (const void *)o->body;
	struct itimerspec it = to_spec(m);

	(void)r;
	(void)e;
	(void)proc;
	if (!m->absolute || is_realtime(m->clock))
		return 0;
	if (b->n + 4 > BATCH_MAX)
		return 1;
	batch_add4(b, SYS_timerfd_settime, fdno, TFD_TIMER_ABSTIME, batch_data(b, &it, sizeof(it)), 0);
	if (m->ticks)
		batch_add3(b, SYS_ioctl, fdno, SET_TICKS, batch_data(b, &m->ticks, sizeof(m->ticks)));
	return 0;
}

const struct kind kind_timerfd = {
	.name = "timerfd",
	.type = TYPE_TIMERFD,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.loose = true,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_timerfd__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
	.place = place,
};
