/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load PROCESSES THREADS CONNECTIONS: so many processes, each with so many threads that tick each
 * 10 ms; the first process keeps so many TCP connections to itself over its own address (argv[4]). Each
 * process has argv[5] MiB of memory with bytes that are all different and never change.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void *tick(void *arg)
{
	(void)arg;
	for (;;)
		usleep(10000);
	return NULL;
}

static void threads(int n)
{
	pthread_t t;

	while (--n > 0)
		if (pthread_create(&t, NULL, tick, NULL))
			exit(1);
}

static void connections(int n, const char *address)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(7100) };
	int l = socket(AF_INET, SOCK_STREAM, 0);

	if (!n)
		return;
	if (inet_pton(AF_INET, address, &sa.sin_addr) != 1 || bind(l, (void *)&sa, sizeof(sa)) < 0 || listen(l, 128) < 0)
		exit(1);
	while (n--) {
		int c = socket(AF_INET, SOCK_STREAM, 0);

		if (connect(c, (void *)&sa, sizeof(sa)) < 0 || accept(l, NULL, NULL) < 0)
			exit(1);
	}
}

static void fill(size_t mib)
{
	uint64_t x = (uint64_t)getpid() << 40 | 1;
	volatile uint64_t *p = malloc(mib << 20);
	size_t i;

	if (!p)
		exit(1);
	for (i = 0; i < mib << 17; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
}

int main(int argc, char **argv)
{
	int n = argc > 1 ? atoi(argv[1]) : 1;

	connections(argc > 4 ? atoi(argv[3]) : 0, argc > 4 ? argv[4] : "");
	while (--n > 0)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			break;
		}
	if (argc > 5)
		fill((size_t)atoi(argv[5]));
	threads(argc > 2 ? atoi(argv[2]) : 1);
	if (n <= 0) {
		puts("ready");
		fflush(stdout);
	}
	tick(NULL);
	return 0;
}
