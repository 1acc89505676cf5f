/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pod-preempt: what a scheduler calls. vacate: the job's pods go into an image and end; restore: they come back out of the
 * newest one. Both may be called again: a job that is back already is success, one that is away already is "no pod". A pod
 * ends only after all the job's images are on the disk.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "coordinator/cmd/cut.h"
#include "coordinator/cmd/image.h"
#include "coordinator/cmd/operation.h"
#include "pod/base/util.h"
#include "pod/image/image.h"

/* Exit codes of the contract with schedulers; 2 is wrong usage as everywhere. */
enum { HOOK_DONE = 0, HOOK_FAILED = 1, HOOK_NO_POD = 3, HOOK_TOO_LATE = 4, HOOK_BUSY = 5 };

#define BYTES_PER_S (200ull << 20) /* an image takes no longer than that, on storage that deserves the name */
#define FIXED_S 2
#define TIMEOUT_MAX_S (86400 * 7)

struct hook {
	struct ctx *c;
	const char *job, *dir; /* dir: NULL: the image store */
	uint64_t deadline; /* s since the epoch; 0: none */
};

/* *@mem: of all of them, bytes. */
static int pods_of_job(struct hook *h, Pm__Envelope **rep, Pm__PodInfo **found, size_t *n, uint64_t *mem)
{
	int fd = client_open(h->c), code;

	LINK_ENVELOPE(q, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	*n = *mem = 0;
	if (fd < 0)
		return -fd;
	code = client_call(h->c, fd, &q, PM__ENVELOPE__BODY_PODS_REP, NULL, rep);
	close(fd);
	for (size_t i = 0; !code && i < (*rep)->pods_rep->n_pods; i++) {
		Pm__PodInfo *p = (*rep)->pods_rep->pods[i];

		if (!p->spec || strcmp(p->spec->job, h->job) != 0)
			continue;
		*found = p;
		*mem += p->mem;
		(*n)++;
	}
	return code;
}

static int as_hook(int code)
{
	return code == EXIT_OK ? HOOK_DONE : code == EXIT_BUSY ? HOOK_BUSY : code == EXIT_NOTFOUND ? HOOK_NO_POD : HOOK_FAILED;
}

static int quiet_result(struct operation *m, const Pm__MigrateRep *r)
{
	for (size_t i = 0; i < r->n_notes; i++)
		fprintf(stderr, "note: %s\n", clean(r->notes[i]));
	printf("%s\n", r->image[0] ? r->image : m->subject);
	return EXIT_OK;
}

static int vacate(struct hook *h)
{
	struct operation m = { .c = h->c, .fd = -1, .signals = -1, .to = "image", .progress = P_NONE, .result = quiet_result };
	uint64_t need, mem, now = (uint64_t)time(NULL);
	Pm__Envelope *rep = NULL;
	Pm__PodInfo *p = NULL;
	char path[PATH_MAX];
	size_t n;
	int code = pods_of_job(h, &rep, &p, &n, &mem);

	LINK_ENVELOPE(q, checkpoint_req, CHECKPOINT_REQ, Pm__CheckpointReq, pm__checkpoint_req__init);
	if (code || !n) {
		if (!code)
			say(h->c, HOOK_NO_POD, "job '%s' has no pod", h->job);
		link_free(rep);
		return code ? HOOK_FAILED : HOOK_NO_POD;
	}
	need = mem / BYTES_PER_S + FIXED_S;
	if (h->deadline && now + need > h->deadline) {
		say(h->c, HOOK_TOO_LATE, "job '%s' needs up to %lu s, %lu are left: not begun; it runs on", h->job,
		    (unsigned long)need, (unsigned long)(h->deadline > now ? h->deadline - now : 0));
		link_free(rep);
		return HOOK_TOO_LATE;
	}
	m.subject = h->job;
	q_body.target = (char *)(uintptr_t)m.subject;
	q_body.job = true;
	q_body.term = true;
	if (h->deadline)
		q_body.timeout_s = (uint32_t)MIN(h->deadline - now, (uint64_t)TIMEOUT_MAX_S);
	if (h->dir) {
		snprintf(path, sizeof(path), "%s/", h->dir);
		q_body.path = path;
	}
	code = as_hook(operation_run(&m, &q));
	link_free(rep);
	return code;
}

/* The newest image of a job of one pod in @dir, if it is newer than *@best. */
static void newest(struct hook *h, const char *dir, uint64_t *best, char *out, size_t len)
{
	struct err e = { 0 };
	struct dirent *de;
	DIR *d = opendir(dir);

	while (d && (de = readdir(d))) {
		const char *dot = strrchr(de->d_name, '.');
		char path[PATH_MAX];
		Pm__PodSpec *spec;
		struct image im;

		if (!dot || strcmp(dot, IMAGE_SUFFIX) != 0)
			continue;
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, de->d_name) >= sizeof(path))
			continue;
		if (image_open_at(&im, dirfd(d), de->d_name, &e) < 0) {
			say(h->c, HOOK_FAILED, "%s: it is passed over", e.msg);
			continue;
		}
		if (!image_is_ours(im.fd)) {
			image_close(&im);
			continue;
		}
		spec = pm__pod_spec__unpack(NULL, im.head->spec.len, im.head->spec.data);
		if (spec && !im.head->cut[0] && strcmp(spec->job, h->job) == 0 && im.head->created_ns > *best) {
			*best = im.head->created_ns;
			snprintf(out, len, "%s", path);
		}
		if (spec)
			pm__pod_spec__free_unpacked(spec, NULL);
		image_close(&im);
	}
	if (d)
		closedir(d);
}

