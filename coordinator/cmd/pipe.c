/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Images through pipes: podctl checkpoint -o -, podctl restore -.
 *
 * The nodes write and read files, in the image store, which they and we share. An image for
 * stdout is written there under a name that begins with a dot, which nobody lists or builds on;
 * it loses that name before its bytes are copied, unless the pod has ended with it: then it is
 * all that there is of the pod, and stays, under its own name, if it cannot be copied. What comes
 * from stdin is a file of the caller's, like any other that he could have restored, for as long
 * as the restart takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/cmd/pipe.h"
#include "pod/base/io.h"
#include "pod/base/util.h"
#include "pod/image/image.h"

#define CHUNK (1u << 20)

/* From where @from stands to where @to stands, all of it. */
static int copy(int from, int to, struct err *e)
{
	autofree char *buf = malloc(CHUNK);

	if (!buf)
		return err_num(e, ENOMEM, "image");
	for (;;) {
		ssize_t n = read(from, buf, CHUNK), done = 0;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? err_sys(e, "read") : 0;
		while (done < n) {
			ssize_t w = write(to, buf + done, (size_t)(n - done));

			if (w < 0 && errno != EINTR)
				return err_sys(e, "write");
			done += MAX(w, 0);
		}
	}
}

int pipe_check_stdout(struct ctx *c)
{
	int flags = fcntl(STDOUT_FILENO, F_GETFL);

	if (isatty(STDOUT_FILENO))
		return say_usage(c, "an image is not for a terminal: -o - wants a pipe or a file");
	if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
		return say_usage(c, "stdout cannot be written to");
	signal(SIGPIPE, SIG_IGN); /* it is said instead, and cleaned up after */
	return 0;
}

/* The directory of the image that the node calls @path: the store, which may have another place here, and the user's in it. */
static int open_dir(struct ctx *c, const char *path, const char **name)
{
	const char *slash = strrchr(path, '/'), *user = slash;
	char dir[PATH_MAX];

	while (user && user > path && user[-1] != '/')
		user--;
	if (!slash || user == slash || *user == '.' ||
	    (size_t)snprintf(dir, sizeof(dir), "%s/%.*s", c->conf.images_dir, (int)(slash - user),
			     user) >= sizeof(dir)) {
		errno = EINVAL;
		return -1;
	}
	*name = slash + 1;
	return open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int pipe_send_image(struct ctx *c, const char *path, bool ended)
{
	struct err e = {0};
	const char *name = NULL;
	autoclose int dir = open_dir(c, path, &name);
	char own[PATH_MAX] = "";
	struct image im;
	int r;

	if (dir < 0 || image_open_at(&im, dir, name, &e) < 0)
		return say(c, EXIT_OTHER, "'%s', the image, cannot be read here: %s", path,
			   e.code ? e.msg : strerror(errno));
	snprintf(own, sizeof(own), "%s", im.head->id);
	if (!ended)
		unlinkat(dir, name, 0);
	r = lseek(im.fd, 0, SEEK_SET) < 0 ? err_sys(&e, "seek") : copy(im.fd, STDOUT_FILENO, &e);
	image_close(&im);
	if (r >= 0) {
		if (ended)
			unlinkat(dir, name, 0);
		fprintf(stderr, "%s\n", clean(own));
		return EXIT_OK;
	}
	if (!ended)
		return say(c, EXIT_CHECKPOINT,
			   "the image: %s; the pod runs on, and there is no image", e.msg);
	strncat(own, IMAGE_SUFFIX, sizeof(own) - strlen(own) - 1);
	if (strchr(own, '/') || renameat2(dir, name, dir, own, RENAME_NOREPLACE) < 0)
		snprintf(own, sizeof(own), "%s", name);
	return say(c, EXIT_OTHER,
		   "the image: %s; the pod has ended, and its image stays as '%s' in the store",
		   e.msg, clean(own));
}

/* In the store, or for who has nothing there yet at home, which is shared like it. */
static int make_file(struct ctx *c, char *path, size_t len)
{
	char store[PATH_MAX];
	const char *const dirs[] = {store, getenv("HOME")};

	own_store(c, store, sizeof(store));
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		int fd;

		if (!dirs[i] || dirs[i][0] != '/' ||
		    (size_t)snprintf(path, len, "%s/.stdin.%d.%lx" IMAGE_SUFFIX, dirs[i],
				     (int)getpid(), (unsigned long)now_ns()) >= len)
			continue;
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0)
			return fd;
	}
	return say(c, EXIT_OTHER,
		   "there is no place for the image: neither '%s' nor your home can be written to",
		   store),
	       -1;
}

/* The signals that end us wait until the file has gone again; those of the restart are its own matter. */
static void hold_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(how, &set, NULL);
}

static char partial[PATH_MAX];

static void on_end(int sig)
{
	unlink(partial);
	_exit(128 + sig);
}

int pipe_take_image(struct ctx *c, char *path, size_t len)
{
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP};
	struct err e = {0};
	int fd, r;

	if (isatty(STDIN_FILENO))
		return say_usage(c, "an image is not read from a terminal");
	hold_signals(SIG_BLOCK);
	fd = make_file(c, path, len);
	if (fd < 0)
		return EXIT_OTHER;
	snprintf(partial, sizeof(partial), "%s", path);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		signal(sigs[i], on_end);
	hold_signals(SIG_UNBLOCK);
	r = copy(STDIN_FILENO, fd, &e);
	if (close(fd) < 0 && r >= 0)
		r = err_sys(&e, "write");
	if (r >= 0)
		return EXIT_OK;
	unlink(path);
	return say(c, EXIT_OTHER, "the image from stdin: %s; nothing was made", e.msg);
}
