/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Change all the time: fork, exec (also of a process that has lived for a while), exit, threads that
 * start and stop, mmap, munmap, madvise, mprotect, pipes. Whatever is made is verified and undone.
 *
 * As a child: argv[1] = "exit CODE" exits; "relay CODE N" execs itself N times, then exits.
 */
#include "wl.h"

#include <pthread.h>
#include <spawn.h>

#define WORKERS 3

static struct shared {
	_Atomic int stop;
	_Atomic long rounds[WORKERS];
} *sh;
static char self[4096];

static void run_self(char *const argv[])
{
	char *env[] = { NULL };

	execve(self, argv, env);
	wl_fail("exec %s: expected success, got %s", self, strerror(errno));
}

static int as_child(int argc, char **argv)
{
	char code[16], left[16];

	if (!strcmp(argv[1], "relay") && argc > 3 && atoi(argv[3]) > 0) {
		snprintf(code, sizeof(code), "%d", atoi(argv[2]));
		snprintf(left, sizeof(left), "%d", atoi(argv[3]) - 1);
		run_self((char *[]){ argv[0], argv[1], code, left, NULL });
	}
	return atoi(argv[2]);
}

static void do_fork_exec(uint64_t *rng)
{
	int code = (int)(wl_rand(rng) % 200);
	char text[16], hops[16];
	pid_t pid;

	snprintf(text, sizeof(text), "%d", code);
	snprintf(hops, sizeof(hops), "%d", (int)(wl_rand(rng) % 4));
	pid = (pid_t)WL_SYS(fork());
	if (!pid) {
		static char name[] = "churn-child", verb[] = "relay";

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_self((char *[]){ name, verb, text, hops, NULL });
	}
	wl_reap(pid, code);
}

static void do_spawn(uint64_t *rng)
{
	static char name[] = "churn-spawn", verb[] = "exit";
	int code = (int)(wl_rand(rng) % 200);
	char text[16], *env[] = { NULL };
	pid_t pid;

	snprintf(text, sizeof(text), "%d", code);
	WL_ZERO(posix_spawn(&pid, self, NULL, NULL, (char *[]){ name, verb, text, NULL }, env));
	wl_reap(pid, code);
}

struct forked {
	uint8_t *p;
	uint64_t seed;
};

static int forked_child(void *arg)
{
	struct forked *f = arg;

	wl_verify("memory inherited by fork", f->p, 32 * WL_PAGE, f->seed, 0);
	wl_fill(f->p, 16 * WL_PAGE, f->seed + 1, 0);
	wl_pace();
	wl_verify("memory written after fork", f->p, 16 * WL_PAGE, f->seed + 1, 0);
	wl_verify("memory inherited by fork", f->p + 16 * WL_PAGE, 16 * WL_PAGE, f->seed,
		  16 * WL_PAGE);
	return 17;
}

static void do_fork_cow(uint64_t *rng)
{
	struct forked f = { wl_map(32 * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE),
			    wl_rand(rng) };
	pid_t a, b;

	wl_fill(f.p, 32 * WL_PAGE, f.seed, 0);
	a = wl_spawn(forked_child, &f);
	b = wl_spawn(forked_child, &f);
	wl_pace();
	wl_verify("parent's memory after fork", f.p, 32 * WL_PAGE, f.seed, 0);
	wl_reap(b, 17);
	wl_reap(a, 17);
	WL_SYS(munmap(f.p, 32 * WL_PAGE));
}

