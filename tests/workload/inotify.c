/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * inotify: watches with gaps in their numbers, on files and directories that both nodes see and in /tmp; every event must
 * come, under its number, and no other; a reader that waits; an instance that a child has inherited; a watch for one event.
 */
#include "wl.h"

#include <poll.h>
#include <pthread.h>
#include <sys/inotify.h>

static struct shared {
	_Atomic int stop;
	_Atomic uint64_t child_sees, child_saw;
} *sh;
static struct place {
	char dir[300], file[330], once[330];
	int fd, wd_dir, wd_file, wd_once;
	char buf[8192];
	size_t have, at;
} pl[2];
static char waited[2][340];
static int wait_fd, child_fd;
static _Atomic uint64_t seen;
static _Atomic int stop;

static void touch(const char *path, bool write_it)
{
	int fd = (int)WL_SYS(open(path, O_WRONLY | O_CREAT, 0600));

	if (write_it)
		wl_write(fd, "x", 1);
	WL_SYS(close(fd));
}

/* The next event, waited for. */
static const struct inotify_event *next(struct place *p)
{
	const struct inotify_event *ev;

	if (p->at == p->have) {
		struct pollfd pf = { .fd = p->fd, .events = POLLIN };
		int n;

		do
			n = poll(&pf, 1, 20000);
		while (n < 0 && errno == EINTR);
		WL_CHECK(n == 1, "an event: expected soon, got none");
		p->have = (size_t)WL_SYS(read(p->fd, p->buf, sizeof(p->buf)));
		p->at = 0;
	}
	ev = (const void *)(p->buf + p->at);
	p->at += sizeof(*ev) + ev->len;
	return ev;
}

static void expect(struct place *p, int wd, uint32_t mask, const char *name)
{
	const struct inotify_event *ev = next(p);

	WL_EQ("event's mask", mask, ev->mask);
	WL_EQ("event's watch", wd, ev->wd);
	if (name)
		WL_CHECK(ev->len && !strcmp(ev->name, name), "event's name: expected %s, got %s", name, ev->len ? ev->name : "none");
}

static void no_more(struct place *p)
{
	union {
		struct inotify_event ev;
		char buf[4096];
	} c;

	WL_CHECK(p->at == p->have, "an event that nobody caused");
	WL_CHECK(read(p->fd, &c, sizeof(c)) < 0 && errno == EAGAIN,
		 "an event that nobody caused in '%s': expected none, got mask 0x%x of watch %d (%d, %d, %d)", p->dir, c.ev.mask,
		 c.ev.wd, p->wd_dir, p->wd_file, p->wd_once);
}

static void set_up(struct place *p, const char *in)
{
	int gap[3], i;

	snprintf(p->dir, sizeof(p->dir), "%s/inotify.XXXXXX", in);
	WL_CHECK(mkdtemp(p->dir), "mkdtemp '%s': %s", p->dir, strerror(errno));
	snprintf(p->file, sizeof(p->file), "%s/file", p->dir);
	snprintf(p->once, sizeof(p->once), "%s/once", p->dir);
	touch(p->file, true);
	touch(p->once, true);
	p->fd = (int)WL_SYS(inotify_init1(IN_NONBLOCK));
	for (i = 0; i < 3; i++) {
		gap[i] = (int)WL_SYS(inotify_add_watch(p->fd, i == 0 ? "/" : i == 1 ? "/usr" : "/etc", IN_DELETE_SELF));
		WL_SYS(inotify_rm_watch(p->fd, gap[i]));
		expect(p, gap[i], IN_IGNORED, NULL);
	}
	p->wd_dir = (int)WL_SYS(inotify_add_watch(p->fd, p->dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO));
	gap[0] = (int)WL_SYS(inotify_add_watch(p->fd, "/usr", IN_DELETE_SELF));
	p->wd_file = (int)WL_SYS(inotify_add_watch(p->fd, p->file, IN_MODIFY | IN_ATTRIB));
	WL_SYS(inotify_rm_watch(p->fd, gap[0]));
	expect(p, gap[0], IN_IGNORED, NULL);
	p->wd_once = (int)WL_SYS(inotify_add_watch(p->fd, p->once, IN_CLOSE_WRITE | IN_ONESHOT));
	WL_CHECK(p->wd_file > 3, "watch number: expected a gap, got %d", p->wd_file);
}

