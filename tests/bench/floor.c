/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What no migration can be faster than, on the machine that it runs on:
 *
 *   floor stop TIMES PID...		seizes and interrupts every thread of the processes, waits until all
 *					stand still, lets them go; prints the median time in ms and the threads
 *   floor recv PORT			takes one connection, reads to its end, answers with a byte
 *   floor send ADDRESS PORT BYTES	sends that many bytes, waits for the byte; prints the time in ms
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_TASKS 4096
#define MAX_TIMES 200
#define BLOCK (256u << 10)

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- stop */

static pid_t tasks[MAX_TASKS];
static int ntasks;

static void list_threads(const char *pid)
{
	char path[64];
	struct dirent *de;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%s/task", pid);
	d = opendir(path);
	if (!d)
		die(path);
	while ((de = readdir(d)) && ntasks < MAX_TASKS)
		if (de->d_name[0] != '.')
			tasks[ntasks++] = atoi(de->d_name);
	closedir(d);
}

static double stop_once(void)
{
	double start = now_ms(), took;
	int i, status;

	for (i = 0; i < ntasks; i++)
		if (ptrace(PTRACE_SEIZE, tasks[i], NULL, NULL) < 0 || ptrace(PTRACE_INTERRUPT, tasks[i], NULL, NULL) < 0)
			tasks[i] = 0; /* it has ended */
	for (i = 0; i < ntasks; i++)
		if (tasks[i] && waitpid(tasks[i], &status, __WALL) < 0)
			die("waitpid");
	for (i = 0; i < ntasks; i++)
		if (tasks[i] && ptrace(PTRACE_DETACH, tasks[i], NULL, NULL) < 0)
			die("detach");
	took = now_ms() - start;
	return took;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static int stop(int argc, char **argv)
{
	double took[MAX_TIMES];
	int times = atoi(argv[0]), i, k;

	if (times < 1 || times > MAX_TIMES)
		return 2;
	for (i = 0; i < times; i++) {
		ntasks = 0;
		for (k = 1; k < argc; k++)
			list_threads(argv[k]);
		took[i] = stop_once();
		usleep(20000);
	}
	qsort(took, (size_t)times, sizeof(took[0]), by_size);
	printf("%.2f %d\n", took[times / 2], ntasks);
	return 0;
}

/* ---- copy */

static char block[BLOCK];

static int stream_socket(void)
{
	struct timeval limit = { 60, 0 };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	return fd;
}

static int receive(const char *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int l = stream_socket(), fd;
	ssize_t n;

	if (bind(l, (void *)&sa, sizeof(sa)) < 0 || listen(l, 1) < 0)
		die("listen");
	puts("ready");
	fflush(stdout);
	fd = accept(l, NULL, NULL);
	if (fd < 0)
		die("accept");
	while ((n = read(fd, block, sizeof(block))) > 0)
		;
	return n < 0 || write(fd, "", 1) != 1;
}

static int send_bytes(const char *address, const char *port, unsigned long left)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int fd = stream_socket();
	double start;

	memset(block, 0x5a, sizeof(block));
	if (inet_pton(AF_INET, address, &sa.sin_addr) != 1 || connect(fd, (void *)&sa, sizeof(sa)) < 0)
		die("connect");
	start = now_ms();
	while (left) {
		ssize_t n = write(fd, block, left < BLOCK ? left : BLOCK);

		if (n <= 0)
			die("write");
		left -= (unsigned long)n;
	}
	shutdown(fd, SHUT_WR);
	if (read(fd, block, 1) != 1)
		die("read");
	printf("%.2f\n", now_ms() - start);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 3 && !strcmp(argv[1], "stop"))
		return stop(argc - 2, argv + 2);
	if (argc == 3 && !strcmp(argv[1], "recv"))
		return receive(argv[2]);
	if (argc == 5 && !strcmp(argv[1], "send"))
		return send_bytes(argv[2], argv[3], strtoul(argv[4], NULL, 10));
	fprintf(stderr, "usage: floor stop TIMES PID... | recv PORT | send ADDRESS PORT BYTES\n");
	return 2;
}