static void *thread_body(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	uint8_t *p = wl_map(8 * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	wl_fill(p, 8 * WL_PAGE, seed, 0);
	wl_pace();
	wl_verify("memory of a thread", p, 8 * WL_PAGE, seed, 0);
	WL_SYS(munmap(p, 8 * WL_PAGE));
	return (void *)(uintptr_t)(seed * 7);
}

static void do_threads(uint64_t *rng)
{
	pthread_t th[4];
	uintptr_t seed = wl_rand(rng) >> 8, i;
	void *res;

	for (i = 0; i < 4; i++)
		WL_ZERO(pthread_create(&th[i], NULL, thread_body, (void *)(seed + i)));
	for (i = 0; i < 4; i++) {
		WL_ZERO(pthread_join(th[i], &res));
		WL_EQ("result of a thread", (seed + i) * 7, (uintptr_t)res);
	}
}

static void do_memory(uint64_t *rng)
{
	size_t pages = 32 + wl_rand(rng) % 64, cut = 1 + wl_rand(rng) % 16;
	uint8_t *p = wl_map(pages * WL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *q;
	uint64_t seed = wl_rand(rng);

	wl_fill(p, pages * WL_PAGE, seed, 0);
	WL_SYS(mprotect(p + cut * WL_PAGE, 2 * WL_PAGE, PROT_READ));
	wl_pace();
	WL_SYS(madvise(p + (cut + 4) * WL_PAGE, WL_PAGE, MADV_DONTNEED));
	wl_verify("memory", p, (cut + 4) * WL_PAGE, seed, 0);
	wl_pace();
	wl_verify_zero("dropped page", p + (cut + 4) * WL_PAGE, WL_PAGE);
	WL_SYS(munmap(p, cut * WL_PAGE));
	q = mremap(p + (cut + 2) * WL_PAGE, WL_PAGE, 4 * WL_PAGE, MREMAP_MAYMOVE);
	WL_CHECK(q != MAP_FAILED, "mremap: expected success, got %s", strerror(errno));
	wl_pace();
	wl_verify("moved page", q, WL_PAGE, seed, (cut + 2) * WL_PAGE);
	wl_verify_zero("grown pages", q + WL_PAGE, 3 * WL_PAGE);
	wl_verify("memory", p + (cut + 5) * WL_PAGE, (pages - cut - 5) * WL_PAGE, seed,
		  (cut + 5) * WL_PAGE);
	WL_SYS(munmap(q, 4 * WL_PAGE));
	WL_SYS(munmap(p + cut * WL_PAGE, (pages - cut) * WL_PAGE));
}

static void do_pipe(uint64_t *rng)
{
	uint64_t seed = wl_rand(rng);
	uint8_t buf[3000];
	int p[2];

	WL_SYS(pipe2(p, O_CLOEXEC));
	wl_fill(buf, sizeof(buf), seed, 0);
	wl_write(p[1], buf, sizeof(buf));
	wl_pace();
	memset(buf, 0, sizeof(buf));
	wl_read(p[0], buf, sizeof(buf));
	wl_verify("pipe", buf, sizeof(buf), seed, 0);
	WL_SYS(close(p[0]));
	WL_SYS(close(p[1]));
}

static void do_brk(uint64_t *rng)
{
	size_t len = 300000 + wl_rand(rng) % 100000;
	char *p = malloc(len / 4), *q = malloc(len / 4);

	wl_fill(p, len / 4, len, 0);
	wl_fill(q, len / 4, len + 1, 0);
	wl_pace();
	wl_verify("heap", p, len / 4, len, 0);
	wl_verify("heap", q, len / 4, len + 1, 0);
	free(p);
	free(q);
}

static int worker(void *arg)
{
	static void (*const acts[])(uint64_t *) = { do_fork_exec, do_spawn,  do_fork_cow, do_threads,
						    do_memory,	  do_memory, do_pipe,	  do_brk };
	size_t id = *(size_t *)arg;
	uint64_t rng = id;

	while (!sh->stop) {
		acts[wl_rand(&rng) % ARRAY_SIZE(acts)](&rng);
		sh->rounds[id]++;
		wl_sleep_ns(WL_MS);
	}
	WL_EQ("children left", -1, waitpid(-1, NULL, WNOHANG));
	return (int)id + 70;
}

int main(int argc, char **argv)
{
	size_t ids[WORKERS], i;
	pid_t kid[WORKERS];

	wl_init();
	WL_SYS(readlink("/proc/self/exe", self, sizeof(self) - 1));
	if (argc > 2)
		return as_child(argc, argv);
	sh = wl_shared(sizeof(*sh));
	for (i = 0; i < WORKERS; i++) {
		ids[i] = i;
		kid[i] = wl_spawn(worker, &ids[i]);
	}
	wl_ready();
	while (!wl_stopping()) {
		WL_EQ("child that ended", 0, WL_SYS(waitpid(-1, NULL, WNOHANG)));
		wl_sleep_ns(5 * WL_MS);
	}
	for (i = 0; i < WORKERS; i++) {
		long was = sh->rounds[i];

		WL_AWAIT(sh->rounds[i] > was + 2, "work of each worker");
	}
	sh->stop = 1;
	for (i = 0; i < WORKERS; i++)
		wl_reap(kid[i], (int)i + 70);
	wl_ok();
}