static void round_of(struct place *p, uint64_t n)
{
	char a[340], b[340];

	no_more(p);
	snprintf(a, sizeof(a), "%s/n%llu", p->dir, (unsigned long long)n);
	snprintf(b, sizeof(b), "%s/m%llu", p->dir, (unsigned long long)n);
	touch(p->file, true);
	expect(p, p->wd_file, IN_MODIFY, NULL);
	touch(a, false);
	expect(p, p->wd_dir, IN_CREATE, strrchr(a, '/') + 1);
	WL_SYS(rename(a, b));
	expect(p, p->wd_dir, IN_MOVED_FROM, strrchr(a, '/') + 1);
	expect(p, p->wd_dir, IN_MOVED_TO, strrchr(b, '/') + 1);
	WL_SYS(unlink(b));
	expect(p, p->wd_dir, IN_DELETE, strrchr(b, '/') + 1);
	WL_SYS(chmod(p->file, n % 2 ? 0600 : 0640));
	expect(p, p->wd_file, IN_ATTRIB, NULL);
}

/* Waits in read(). */
static void *reader(void *arg)
{
	char buf[4096];

	(void)arg;
	while (!stop) {
		ssize_t n = read(wait_fd, buf, sizeof(buf)), at;

		if (n < 0 && errno == EINTR)
			continue;
		for (at = 0; at < n; at += (ssize_t)(sizeof(struct inotify_event) + ((struct inotify_event *)(void *)(buf + at))->len)) {
			WL_EQ("what the reader waits for", IN_MODIFY, ((struct inotify_event *)(void *)(buf + at))->mask);
			seen++;
		}
		WL_CHECK(n > 0, "read of an inotify: %zd", n);
	}
	return NULL;
}

/* Reads an instance that its parent made. */
static int child(void *arg)
{
	struct place p = { .fd = child_fd };

	(void)arg;
	while (!sh->stop) {
		if (sh->child_sees == sh->child_saw) {
			wl_pace();
			continue;
		}
		WL_EQ("the child's event", IN_CLOSE_WRITE, next(&p)->mask);
		sh->child_saw++;
	}
	return 51;
}

int main(int argc, char **argv)
{
	uint64_t n, i;
	pthread_t t;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	set_up(&pl[0], wl_dir(argc, argv));
	set_up(&pl[1], "/tmp");
	wait_fd = (int)WL_SYS(inotify_init1(IN_CLOEXEC));
	child_fd = (int)WL_SYS(inotify_init1(IN_NONBLOCK));
	for (i = 0; i < 2; i++) {
		snprintf(waited[i], sizeof(waited[i]), "%s/waited", pl[i].dir);
		touch(waited[i], true);
		expect(&pl[i], pl[i].wd_dir, IN_CREATE, "waited");
	}
	/* not for its being closed: the old copy's end closes it, too, and nodes of one machine hear that */
	WL_SYS(inotify_add_watch(wait_fd, waited[0], IN_MODIFY));
	WL_SYS(inotify_add_watch(child_fd, waited[1], IN_CLOSE_WRITE));
	pid = wl_spawn(child, NULL);
	WL_ZERO(pthread_create(&t, NULL, reader, NULL));
	wl_ready();
	for (n = 1; !wl_stopping(); n++) {
		round_of(&pl[n % 2], n);
		touch(waited[0], true);
		WL_AWAIT(seen == n, "the reader's event");
		sh->child_sees++;
		touch(waited[1], false);
		WL_AWAIT(sh->child_saw == n, "the child's event");
		wl_pace();
	}
	for (i = 0; i < 2; i++) {
		touch(pl[i].once, true);
		expect(&pl[i], pl[i].wd_once, IN_CLOSE_WRITE, NULL);
		expect(&pl[i], pl[i].wd_once, IN_IGNORED, NULL);
		touch(pl[i].once, true);
		no_more(&pl[i]);
		n = (uint64_t)WL_SYS(inotify_add_watch(pl[i].fd, "/usr", IN_DELETE_SELF));
		WL_CHECK((int)n != pl[i].wd_dir && (int)n != pl[i].wd_file, "a new watch has the number of an old one");
	}
	stop = 1;
	touch(waited[0], true);
	WL_ZERO(pthread_join(t, NULL));
	sh->stop = 1;
	wl_reap(pid, 51);
	wl_ok();
}
