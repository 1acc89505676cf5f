/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Work that blocks, outside the loop: a thread per task, its end comes back through an eventfd. */
#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "agent/agent.h"
#include "pod/base/util.h"

struct task {
	struct task *next;
	struct tasks *tasks;
	int (*fn)(void *arg, struct err *e);
	void (*done)(void *arg, int r, const struct err *e);
	void *arg;
	int result;
	struct err err;
};

struct tasks {
	pthread_mutex_t lock;
	struct task *ended;
	int efd;
	struct event *ev;
};

static void *task_main(void *arg)
{
	struct task *t = arg;
	struct tasks *ts = t->tasks;
	uint64_t one = 1;
	ssize_t n;

	t->result = t->fn(t->arg, &t->err);
	pthread_mutex_lock(&ts->lock);
	t->next = ts->ended;
	ts->ended = t;
	pthread_mutex_unlock(&ts->lock);
	n = write(ts->efd, &one, sizeof(one));
	(void)n;
	return NULL;
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
	struct tasks *ts = arg;
	struct task *t, *next;
	uint64_t n;
	ssize_t r = read(fd, &n, sizeof(n));

	(void)r;
	(void)what;
	pthread_mutex_lock(&ts->lock);
	t = ts->ended;
	ts->ended = NULL;
	pthread_mutex_unlock(&ts->lock);
	for (; t; t = next) {
		next = t->next;
		t->done(t->arg, t->result, &t->err);
		free(t);
	}
}

int tasks_init(struct agent *a, struct err *e)
{
	struct tasks *ts = calloc(1, sizeof(*ts));

	if (!ts)
		return err_num(e, ENOMEM, "tasks");
	pthread_mutex_init(&ts->lock, NULL);
	ts->efd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ts->efd < 0) {
		free(ts);
		return err_sys(e, "eventfd");
	}
	ts->ev = event_new(a->base, ts->efd, EV_READ | EV_PERSIST, on_ended, ts);
	event_add(ts->ev, NULL);
	a->tasks = ts;
	return 0;
}

int task_run(struct agent *a, int (*fn)(void *arg, struct err *e),
	     void (*done)(void *arg, int r, const struct err *e), void *arg)
{
	struct task *t = calloc(1, sizeof(*t));
	pthread_attr_t attr;
	pthread_t thread;
	int r;

	if (!t)
		return -ENOMEM;
	*t = (struct task){ .tasks = a->tasks, .fn = fn, .done = done, .arg = arg };
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attr, task_main, t);
	pthread_attr_destroy(&attr);
	if (r)
		free(t);
	return -r;
}
