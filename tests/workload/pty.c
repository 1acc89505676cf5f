/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pseudo terminals: one as the controlling terminal of a session with a leader in the background and
 * a job in the foreground that answers all that is typed, gets SIGINT by the interrupt character and
 * SIGWINCH by a new size; one with unread bytes both ways and an unfinished line; modes and sizes.
 */
#include "wl.h"

#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static struct shared {
	_Atomic int stop, job, leader;
	_Atomic uint64_t ints, winches, answered;
} *sh;

static int master, slave, idle_m, idle_s, line_m, line_s;
static struct termios want_tio, want_line;
static char slave_name[64];

static void on_int(int sig)
{
	if (sig == SIGINT)
		sh->ints++;
	else
		sh->winches++;
}

static int tty_nr(void)
{
	char text[512] = "", *p;
	int fd = (int)WL_SYS(open("/proc/self/stat", O_RDONLY | O_CLOEXEC)), nr, i;

	WL_SYS(read(fd, text, sizeof(text) - 1));
	close(fd);
	p = strrchr(text, ')') + 1;
	for (i = 0; i < 4; i++) /* ppid pgrp session tty_nr */
		p = strchr(p + 1, ' ');
	nr = atoi(p);
	return nr;
}

/* The job in the foreground: answers each byte with its complement. */
static int job(void *arg)
{
	struct sigaction sa = { .sa_handler = on_int, .sa_flags = SA_RESTART };
	int nr, tty;
	ssize_t n, i;
	uint8_t buf[256];

	(void)arg;
	WL_SYS(sigaction(SIGINT, &sa, NULL));
	WL_SYS(sigaction(SIGWINCH, &sa, NULL));
	WL_AWAIT(tcgetpgrp(slave) == getpid(), "the foreground");
	tty = (int)WL_SYS(open("/dev/tty", O_RDWR | O_CLOEXEC));
	nr = tty_nr();
	sh->job = getpid();
	for (;;) {
		n = WL_SYS(read(sh->answered % 2 ? slave : tty, buf, sizeof(buf)));
		if (!n || sh->stop) {
			WL_EQ("number of the controlling terminal", nr, tty_nr());
			return 71;
		}
		WL_EQ("foreground group", getpid(), WL_SYS(tcgetpgrp(tty)));
		WL_EQ("session of the terminal", sh->leader, WL_SYS(tcgetsid(tty)));
		for (i = 0; i < n; i++)
			buf[i] = (uint8_t)~buf[i];
		wl_write(sh->answered % 3 ? slave : tty, buf, (size_t)n);
		sh->answered += (uint64_t)n;
	}
}

