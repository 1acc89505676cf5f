/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A new pod: namespaces, then podinit as pid 1, then the command.
 *
 * podinit's program is read before the pod exists and put into a memfd inside it, so that its text
 * belongs to the pod: it is moved with it, and an upgrade of the node's podinit does not touch it.
 * The address is announced before the engine leaves; the command may already have used it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent/link/frame.h"
#include "netfreeze/netfreeze.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/engine.h"
#include "pod/ns.h"

#define CREATE_MS 50000 /* nobody stands still for it */
#define PODINIT_MAX (16u << 20)
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct program {
	char *text;
	size_t len;
};

static int read_podinit(struct program *p, struct err *e)
{
	char path[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("podinit"));

	if (n < 0)
		return err_sys(e, "readlink /proc/self/exe");
	path[n] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, "podinit");
	return io_read_file(path, PODINIT_MAX, &p->text, &p->len, e);
}

/* In pid 1. Nobody can be told why it fails; the silence on the socket is the message. */
static int exec_podinit(void *arg)
{
	static char name[] = "podinit";
	char *argv[] = { name, NULL }, *envp[] = { NULL };
	const struct program *p = arg;
	int fd = memfd_create("podinit", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("podinit", MFD_CLOEXEC);
	if (fd < 0 || io_write_full(fd, p->text, p->len, deadline_ms(CREATE_MS), NULL) < 0)
		return -EIO;
	fchmod(fd, 0555);
	fexecve(fd, argv, envp);
	return -errno;
}

/* Gives podinit its PodSpec and hears whether the command runs. *@code: podrun's exit code. */
static int start_command(const struct pod_ns *ns, const Pm__EngineCreate *q, int *code,
			 uint64_t deadline, struct err *e)
{
	Pm__Envelope *rep = NULL;
	int r;

	LINK_ENVELOPE(run, agent_run, AGENT_RUN, Pm__AgentRun, pm__agent_run__init);
	run_body.spec = q->spec;
	r = link_send(ns->sock, &run, deadline, e);
	if (r == 0)
		r = link_recv(ns->sock, &rep, deadline, e);
	if (r < 0)
		return err_wrap(e, "podinit");
	if (rep->body_case == PM__ENVELOPE__BODY_ERROR) {
		*code = rep->error->exit_code;
		r = err_set(e, ENOEXEC, "%s", rep->error->cause);
	} else if (rep->body_case != PM__ENVELOPE__BODY_OK) {
		r = err_set(e, EPROTO, "podinit answered %s", link_body_name(rep->body_case));
	}
	link_free(rep);
	return r;
}

/* eth0 joins the node's network and says who it is. */
static int join_bridge(const struct pod_ns *ns, const Pm__EngineCreate *q, struct err *e)
{
	autoclose int netns = -1;
	struct in_addr ip;
	uint8_t mac[6];
	char path[64];
	int r;

	if (!q->spec->ip || !q->spec->ip[0] || !q->bridge || !q->bridge[0])
		return 0;
	r = link_attach(q->host_link, q->bridge, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", ns->pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns < 0)
		return err_sys(e, "open '%s'", path);
	/* both were checked when eth0 was made */
	if (inet_pton(AF_INET, q->spec->ip, &ip) != 1 ||
	    sscanf(q->spec->mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5]) != 6)
		return err_set(e, EINVAL, "address of eth0");
	return link_announce(netns, mac, ip.s_addr, 1, e);
}

int engine_create(int ctl, const Pm__EngineCreate *q)
{
	struct pod_place place = { .dir = q->dir, .cgroup = q->cgroup, .host_link = q->host_link };
	uint64_t deadline = deadline_ms(CREATE_MS);
	struct pod_ns ns = { .pid = -1, .pidfd = -1, .sock = -1 };
	struct program init = { 0 };
	struct err e = { 0 };
	int r, code = 125;

	r = q->spec ? read_podinit(&init, &e) : err_set(&e, EPROTO, "no description of the pod");
	if (r == 0)
		r = pod_ns_create(q->spec, &place, NULL, exec_podinit, &init, deadline, &ns, &e);
	free(init.text);
	if (r < 0)
		return engine_fail(ctl, code, "create", &e);
	r = join_bridge(&ns, q, &e);
	if (r == 0)
		r = start_command(&ns, q, &code, deadline, &e);
	if (r == 0) {
		LINK_ENVELOPE(rep, engine_created, ENGINE_CREATED, Pm__EngineCreated,
			      pm__engine_created__init);
		rep_body.pid = (uint32_t)ns.pid;
		r = link_send(ctl, &rep, deadline, &e);
	}
	if (r < 0)
		pod_ns_destroy(&place, deadline_ms(CREATE_MS), NULL);
	pod_ns_done(&ns);
	return r < 0 ? engine_fail(ctl, code, "create", &e) : 0;
}
