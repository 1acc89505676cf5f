/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * podagent: one per node. It starts a pod-engine for each operation, watches the node's pods, keeps
 * their logs, relays their consoles, and holds the node's word in a migration (START or REFUSED).
 * It never traces anybody, and pods do not depend on its life.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/link/daemon.h"
#include "agent/link/unix.h"
#include "pod/base/io.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static int read_boot_id(struct agent *a, struct err *e)
{
	/* a lab's nodes are namespaces of one machine: each brings an id that changes with its reboot */
	const char *lab = getenv("POD_BOOT_ID");
	autofree char *text = NULL;
	int r;

	if (lab && *lab) {
		snprintf(a->boot_id, sizeof(a->boot_id), "%s", lab);
		return 0;
	}
	r = io_read_file("/proc/sys/kernel/random/boot_id", 256, &text, NULL, e);
	if (r < 0)
		return r;
	text[strcspn(text, "\n")] = '\0';
	snprintf(a->boot_id, sizeof(a->boot_id), "%s", text);
	return 0;
}

static int find_bin_dir(struct agent *a, struct err *e)
{
	ssize_t n = readlink("/proc/self/exe", a->bin_dir, sizeof(a->bin_dir) - 1);

	if (n < 0)
		return err_sys(e, "readlink /proc/self/exe");
	a->bin_dir[n] = '\0';
	*strrchr(a->bin_dir, '/') = '\0';
	return 0;
}

static int make_cgroup_root(struct agent *a, struct err *e)
{
	char root[PATH_MAX];
	int r = pod_cgroup_root(root, sizeof(root), e);

	if (r < 0)
		return r;
	snprintf(a->cgroup_root, sizeof(a->cgroup_root), "%s/%s", root, a->conf.agent_cgroup);
	return make_dirs(a->cgroup_root, 0755, e);
}

/* "First write wins" needs one writer: two agents never share a state directory. */
static int lock_state(struct agent *a, struct err *e)
{
	char path[PATH_MAX];
	int fd, r;

	r = make_dirs(a->conf.agent_state_dir, 0711, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/agent.lock", a->conf.agent_state_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, "open '%s'", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_sys(e, "another agent holds '%s'", path);
	return 0; /* held until we die */
}

static int agent_init(struct agent *a, const char *conf, struct err *e)
{
	int r = conf_load(conf, &a->conf, e);

	if (r < 0)
		return r;
	if (!a->conf.agent_name[0]) {
		char host[65] = "";

		gethostname(host, sizeof(host) - 1);
		free(a->conf.agent_name);
		a->conf.agent_name = strdup(host);
	}
	a->base = event_base_new();
	if (!a->base || !a->conf.agent_name)
		return err_set(e, ENOMEM, "event loop");
	r = read_boot_id(a, e);
	if (r == 0)
		r = find_bin_dir(a, e);
	if (r == 0)
		r = lock_state(a, e);
	if (r == 0)
		r = make_cgroup_root(a, e);
	if (r == 0)
		r = tasks_init(a, e);
	if (r == 0)
		r = registry_load(a, e);
	if (r == 0)
		records_prune(a);
	if (r == 0)
		r = session_listen(a, e);
	return r;
}

int main(int argc, char **argv)
{
	static struct agent agent;
	const char *conf = NULL;
	struct err e = { 0 };
	int c;

	log_init("podagent", LOG_LV_INFO);
	while ((c = getopt(argc, argv, "c:")) != -1) {
		if (c != 'c') {
			fprintf(stderr, "usage: podagent [-c CONFIG]\n");
			return 2;
		}
		conf = optarg;
	}
	signal(SIGPIPE, SIG_IGN);
	if (agent_init(&agent, conf, &e) < 0) {
		log_error("%s", e.msg);
		return 1;
	}
	log_info("node '%s' listens at %s", agent.conf.agent_name, agent.conf.agent_socket);
	c = daemon_run(agent.base);
	if (c < 0)
		log_error("no memory");
	else
		log_info("signal %d: leaving; the pods go on", c);
	unlink(agent.conf.agent_socket);
	return c < 0;
}