/* The session leader: a shell that waits for its job. */
static int leader(void *arg)
{
	pid_t pid;
	int status;

	(void)arg;
	WL_SYS(setsid());
	WL_SYS(ioctl(slave, TIOCSCTTY, 0));
	WL_SYS(close(master));
	signal(SIGTTOU, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sh->leader = getpid();
	pid = wl_spawn(job, NULL);
	WL_SYS(setpgid(pid, pid));
	WL_SYS(tcsetpgrp(slave, pid));
	while (!sh->stop) {
		WL_EQ("foreground group", pid, WL_SYS(tcgetpgrp(slave)));
		WL_EQ("session", getpid(), WL_SYS(tcgetsid(slave)));
		WL_SYS(access("/dev/tty", R_OK | W_OK));
		wl_sleep_ns(2 * WL_MS);
	}
	WL_SYS(waitpid(pid, &status, 0));
	WL_EQ("status of the job", 71 << 8, status);
	return 72;
}

static void raw_with_signals(int fd)
{
	struct termios t;

	WL_SYS(tcgetattr(fd, &t));
	cfmakeraw(&t);
	t.c_lflag |= ISIG;
	t.c_cc[VINTR] = 3;
	t.c_cc[VQUIT] = _POSIX_VDISABLE;
	t.c_cc[VSUSP] = _POSIX_VDISABLE;
	t.c_cc[VEOL2] = 0x7e;
	t.c_cc[VMIN] = 1;
	cfsetspeed(&t, B57600);
	WL_SYS(tcsetattr(fd, TCSANOW, &t));
	WL_SYS(tcgetattr(fd, &t));
	want_tio = t;
}

static void setup(void)
{
	struct winsize ws = { 31, 97, 311, 971 };
	struct termios t;
	uint8_t buf[300];

	WL_SYS(openpty(&master, &slave, slave_name, NULL, &ws));
	raw_with_signals(slave);
	WL_SYS(openpty(&idle_m, &idle_s, NULL, NULL, NULL));
	WL_SYS(tcgetattr(idle_s, &t));
	cfmakeraw(&t);
	WL_SYS(tcsetattr(idle_s, TCSANOW, &t));
	wl_fill(buf, sizeof(buf), 1, 0);
	wl_write(idle_m, buf, 200);
	wl_write(idle_s, buf, 300);
	/* canonical, without echo: one whole line and the beginning of the next */
	WL_SYS(openpty(&line_m, &line_s, NULL, NULL, NULL));
	WL_SYS(tcgetattr(line_s, &t));
	t.c_lflag &= ~(tcflag_t)ECHO;
	WL_SYS(tcsetattr(line_s, TCSANOW, &t));
	WL_SYS(tcgetattr(line_s, &want_line));
	WL_SYS(fcntl(line_s, F_SETFL, O_RDWR | O_NONBLOCK));
	wl_write(line_m, "whole line\nunfin", 16);
}

static void check_tio(const char *what, int fd, const struct termios *want)
{
	struct termios t;

	WL_SYS(tcgetattr(fd, &t));
	WL_EQ(what, want->c_iflag, t.c_iflag);
	WL_EQ(what, want->c_oflag, t.c_oflag);
	WL_EQ(what, want->c_cflag, t.c_cflag);
	WL_EQ(what, want->c_lflag, t.c_lflag);
	WL_CHECK(!memcmp(want->c_cc, t.c_cc, sizeof(t.c_cc)), "%s: control characters differ",
		 what);
}

static void check_idle(void)
{
	uint8_t buf[300];
	int n;

	/* unread bytes: taken and put back, so that they are there at any moment */
	WL_AWAIT((ioctl(idle_s, FIONREAD, &n), n == 200), "bytes on the slave");
	wl_read(idle_s, buf, 200);
	wl_verify("bytes unread on the slave", buf, 200, 1, 0);
	wl_write(idle_m, buf, 200);
	WL_AWAIT((ioctl(idle_m, FIONREAD, &n), n == 300), "bytes on the master");
	wl_read(idle_m, buf, 300);
	wl_verify("bytes unread on the master", buf, 300, 1, 0);
	wl_write(idle_s, buf, 300);
}

static void check_line(uint64_t round)
{
	char buf[100] = "", want[100];
	ssize_t n = -1;

	if (round % 32)
		return;
	/* the terminal delivers by a worker of the kernel */
	WL_AWAIT((n = read(line_s, buf, sizeof(buf))) >= 0 || errno != EAGAIN, "a line");
	WL_CHECK(n == 11 && !memcmp(buf, "whole line\n", 11), "line: got '%.*s'", (int)n, buf);
	errno = 0;
	WL_EQ("read of an unfinished line", -1, read(line_s, buf, sizeof(buf)));
	WL_EQ("errno", EAGAIN, errno);
	wl_pace();
	wl_write(line_m, "ished\n", 6);
	WL_AWAIT((n = read(line_s, buf, sizeof(buf))) >= 0 || errno != EAGAIN, "a line");
	snprintf(want, sizeof(want), "unfinished\n");
	WL_CHECK(n == 11 && !memcmp(buf, want, 11), "line: expected unfinished, got '%.*s'",
		 (int)n, buf);
	wl_write(line_m, "whole line\nunfin", 16);
}

static void type_and_read(uint64_t round)
{
	struct winsize ws = { (unsigned short)(20 + round % 50), 97, 1, 2 }, got;
	uint64_t ints = sh->ints, winches = sh->winches;
	uint8_t out[64], in[64];
	struct stat st;
	char c = 3;
	unsigned nr;
	size_t i;

	for (i = 0; i < sizeof(out); i++)
		out[i] = 32 + (uint8_t)(wl_mix(round * 64 + i) % 90);
	wl_write(master, out, sizeof(out));
	wl_read(master, in, sizeof(in));
	for (i = 0; i < sizeof(out); i++)
		WL_EQ("answer on the terminal", (uint8_t)~out[i], in[i]);
	if (round % 8 == 0) {
		wl_write(master, &c, 1);
		WL_AWAIT(sh->ints == ints + 1, "SIGINT by the interrupt character");
		WL_SYS(ioctl(master, TIOCSWINSZ, &ws));
		WL_AWAIT(sh->winches == winches + 1, "SIGWINCH by a new size");
		WL_SYS(ioctl(slave, TIOCGWINSZ, &got));
		WL_EQ("rows", ws.ws_row, got.ws_row);
		WL_EQ("columns", ws.ws_col, got.ws_col);
		wl_pace();
		WL_SYS(ioctl(slave, TIOCGWINSZ, &got));
		WL_EQ("rows after a while", ws.ws_row, got.ws_row);
	}
	WL_EQ("foreground group", sh->job, WL_SYS(tcgetpgrp(master)));
	WL_SYS(ioctl(master, TIOCGPTN, &nr));
	WL_EQ("number of the terminal", atoi(strrchr(slave_name, '/') + 1), nr);
	WL_SYS(stat(slave_name, &st));
	WL_CHECK(S_ISCHR(st.st_mode), "%s: expected a device", slave_name);
	check_tio("modes of a raw terminal", slave, &want_tio);
	check_tio("modes of a terminal with lines", line_s, &want_line);
}

int main(void)
{
	uint64_t round = 0;
	pid_t pid;

	wl_init();
	sh = wl_shared(sizeof(*sh));
	setup();
	pid = wl_spawn(leader, NULL);
	WL_AWAIT(sh->job, "the job");
	wl_ready();
	while (!wl_stopping()) {
		type_and_read(round);
		check_idle();
		check_line(round++);
		wl_pace();
	}
	sh->stop = 1;
	wl_write(master, "q", 1);
	wl_reap(pid, 72);
	wl_ok();
}
