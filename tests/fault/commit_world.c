/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "tests/fault/commit_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/link/unix.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/ns.h"

struct world w;

void flunk(const char *fmt, ...)
{
	va_list ap;

	if (w.failed)
		return;
	w.failed = true;
	va_start(ap, fmt);
	vsnprintf(w.why, sizeof(w.why), fmt, ap);
	va_end(ap);
}

/* Between two looks of a loop with a deadline: what daemons do to files and processes has no event that all of them share. */
void nap(void)
{
	struct timespec ts = { 0, 3000000 };

	nanosleep(&ts, NULL);
}

/* ---- the world: directories, daemons */

const char *in_dir(const char *fmt, ...)
{
	static char buf[8][700];
	static unsigned i;
	char *p = buf[i++ % 8];
	size_t n = (size_t)snprintf(p, 700, "%s/", w.dir);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p + n, 700 - n, fmt, ap);
	va_end(ap);
	return p;
}

void put_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		flunk("write %s: %s", path, strerror(errno));
	close(fd);
}

void write_confs(void)
{
	char text[2000];

	snprintf(text, sizeof(text),
		 "[client]\ncoordinator = %s/c.sock\n[coordinator]\nsocket = %s/c.sock\n"
		 "state_dir = %s/c\n[node A]\nsocket = %s/a.sock\naddress = 127.0.0.1\n"
		 "[node B]\nsocket = %s/b.sock\naddress = 127.0.0.1\n",
		 w.dir, w.dir, w.dir, w.dir, w.dir);
	put_file(in_dir("c.conf"), text);
	for (int i = AGENT_A; i <= AGENT_B; i++) {
		char l = i == AGENT_A ? 'a' : 'b';

		snprintf(text, sizeof(text),
			 "[agent]\nname = %c\nsocket = %s/%c.sock\nstate_dir = %s/%c\n"
			 "address = 127.0.0.1\ncgroup = %s\n",
			 l - 32, w.dir, l, w.dir, l, strrchr(w.cgroup[i], '/') + 1);
		put_file(in_dir("%c.conf", l), text);
	}
}

