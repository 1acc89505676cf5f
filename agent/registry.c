/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The pods of this node. Each has a directory state_dir/pods/NAME with the files `spec` (packed
 * PodSpec) and `state`:
 *
 *	state=2 epoch=1 pid=812 start=5512 boot=ID exit=-1 op=- engine=0:0
 *
 * A pod does not depend on the agent's life: the state says which process is its pid 1 (a pid and a
 * start time, checked through a pidfd), so a restarted agent goes on watching it. After a reboot the
 * boot id differs: those pods have ended with their node.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agent/agent.h"
#include "agent/link/unix.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

#define EXIT_LOST 137 /* killed, nobody heard why */
#define STATE_SIZE 320
#define KEEP_EXITED 200

bool pod_name_valid(const char *name)
{
	static const char ok[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t n = strlen(name);

	return n >= 1 && n <= 63 && strspn(name, ok) == n && name[0] != '.' && name[0] != '-';
}

Pm__PodSpec *spec_copy(const Pm__PodSpec *spec)
{
	size_t n = pm__pod_spec__get_packed_size(spec);
	autofree uint8_t *buf = malloc(n ? n : 1);

	if (!buf)
		return NULL;
	pm__pod_spec__pack(spec, buf);
	return pm__pod_spec__unpack(NULL, n, buf);
}

struct pod *pod_find(struct agent *a, const char *name)
{
	for (struct pod *p = a->pods; p; p = p->next)
		if (strcmp(p->spec->name, name) == 0)
			return p;
	return NULL;
}

static uint32_t hash(const char *a, const char *b)
{
	uint32_t h = 2166136261u;

	for (; *a; a++)
		h = (h ^ (uint8_t)*a) * 16777619u;
	h = (h ^ '/') * 16777619u;
	for (; *b; b++)
		h = (h ^ (uint8_t)*b) * 16777619u;
	return h;
}

static void pod_free(struct pod *p)
{
	keeper_stop(p);
	if (p->watch)
		event_free(p->watch);
	close_fdp(&p->pidfd);
	close_fdp(&p->netns);
	if (p->spec)
		pm__pod_spec__free_unpacked(p->spec, NULL);
	free(p->dir);
	free(p->cgroup);
	free(p->host_link);
	free(p);
}

struct pod *pod_new(struct agent *a, const Pm__PodSpec *spec, uint64_t epoch, Pm__PodState state,
		    const char *op)
{
	struct pod *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	*p = (struct pod){ .agent = a, .epoch = epoch, .state = state, .pidfd = -1, .netns = -1,
			   .exit_code = -1 };
	snprintf(p->op, sizeof(p->op), "%s", op);
	p->spec = spec_copy(spec);
	if (!p->spec ||
	    asprintf(&p->dir, "%s/pods/%s", a->conf.agent_state_dir, spec->name) < 0 ||
	    asprintf(&p->cgroup, "%s/%s", a->cgroup_root, spec->name) < 0 ||
	    asprintf(&p->host_link, "pm%08x", hash(a->conf.agent_name, spec->name)) < 0) {
		pod_free(p);
		return NULL;
	}
	p->next = a->pods;
	a->pods = p;
	return p;
}

void pod_place(const struct pod *p, struct pod_place *out)
{
	*out = (struct pod_place){ p->dir, p->cgroup, p->host_link };
}

static void remove_dir(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *de;

	if (d) {
		while ((de = readdir(d)))
			if (de->d_type == DT_REG)
				unlinkat(dirfd(d), de->d_name, 0);
		closedir(d);
	}
	if (rmdir(path) < 0 && errno != ENOENT)
		log_warn("remove '%s': %s", path, strerror(errno));
}

static void unlink_pod(struct pod *p)
{
	for (struct pod **at = &p->agent->pods; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			return;
		}
}

void pod_forget(struct pod *p)
{
	struct agent *a = p->agent;
	char state[PATH_MAX];

	/* the state first: a directory without one is nobody's */
	snprintf(state, sizeof(state), "%s/state", p->dir);
	unlink(state);
	remove_dir(p->dir);
	unlink_pod(p);
	pod_free(p);
	agent_report_soon(a);
}

/* Always STATE_SIZE bytes, so that it can be written in place. */
static void state_text(const struct pod *p, char buf[STATE_SIZE + 1])
{
	int n = snprintf(buf, STATE_SIZE,
			 "state=%d epoch=%" PRIu64 " pid=%d start=%" PRIu64
			 " boot=%s exit=%d op=%s engine=%d:%" PRIu64,
			 p->state, p->epoch, p->pid, p->start, p->agent->boot_id,
			 p->exit_known ? p->exit_code : -1, p->op[0] ? p->op : "-", p->engine,
			 p->engine_start);

	memset(buf + n, ' ', (size_t)(STATE_SIZE - 1 - n));
	memcpy(buf + STATE_SIZE - 1, "\n", 2);
}

int pod_save(struct pod *p, struct err *e)
{
	size_t n = pm__pod_spec__get_packed_size(p->spec);
	autofree uint8_t *buf = malloc(n ? n : 1);
	char path[PATH_MAX], text[STATE_SIZE + 1];
	int r;

	if (!buf)
		return err_num(e, ENOMEM, "pod '%s'", p->spec->name);
	r = make_dirs(p->dir, 0700, e);
	if (r < 0)
		return r;
	pm__pod_spec__pack(p->spec, buf);
	snprintf(path, sizeof(path), "%s/spec", p->dir);
	r = io_replace_file(path, buf, n, 0600, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/state", p->dir);
	state_text(p, text);
	return io_replace_file(path, text, STATE_SIZE, 0600, e);
}

int pod_save_quick(struct pod *p, struct err *e)
{
	char path[PATH_MAX], text[STATE_SIZE + 1];
	autoclose int fd = -1;

	/* in place: a rename over a file makes ext4 flush it, half a millisecond of the freeze */
	snprintf(path, sizeof(path), "%s/state", p->dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	state_text(p, text);
	if (pwrite(fd, text, STATE_SIZE, 0) != STATE_SIZE)
		return err_sys(e, "write '%s'", path);
	return 0;
}

/* Field 22 of /proc/PID/stat: in clock ticks since the boot. 0: there is no such process. */
uint64_t process_start_time(pid_t pid)
{
	autofree char *text = NULL;
	char path[64], *at;
	uint64_t v;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file(path, 4096, &text, NULL, NULL) < 0)
		return 0;
	at = strrchr(text, ')'); /* the name may hold anything */
	for (int i = 0; at && i < 20; i++)
		at = strchr(at + 1, ' ');
	return at && sscanf(at, " %" SCNu64, &v) == 1 ? v : 0;
}

struct ended {
	struct pod_place place;
	struct agent *agent;
	char name[64];
};

/* Exit codes and logs of ended pods are kept for a while, not for ever. */
static void forget_oldest(struct agent *a)
{
	struct pod *oldest = NULL;
	unsigned n = 0;

	for (struct pod *p = a->pods; p; p = p->next) {
		if (p->state != PM__POD_STATE__POD_EXITED || p->op[0])
			continue;
		n++;
		if (!oldest || p->spec->created_ns < oldest->spec->created_ns)
			oldest = p;
	}
	if (n > KEEP_EXITED)
		pod_forget(oldest);
}

static void destroyed(void *arg, int r, const struct err *e)
{
	struct ended *x = arg;
	struct pod *p = pod_find(x->agent, x->name);

	if (r < 0)
		log_error("pod '%s': %s", x->name, e->msg);
	if (p && p->going && p->forget) {
		pod_forget(p);
	} else if (p && p->going) {
		p->going = false;
		p->state = PM__POD_STATE__POD_EXITED;
		pod_save(p, NULL);
		log_info("pod '%s' has exited with code %d", x->name, p->exit_code);
		forget_oldest(x->agent);
		agent_report(x->agent, 0);
	}
	free((void *)(uintptr_t)x->place.dir);
	free((void *)(uintptr_t)x->place.cgroup);
	free((void *)(uintptr_t)x->place.host_link);
	free(x);
}

static int destroy_ended(void *arg, struct err *e)
{
	struct ended *x = arg;

	return pod_ns_destroy(&x->place, deadline_ms(30000), e);
}

void pod_ended(struct pod *p, int exit_code)
{
	struct ended *x;

	if (p->going || p->state == PM__POD_STATE__POD_EXITED)
		return;
	keeper_stop(p);
	if (!p->exit_known) {
		p->exit_known = true;
		p->exit_code = exit_code >= 0 ? exit_code : EXIT_LOST;
	}
	p->going = true;
	p->pid = 0;
	if (p->watch) {
		event_free(p->watch);
		p->watch = NULL;
	}
	close_fdp(&p->pidfd);
	close_fdp(&p->netns);
	pod_save(p, NULL);
	x = calloc(1, sizeof(*x));
	if (!x)
		return;
	x->agent = p->agent;
	snprintf(x->name, sizeof(x->name), "%s", p->spec->name);
	x->place.dir = strdup(p->dir);
	x->place.cgroup = strdup(p->cgroup);
	x->place.host_link = strdup(p->host_link);
	if (task_run(p->agent, destroy_ended, destroyed, x) < 0)
		log_error("pod '%s': no thread to take it down", p->spec->name);
}

static void on_pid_gone(evutil_socket_t fd, short what, void *arg)
{
	struct pod *p = arg;

	(void)fd;
	(void)what;
	event_del(p->watch);
	if (!op_pod_died(p))
		pod_ended(p, -1);
}

int pod_adopt_pid(struct pod *p, pid_t pid, struct err *e)
{
	char path[64];

	close_fdp(&p->pidfd);
	close_fdp(&p->netns);
	p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p->pidfd < 0)
		return err_sys(e, "pid 1 of pod '%s' (%d)", p->spec->name, pid);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	p->netns = open(path, O_RDONLY | O_CLOEXEC);
	if (p->netns < 0)
		return err_sys(e, "open '%s'", path);
	p->pid = pid;
	p->start = process_start_time(pid);
	if (p->watch)
		event_free(p->watch);
	p->watch = event_new(p->agent->base, p->pidfd, EV_READ | EV_PERSIST, on_pid_gone, p);
	if (!p->watch || event_add(p->watch, NULL) < 0)
		return err_set(e, ENOMEM, "watch pid %d", pid);
	return 0;
}

/* ---- at start */

static int parse_state(struct pod *p, const char *text, char *boot, pid_t *pid, uint64_t *start)
{
	int state, code;
	char op[48];

	if (sscanf(text,
		   "state=%d epoch=%" SCNu64 " pid=%d start=%" SCNu64
		   " boot=%47s exit=%d op=%47s engine=%d:%" SCNu64,
		   &state, &p->epoch, pid, start, boot, &code, op, &p->engine,
		   &p->engine_start) != 9)
		return -EINVAL;
	p->state = (Pm__PodState)state;
	p->exit_known = code >= 0;
	p->exit_code = code;
	snprintf(p->op, sizeof(p->op), "%s", strcmp(op, "-") ? op : "");
	return 0;
}

/* One pod of the registry finds its process again, or learns that it is gone. */
static int pod_find_again(struct pod *p, const char *boot, pid_t pid, uint64_t start, struct err *e)
{
	bool alive = strcmp(boot, p->agent->boot_id) == 0 && pid > 0 && start &&
		     process_start_time(pid) == start;
	int r;

	if (p->state == PM__POD_STATE__POD_EXITED)
		return 0;
	if (alive) {
		r = pod_adopt_pid(p, pid, e);
		if (r < 0)
			return r;
	}
	if (p->op[0])
		return op_resume(p, alive, e);
	engine_wait(p); /* one that was just making it */
	if (!alive) {
		log_warn("pod '%s' ended while this agent was away", p->spec->name);
		pod_ended(p, -1);
		return 0;
	}
	if (p->state == PM__POD_STATE__POD_STARTING)
		p->state = PM__POD_STATE__POD_RUNNING;
	log_info("pod '%s' found again, pid %d", p->spec->name, pid);
	return keeper_start(p, e);
}

static int pod_load(struct agent *a, const char *name, struct err *e)
{
	autofree char *text = NULL, *spec_data = NULL;
	char path[PATH_MAX], boot[48];
	Pm__PodSpec *spec;
	struct pod *p;
	uint64_t start;
	size_t len;
	pid_t pid;
	int r;

	snprintf(path, sizeof(path), "%s/pods/%s/spec", a->conf.agent_state_dir, name);
	r = io_read_file(path, LINK_FRAME_MAX, &spec_data, &len, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/pods/%s/state", a->conf.agent_state_dir, name);
	r = io_read_file(path, 4096, &text, NULL, e);
	if (r < 0)
		return r;
	spec = pm__pod_spec__unpack(NULL, len, (uint8_t *)spec_data);
	if (!spec || strcmp(spec->name, name) != 0) {
		if (spec)
			pm__pod_spec__free_unpacked(spec, NULL);
		return err_set(e, EINVAL, "its record is damaged");
	}
	p = pod_new(a, spec, 0, PM__POD_STATE__POD_RUNNING, "");
	pm__pod_spec__free_unpacked(spec, NULL);
	if (!p)
		return err_num(e, ENOMEM, "pod '%s'", name);
	r = parse_state(p, text, boot, &pid, &start);
	if (r < 0) {
		unlink_pod(p);
		pod_free(p);
		return err_set(e, EINVAL, "its state is damaged");
	}
	return pod_find_again(p, boot, pid, start, e);
}

int registry_load(struct agent *a, struct err *e)
{
	char path[PATH_MAX];
	struct dirent *de;
	struct err pe;
	DIR *d;
	int r;

	snprintf(path, sizeof(path), "%s/pods", a->conf.agent_state_dir);
	r = make_dirs(path, 0700, e);
	if (r < 0)
		return r;
	d = opendir(path);
	if (!d)
		return err_sys(e, "open '%s'", path);
	while ((de = readdir(d)))
		if (pod_name_valid(de->d_name) && pod_load(a, de->d_name, &pe) < 0)
			log_error("pod '%s': %s", de->d_name, pe.msg);
	closedir(d);
	return 0;
}

/* ---- report */

static void count_procs(struct pod *p, uint32_t *procs, uint64_t *mem)
{
	autofree char *text = NULL;
	char path[PATH_MAX];
	char *save = NULL;

	*procs = 0;
	*mem = 0;
	snprintf(path, sizeof(path), "%s/cgroup.procs", p->cgroup);
	if (io_read_file(path, 1 << 20, &text, NULL, NULL) < 0)
		return;
	for (char *s = strtok_r(text, "\n", &save); s; s = strtok_r(NULL, "\n", &save)) {
		autofree char *statm = NULL;
		unsigned long rss;

		++*procs;
		snprintf(path, sizeof(path), "/proc/%s/statm", s);
		if (io_read_file(path, 256, &statm, NULL, NULL) == 0 &&
		    sscanf(statm, "%*u %lu", &rss) == 1)
			*mem += rss * 4096ull;
	}
}

void pod_info(struct pod *p, Pm__PodInfo *out)
{
	pm__pod_info__init(out);
	out->spec = p->spec;
	out->state = p->state;
	out->node = p->agent->conf.agent_name;
	out->epoch = p->epoch;
	out->exit_code = p->exit_known ? p->exit_code : 0;
	out->op = p->op;
	out->ending = p->going;
	if (p->state != PM__POD_STATE__POD_EXITED)
		count_procs(p, &out->procs, &out->mem);
}

void agent_report(struct agent *a, uint32_t id)
{
	autofree Pm__PodInfo *infos = NULL;
	autofree Pm__PodInfo **list = NULL;
	size_t n = 0;

	if (!a->coord)
		return;
	for (struct pod *p = a->pods; p; p = p->next)
		n++;
	infos = calloc(n + 1, sizeof(*infos));
	list = calloc(n + 1, sizeof(Pm__PodInfo *));
	if (!infos || !list)
		return;
	n = 0;
	for (struct pod *p = a->pods; p; p = p->next, n++) {
		pod_info(p, &infos[n]);
		list[n] = &infos[n];
	}
	LINK_ENVELOPE(env, agent_pods, AGENT_PODS, Pm__AgentPods, pm__agent_pods__init);
	env.id = id;
	env_body.pods = list;
	env_body.n_pods = n;
	agent_send(a, &env);
}

static void on_report(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	agent_report(arg, 0);
}

void agent_report_soon(struct agent *a)
{
	struct timeval tv = { .tv_usec = 2000 };

	if (!a->report_later)
		a->report_later = event_new(a->base, -1, 0, on_report, a);
	if (a->report_later && !event_pending(a->report_later, EV_TIMEOUT, NULL))
		event_add(a->report_later, &tv);
}
