/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * START and REFUSED: this node's word in an operation, one file each under state_dir/ops/. The file
 * is made, with its size, while the pod still runs, so that the word itself is one write in place and
 * one fdatasync with no metadata behind it. The first word stands: the agent is the only writer (it
 * holds agent.lock), and it never writes over a word that is there.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/link/unix.h"
#include "agent/op.h"
#include "pod/base/util.h"

#define KEEP_S (30 * 24 * 3600) /* by then nobody asks any more */
#define RECORD_SIZE 512 /* a sector: written whole or not at all */

static bool id_valid(const char *id)
{
	size_t n = strlen(id);

	return n && n < 48 && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static int read_fd(int fd, struct record *out, struct err *e)
{
	char text[RECORD_SIZE + 1] = "", word[16];

	if (pread(fd, text, RECORD_SIZE, 0) < 0)
		return err_sys(e, "read an operation's record");
	memset(out, 0, sizeof(*out));
	if (text[0] == '\0')
		return 0;
	if (sscanf(text, "%15s %" SCNu64 " %63s", word, &out->epoch, out->pod) < 2)
		return err_set(e, EINVAL, "an operation's record is damaged");
	if (strcmp(word, "START") == 0)
		out->outcome = OP_START;
	else if (strcmp(word, "REFUSED") == 0)
		out->outcome = OP_REFUSED;
	else
		return err_set(e, EINVAL, "an operation's record is damaged");
	return 0;
}

int record_read(struct agent *a, const char *id, struct record *out, struct err *e)
{
	char path[PATH_MAX];
	autoclose int fd = -1;

	memset(out, 0, sizeof(*out));
	if (!id_valid(id))
		return err_set(e, EINVAL, "'%s' is not an operation's id", id);
	snprintf(path, sizeof(path), "%s/ops/%s", a->conf.agent_state_dir, id);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "open '%s'", path);
	return read_fd(fd, out, e);
}

static int sync_dir(const char *path, struct err *e)
{
	autoclose int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_sys(e, "sync '%s'", path);
	return 0;
}

int record_open(struct agent *a, const char *id, enum op_outcome *outcome, struct err *e)
{
	static const char zeros[RECORD_SIZE];
	char dir[PATH_MAX], path[PATH_MAX + 64];
	autoclose int fd = -1;
	struct record rec;
	int r;

	if (!id_valid(id))
		return err_set(e, EINVAL, "'%s' is not an operation's id", id);
	snprintf(dir, sizeof(dir), "%s/ops", a->conf.agent_state_dir);
	r = make_dirs(dir, 0700, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/%s", dir, id);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		r = read_fd(fd, &rec, e);
		*outcome = rec.outcome;
		return r < 0 ? r : take_fd(&fd);
	}
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, "create '%s'", path);
	if (pwrite(fd, zeros, sizeof(zeros), 0) != sizeof(zeros) || fsync(fd) < 0)
		return err_sys(e, "write '%s'", path);
	r = sync_dir(dir, e);
	*outcome = OP_NONE;
	return r < 0 ? r : take_fd(&fd);
}

int record_write(int fd, enum op_outcome outcome, uint64_t epoch, const char *pod, struct err *e)
{
	char text[RECORD_SIZE] = "";

	snprintf(text, sizeof(text), "%s %" PRIu64 " %s\n",
		 outcome == OP_START ? "START" : "REFUSED", epoch, pod);
	if (pwrite(fd, text, sizeof(text), 0) != sizeof(text) || fdatasync(fd) < 0)
		return err_sys(e, "write an operation's record");
	return 0;
}

void records_prune(struct agent *a)
{
	char path[PATH_MAX];
	time_t old = time(NULL) - KEEP_S;
	struct dirent *de;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "%s/ops", a->conf.agent_state_dir);
	d = opendir(path);
	while (d && (de = readdir(d)))
		if (de->d_type == DT_REG && fstatat(dirfd(d), de->d_name, &st, 0) == 0 &&
		    st.st_mtime < old)
			unlinkat(dirfd(d), de->d_name, 0);
	if (d)
		closedir(d);
}
