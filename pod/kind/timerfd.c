/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * timerfd.
 *
 * The time that is left travels, and the target arms it relatively: so it does not matter that the
 * engine is in another time namespace than the pod. Only a CLOCK_REALTIME timer that was set to a
 * point in time travels as that point.
 *
 * A periodic timer that has expired and was not read yet stands still: the kernel starts the next
 * period at the next read, by its old phase, and fdinfo shows no time left. timerfd_gettime(2) makes
 * it go on with the count of ticks kept, which no program can tell from what would have happened at
 * its read(2): so that is asked first, and fdinfo is read after it. Ticks are put back by
 * TFD_IOC_SET_TICKS. The timer is late by the frozen time if the pod's clock goes on meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>

#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/kind/kinds.h"

#define SET_TICKS _IOW('T', 0, uint64_t)
#define ABSTIME 1u
#define CANCEL_ON_SET 2u

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

static bool parse_time(const char *info, const char *key, uint64_t *ns)
{
	const char *p = kind_info_line(info, key);
	unsigned long long s, n;

	if (!p || sscanf(p, "(%llu, %llu)", &s, &n) != 2)
		return false;
	*ns = s * NSEC_PER_SEC + n;
	return true;
}

static int dump(struct dump *d, struct object *o, ProtobufCMessage **body, struct err *e)
{
	Pm__BodyTimerfd *m = dump_alloc(d, sizeof(*m));
	autofree char *info = NULL;
	uint64_t flags, clock;
	struct itimerspec it;
	struct timespec now;
	int r = kind_check_common(&o->p, e);

	if (r < 0)
		return r;
	if (timerfd_gettime(o->p.fd, &it) < 0)
		return err_sys(e, "timerfd_gettime");
	r = kind_info_now(o->p.fd, &info, e);
	if (r == 0)
		r = refuse_flags(info, &flags, e);
	if (r < 0)
		return r;
	pm__body_timerfd__init(m);
	if (!kind_info_u64(info, "clockid", 10, &clock) || !kind_info_u64(info, "ticks", 10, &m->ticks) ||
	    !parse_time(info, "it_value", &m->value_ns) ||
	    !parse_time(info, "it_interval", &m->interval_ns))
		return err_set(e, EPROTO, "fdinfo of a timerfd cannot be read");
	m->clock = (uint32_t)clock;
	m->settime_flags = (uint32_t)flags;
	if (m->clock == CLOCK_REALTIME && (flags & ABSTIME) && m->value_ns) {
		clock_gettime(CLOCK_REALTIME, &now);
		m->value_ns += (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
	}
	*body = &m->base;
	return 0;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC) };
}

static int restore(struct restore *r, struct robject *o, struct err *e)
{
	const Pm__BodyTimerfd *m = (const void *)o->body;
	bool abs = m->clock == CLOCK_REALTIME && (m->settime_flags & ABSTIME);
	struct itimerspec it = { to_timespec(m->interval_ns), to_timespec(m->value_ns) };
	autoclose int fd = -1;

	(void)r;
	fd = timerfd_create((int)m->clock, TFD_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "timerfd of clock %u", m->clock);
	if (timerfd_settime(fd, abs ? TFD_TIMER_ABSTIME : 0, &it, NULL) < 0)
		return err_sys(e, "arm a timerfd");
	if (m->ticks && ioctl(fd, SET_TICKS, &m->ticks) < 0)
		return err_sys(e, "ticks of a timerfd");
	o->fd = take_fd(&fd);
	return 0;
}

const struct kind kind_timerfd = {
	.name = "timerfd",
	.type = TYPE_TIMERFD,
	.version = 1,
	.min_version = 1,
	.scope = KIND_FD,
	.stage = STAGE_PLAIN,
	.schema = &pm__body_timerfd__descriptor,
	.match = match,
	.check = check,
	.dump = dump,
	.restore = restore,
};