/* In the store: a scheduler's hook that runs as root looks in everybody's directory. */
static void newest_in_store(struct hook *h, uint64_t *best, char *out, size_t len)
{
	const char *store = h->c->conf.images_dir;
	char dir[PATH_MAX];
	struct dirent *de;
	DIR *d = geteuid() == 0 ? opendir(store) : NULL;

	if (geteuid() != 0) {
		own_store(h->c, dir, sizeof(dir));
		newest(h, dir, best, out, len);
	}
	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.' && de->d_type != DT_LNK &&
		    (size_t)snprintf(dir, sizeof(dir), "%s/%s", store, de->d_name) < sizeof(dir))
			newest(h, dir, best, out, len);
	if (d)
		closedir(d);
}

static int bring_back(struct hook *h, const char *node)
{
	struct operation m = { .c = h->c, .fd = -1, .signals = -1, .to = node, .progress = P_NONE, .result = quiet_result };
	char path[PATH_MAX], id[NAME_MAX + 1];
	uint64_t best = 0;
	Pm__Envelope *rep = NULL;
	Pm__PodInfo *p = NULL;
	uint64_t mem;
	Pm__RestoreReq req;
	struct cut cut;
	size_t n;
	int code = pods_of_job(h, &rep, &p, &n, &mem);

	if (!code && n) { /* it is back already */
		printf("%s\n", n > 1 ? h->job : p->spec->name);
		link_free(rep);
		return HOOK_DONE;
	}
	link_free(rep);
	if (code)
		return HOOK_FAILED;
	if (h->dir)
		newest(h, h->dir, &best, path, sizeof(path));
	else
		newest_in_store(h, &best, path, sizeof(path));
	pm__restore_req__init(&req);
	req.node = (char *)(uintptr_t)node;
	code = h->dir ? cut_find(h->c, h->dir, NULL, h->job, &cut) : cut_find_in_store(h->c, NULL, h->job, &cut);
	if (code < 0)
		return HOOK_FAILED;
	if (code == 1 && cut.made_ns > best) {
		code = as_hook(cut_restore(&m, &req, &cut, !h->dir));
		cut_done(&cut);
		return code;
	}
	if (code == 1)
		cut_done(&cut);
	if (!best) {
		say(h->c, HOOK_NO_POD, "job '%s' has no image in '%s'", h->job, h->dir ? h->dir : h->c->conf.images_dir);
		return HOOK_NO_POD;
	}
	if (h->dir) {
		req.path = path;
	} else {
		snprintf(id, sizeof(id), "%s", strrchr(path, '/') + 1);
		*strrchr(id, '.') = 0;
		req.id = id;
	}
	return as_hook(restore_image(h->c, &m, &req, path, NULL));
}

/* The options, else what the scheduler has in the environment. */
static const char *job_from_environment(void)
{
	static const char *const names[] = { "POD_JOB", "SLURM_JOB_ID", "PBS_JOBID", "JOB_ID", "LSB_JOBID" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (getenv(names[i]) && *getenv(names[i]))
			return getenv(names[i]);
	return NULL;
}

int cmd_preempt(struct ctx *c, int argc, char **argv)
{
	static const struct option longs[] = {
		{ "job", required_argument, NULL, 'j' },      { "image", required_argument, NULL, 'I' },
		{ "deadline", required_argument, NULL, 'D' }, { "node", required_argument, NULL, 'N' },
		{ "help", no_argument, NULL, 'h' },	      { NULL, 0, NULL, 0 },
	};
	struct hook h = { .c = c, .job = job_from_environment() };
	const char *verb, *node = "", *late = getenv("POD_DEADLINE");
	int o;

	if (late && *late && parse_number(c, "POD_DEADLINE", late, 0, UINT64_MAX / 2, &h.deadline) < 0)
		return EXIT_USAGE;
	while ((o = next_option(c, argc, argv, ":h", longs)) != -1) {
		if (o == 'j')
			h.job = optarg;
		else if (o == 'I')
			h.dir = optarg;
		else if (o == 'N')
			node = optarg;
		else if (o != 'D' || parse_number(c, "--deadline", optarg, 0, UINT64_MAX / 2, &h.deadline) < 0)
			return o == 'h' ? EXIT_OK : EXIT_USAGE;
	}
	verb = argc - optind == 1 ? argv[optind] : "";
	if (strcmp(verb, "vacate") != 0 && strcmp(verb, "restore") != 0) {
		say_usage(c, "vacate or restore?");
		return EXIT_USAGE;
	}
	if (!h.job) {
		say_usage(c, "which job?");
		return EXIT_USAGE;
	}
	if (h.dir && h.dir[0] != '/') {
		say_usage(c, "--image '%s' is not an absolute path", h.dir);
		return EXIT_USAGE;
	}
	return strcmp(verb, "vacate") == 0 ? vacate(&h) : bring_back(&h, node);
}