void start(enum who who)
{
	static const char *const prog[] = { "podcoord", "podagent", "podagent" };
	static const char letter[] = "cab";
	char path[400], boot[32];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", w.bin, prog[who]);
	snprintf(boot, sizeof(boot), "boot-%c-%u", letter[who], w.boots[who]);
	pid = fork();
	if (pid == 0) {
		int log = open(in_dir("log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
		char name[16], c[] = "-c", conf[700];
		char *argv[] = { name, c, conf, NULL };

		dup2(log, 1);
		dup2(log, 2);
		snprintf(name, sizeof(name), "%s", prog[who]);
		snprintf(conf, sizeof(conf), "%s", in_dir("%c.conf", letter[who]));
		setenv("POD_BOOT_ID", boot, 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (who != COORD) {
			char procs[4200];

			mkdir(w.daemons[who], 0755);
			snprintf(procs, sizeof(procs), "%s/cgroup.procs", w.daemons[who]);
			io_write_file(procs, "0", NULL);
		}
		execv(path, argv);
		_exit(127);
	}
	w.pid[who] = pid;
}

void kill_cgroup(const char *cgroup)
{
	char path[4200];
	struct dirent *de;
	DIR *d;

	snprintf(path, sizeof(path), "%s/cgroup.kill", cgroup);
	io_write_file(path, "1", NULL);
	d = opendir(cgroup);
	while (d && (de = readdir(d)))
		if (de->d_type == DT_DIR && de->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", cgroup, de->d_name);
			for (uint64_t end = deadline_ms(WAIT_MS); rmdir(path) < 0 && now_ns() < end;)
				nap();
		}
	if (d)
		closedir(d);
	for (uint64_t end = deadline_ms(WAIT_MS); rmdir(cgroup) < 0 && errno == EBUSY && now_ns() < end;)
		nap();
}

/* ---- asking */

int ask_fd(void)
{
	int fd = unix_connect(in_dir("c.sock"), deadline_ms(WAIT_MS), NULL);

	if (fd >= 0 && link_hello(fd, "client", NULL, NULL, deadline_ms(WAIT_MS), NULL) < 0)
		close_fdp(&fd);
	return fd;
}

Pm__Envelope *ask(const Pm__Envelope *env)
{
	autoclose int fd = ask_fd();
	Pm__Envelope *rep = NULL;

	if (fd < 0 || link_send(fd, env, deadline_ms(WAIT_MS), NULL) < 0 ||
	    link_recv(fd, &rep, deadline_ms(WAIT_MS), NULL) < 0)
		return NULL;
	return rep;
}

bool both_up(void)
{
	Pm__Envelope *rep;
	bool up = true;

	LINK_ENVELOPE(env, nodes_req, NODES_REQ, Pm__NodesReq, pm__nodes_req__init);
	rep = ask(&env);
	if (!rep || rep->body_case != PM__ENVELOPE__BODY_NODES_REP)
		up = false;
	for (size_t i = 0; up && i < rep->nodes_rep->n_nodes; i++)
		up = strcmp(rep->nodes_rep->nodes[i]->state, "up") == 0;
	link_free(rep);
	return up;
}

bool look(struct view *v)
{
	Pm__Envelope *rep;

	LINK_ENVELOPE(env, pods_req, PODS_REQ, Pm__PodsReq, pm__pods_req__init);
	memset(v, 0, sizeof(*v));
	rep = ask(&env);
	if (!rep || rep->body_case != PM__ENVELOPE__BODY_PODS_REP) {
		link_free(rep);
		return false;
	}
	if (rep->pods_rep->n_pods) {
		v->found = true;
		v->node = rep->pods_rep->pods[0]->node[0];
		v->state = rep->pods_rep->pods[0]->state;
	}
	link_free(rep);
	return true;
}

/* podctl recover [ID]: the first line */
bool recover(const char *id, char *line, size_t len)
{
	Pm__Envelope *rep;
	bool ok;

	LINK_ENVELOPE(env, recover_req, RECOVER_REQ, Pm__RecoverReq, pm__recover_req__init);
	env_body.id = (char *)(uintptr_t)id;
	rep = ask(&env);
	ok = rep && rep->body_case == PM__ENVELOPE__BODY_RECOVER_REP && rep->recover_rep->n_lines;
	if (ok)
		snprintf(line, len, "%s", rep->recover_rep->lines[0]);
	link_free(rep);
	return ok;
}

bool nothing_open(void)
{
	char line[300];

	return recover("", line, sizeof(line)) && strstr(line, "nothing is to be recovered");
}

static uint64_t ticks_of(const struct tick_slot *s)
{
	return __atomic_load_n(&s->ticks, __ATOMIC_SEQ_CST);
}

bool runs(const struct tick_slot *s)
{
	uint64_t before = ticks_of(s), end = deadline_ms(WAIT_MS);

	while (ticks_of(s) < before + 2 && now_ns() < end)
		nap();
	return ticks_of(s) >= before + 2;
}

bool stands(const struct tick_slot *s)
{
	uint64_t before = ticks_of(s);
	int i;

	for (i = 0; i < 34; i++) /* naps, not time: the machine may stand, too */
		nap();
	return ticks_of(s) == before;
}

bool pod_dir(enum who who)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%s", w.cgroup[who], POD);
	return access(path, F_OK) == 0;
}

int lo_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &ifr);

	close(fd);
	return r;
}

static int copy_programs(const char *bin)
{
	static const char *const names[][2] = { { "podagent", "podagent" },
						{ "podcoord", "podcoord" },
						{ "fake-engine", "pod-engine" } };
	char cmd[1000];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(cmd, sizeof(cmd), "cp '%s/%s' '%s/%s'", bin, names[i][0], w.bin,
			 names[i][1]);
		if (system(cmd))
			return -1;
	}
	return 0;
}

int prepare(void)
{
	char root[4096], self[4096], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *tmp = getenv("TMPDIR");
	int fd;

	if (n < 0 || pod_cgroup_root(root, sizeof(root), NULL) < 0)
		return -1;
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	snprintf(w.dir, sizeof(w.dir), "%s/pm-commit-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(w.dir))
		return -1;
	snprintf(w.bin, sizeof(w.bin), "%s/bin", w.dir);
	mkdir(w.bin, 0700);
	for (int i = AGENT_A; i <= AGENT_B; i++)
		snprintf(w.cgroup[i], sizeof(w.cgroup[i]), "%.4000s/pm-commit-%d-%c", root, getpid(),
			 i == AGENT_A ? 'a' : 'b');
	for (int i = AGENT_A; i <= AGENT_B; i++)
		snprintf(w.daemons[i], sizeof(w.daemons[i]), "%.4000s-node", w.cgroup[i]);
	fd = open(in_dir("ticks"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, sizeof(struct ticks)) < 0)
		return -1;
	w.ticks = mmap(NULL, sizeof(struct ticks), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	setenv("COMMIT_TICKS", in_dir("ticks"), 1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	strcat(w.dir, "/0"); /* setup() replaces the last part */
	return w.ticks == MAP_FAILED ? -1 : copy_programs(self);
}
