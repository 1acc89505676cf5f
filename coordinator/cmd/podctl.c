/* SPDX-License-Identifier: GPL-3.0-or-later */
/* podctl: one binary, one command per file; podrun, podps, podmigrate, poddrain by argv[0]. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/cmd/client.h"
#include "pod/base/log.h"
#include "pod/base/util.h"

static const struct command commands[] = {
	{ "run", "podrun", cmd_run,
	  "[-n NAME] [-N NODE] [-j JOB] [--ip auto|ADDR|none] [--root DIR] [--bind SRC:DST[:ro]]\n"
	  "              [-e K=V] [--memory SIZE] [--cpus LIST] [-i SEC [--keep N]] [-d] -- COMMAND...",
	  "Runs a command in a new pod; without -d its console is yours and its exit code is ours.\n"
	  "  -n, --name NAME        the pod's name (default: pod1, pod2, ...)\n"
	  "  -N, --node NODE        where (default: the node with the fewest pods)\n"
	  "  -j, --job JOB          the job it belongs to\n"
	  "      --ip auto|ADDR|none  its address (default: auto)\n"
	  "      --root DIR         its root directory instead of the node's\n"
	  "      --bind SRC:DST[:ro]  shows SRC of the node at DST\n"
	  "  -e, --env K=V          one more environment variable\n"
	  "      --memory SIZE      limit, like 2G\n"
	  "      --cpus LIST        like 0-3,5\n"
	  "  -i, --checkpoint-interval SEC  an image that often, counted from the end of the last\n"
	  "      --keep N           so many of them stay, and what they build on (default: 2)\n"
	  "  -d, --detach           prints the name and leaves it running\n"
	  "On a terminal, Enter ~ . leaves the pod running and ends podrun.\n" },
	{ "ps", "podps", cmd_ps, "[-a] [-w NODE] [-u USER] [--json] [--noheadings]",
	  "Lists pods.\n"
	  "  -a, --all              also those that have ended\n"
	  "  -w, --node NODE        of this node\n"
	  "  -u, --user USER        of this user\n"
	  "      --json             for programs\n"
	  "      --noheadings       no first line\n" },
	{ "migrate", "podmigrate", cmd_migrate,
	  "TARGET NODE [--stop-copy] [--max-downtime MS] [--max-rounds N] [--timeout S]\n"
	  "                  [--timeout-action abort|stop-copy] [--auto-converge] [--bandwidth RATE]\n"
	  "                  [--compress auto|lz4|none] [--dry-run] [--detach] [--progress auto|plain|json|none] [-t] [--json]",
	  "Moves a running pod to another node. Ctrl-C aborts: the pod then goes on where it is.\n"
	  "      --stop-copy        freeze, copy, go on, instead of copying while it runs\n"
	  "      --max-downtime MS  freeze when the rest is estimated to take less (300)\n"
	  "      --max-rounds N     of copying while it runs (8)\n"
	  "      --timeout S        for the whole move (0: none)\n"
	  "      --timeout-action abort|stop-copy  what then; stop-copy: freeze it and copy the rest\n"
	  "      --auto-converge    slow the pod down when it writes faster than can be sent\n"
	  "      --bandwidth RATE   bytes per second while it runs, like 100M\n"
	  "      --compress HOW     pages: auto (where it is faster), lz4, none\n"
	  "      --dry-run          only the check\n"
	  "      --detach           do not wait for the end\n"
	  "      --progress HOW     auto, plain, json, none\n"
	  "  -t, --times            how long each phase took\n"
	  "      --json             progress and result as lines of JSON on stdout\n" },
	{ "nodes", NULL, cmd_nodes, "[--json] [--noheadings]", "Lists the nodes.\n" },
	{ "exec", NULL, cmd_exec, "[-e K=V] [-w DIR] [-T] POD COMMAND...",
	  "Runs one more command in a pod; its exit code is ours.\n"
	  "  -e, --env K=V          one more environment variable\n"
	  "  -w, --workdir DIR      where (default: the pod's /)\n"
	  "  -T, --no-tty           pipes even on a terminal\n" },
	{ "attach", NULL, cmd_attach, "[--no-stdin] POD",
	  "Connects this terminal to a pod's command. On a terminal, Enter ~ . leaves.\n" },
	{ "logs", NULL, cmd_logs, "[-f] POD",
	  "Prints what a pod's command has said.\n"
	  "  -f, --follow           and goes on until it ends\n" },
	{ "kill", NULL, cmd_kill, "[-s SIGNAL] [-a] POD",
	  "Sends a signal to a pod's command (default: TERM).\n"
	  "  -s, --signal SIGNAL    name or number\n"
	  "  -a, --all              to every process of the pod\n" },
	{ "preempt", "pod-preempt", cmd_preempt, "vacate|restore [--job ID] [--image DIR] [--deadline EPOCH] [--node NODE]",
	  "For schedulers: ends a job's pods once their images are on the disk; brings them back out of the newest.\n"
	  "      --job ID           as podrun -j gave it (default: the scheduler's environment)\n"
	  "      --image DIR        instead of the image store\n"
	  "      --deadline EPOCH   not begun if it could take longer\n"
	  "      --node NODE        where it comes back\n"
	  "The image directory is an absolute path.\n"
	  "Exit: 0 done, 1 failed (vacate: the pod runs on, unless the words say that it is not known), 2 usage, 3 no pod, 4 too late and not begun, 5 under way elsewhere.\n" },
	{ "recover", NULL, cmd_recover, "[ID]",
	  "Says which operations have no known outcome, and settles the one named.\n" },
	{ "drain", "poddrain", cmd_drain, "NODE [--reason TEXT] [--to LIST] [--max-parallel N] [--timeout S]\n"
	  "                [--on-failure skip|checkpoint|stop] [--dry-run] [--json]",
	  "Empties a node, as root: cordons it, and moves its pods to others while they run.\n"
	  "      --reason TEXT      that podctl nodes --json shows (drain)\n"
	  "      --to LIST          only to these nodes: A,B (default: any that is up and takes pods, the one with the fewest first)\n"
	  "      --max-parallel N   at a time (2)\n"
	  "      --timeout S        for all of it (0: none)\n"
	  "      --on-failure HOW   of a pod that no other node can take: skip (it stays), checkpoint (it ends, with an image),\n"
	  "                         stop (it stays, and no more are begun)\n"
	  "      --dry-run          only the check of each pod, nothing is cordoned\n"
	  "      --json             the table at the end, for programs\n"
	  "Ctrl-C aborts what is under way: those pods go on where they are. Exit code 0: all have gone, 12: some stay.\n" },
	{ "cordon", NULL, cmd_cordon, "NODE [--reason TEXT]",
	  "Lets a node take no more pods, as root: no new ones, none that move. Those that are there run on.\n"
	  "      --reason TEXT      that podctl nodes --json shows\n" },
	{ "uncordon", NULL, cmd_uncordon, "NODE", "Ends that.\n" },
	{ "checkpoint", NULL, cmd_checkpoint, "POD|JOB [-R|--term] [-o FILE|DIR|-] [--full] [--keep N] [--pin] [--compress HOW]\n"
	  "                  [--timeout S] [-t]",
	  "Writes a pod into an image while it runs, and prints the image's id. A job's pods are cut as one.\n"
	  "  -R, --leave-running    the pod goes on afterwards (so it is without --term, too)\n"
	  "      --term             the pod ends once the image is on the disk\n"
	  "  -o, --output PATH      a file, a directory, or - for stdout (the id goes to stderr), instead of the store\n"
	  "      --full             an image that builds on no other\n"
	  "      --keep N           then removes all but the newest N images of the pod, and what they build on\n"
	  "      --compress HOW     pages: auto (where it pays), lz4, none\n"
	  "      --pin              the image stays, whatever is pruned, until podctl image unpin\n"
	  "      --timeout S        gives up after so long; the pod goes on (0: never)\n"
	  "  -t, --times            how long each phase took\n" },
	{ "restore", NULL, cmd_restore, "IMAGE [-N NODE] [-n NAME] [--force=files] [--dry-run]",
	  "Makes a pod, or the pods of a job, out of an image, on any node. IMAGE is an id, a path, or - for stdin.\n"
	  "  -N, --node NODE        where; for a job also a list: A,B (default: the node with the fewest pods)\n"
	  "  -n, --name NAME        another name for the pod\n"
	  "      --force=files      files that were written since are taken as they are\n"
	  "      --dry-run          only the check\n" },
	{ "image", NULL, cmd_image, "list [--json] [--noheadings] | verify IMAGE... | prune [--keep N] [POD] | rm IMAGE...\n"
	  "                    | pin IMAGE... | unpin IMAGE... | diff [--json] A B | core IMAGE PID [-o FILE]",
	  "list    the images in the store\n"
	  "verify  reads images whole, and those that they build on, and compares all digests\n"
	  "prune   removes your images but the newest N of each pod (1), and what those build on\n"
	  "rm      removes images of yours that no other builds on\n"
	  "pin     keeps images, and what they build on, from being removed; unpin ends that\n"
	  "diff    in what two images differ: processes, threads, files, memory\n"
	  "core    writes a process of an image, by its pid in the pod, as a core file for a debugger (core.PID)\n" },
	{ "inspect", NULL, cmd_inspect, "POD|IMAGE [--ps-tree] [--files] [--sockets] [--mounts] [--maps] [--env] [--stats] [--pid N] [--json]",
	  "Shows what is in a pod that runs, which is not stopped for it, or in an image.\n"
	  "      --ps-tree          processes, as a tree (with --stats what is shown by itself)\n"
	  "      --files            open files\n"
	  "      --sockets          protocol, state, own and other address\n"
	  "      --mounts           its root, what is bound into it, its own file systems\n"
	  "      --maps             mappings\n"
	  "      --env              the environments that the programs were started with\n"
	  "      --stats            what pod or image it is\n"
	  "      --pid N            files, sockets, mappings and environment of this process alone\n"
	  "      --json             for programs\n" },
	{ "check", NULL, cmd_check, "POD|JOB [--to NODE] [--json] | [NODE] [--json]",
	  "Says why a pod cannot be moved or checkpointed: all of it, and nothing is stopped for that. Exit code 0: it can, 6: it cannot.\n"
	  "Of a node, or of all of them: what it lacks to run, move and checkpoint pods.\n"
	  "      --to NODE          also what this node lacks for the pod\n"
	  "      --json             for programs\n" },
	{ "op", NULL, cmd_op, "list [--json] [--noheadings] | show ID [--json] | wait ID | abort ID",
	  "list    the operations that are under way\n"
	  "show    one, over or not\n"
	  "wait    until it is over, and says how it ended; exit code 0: it was done, 10: undone\n"
	  "abort   ends it before its commit, and waits: its pod goes on where it is; exit code 13: it is decided already\n" },
};

static int usage(FILE *f, int code)
{
	fprintf(f, "usage: podctl COMMAND ...; podctl COMMAND --help\ncommands:");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, " %s", commands[i].name);
	fputc('\n', f);
	return code;
}

static const struct command *find(const char *name, bool alias)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		const char *n = alias ? commands[i].alias : commands[i].name;

		if (n && !strcmp(n, name))
			return &commands[i];
	}
	return NULL;
}

static int run(const struct command *cmd, const char *prog, int argc, char **argv)
{
	struct ctx c = { .prog = prog, .cmd = cmd };
	struct err e = { 0 };
	int r;

	if (cmd->run == cmd_run)
		c.own_failure = EXIT_PODRUN;
	if (conf_load(NULL, &c.conf, &e) < 0)
		return say(&c, EXIT_OTHER, "configuration: %s", e.msg);
	r = cmd->run(&c, argc, argv);
	conf_done(&c.conf);
	return r;
}

int main(int argc, char **argv)
{
	const char *base = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	const struct command *cmd = find(base, true);
	char prog[64];
	int fd;

	/* a closed 0, 1 or 2 would become the number of a socket */
	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd < 3)
		;
	if (fd >= 0)
		close(fd);
	log_init(base, LOG_LV_WARN);
	if (cmd)
		return run(cmd, base, argc, argv);
	if (argc < 2)
		return usage(stderr, EXIT_USAGE);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return usage(stdout, EXIT_OK);
	if (!strcmp(argv[1], "--version")) {
		printf("podctl %s\n", LINK_BUILD);
		return EXIT_OK;
	}
	cmd = find(argv[1], false);
	if (!cmd) {
		fprintf(stderr, "podctl: unknown %s '%s'\n",
			argv[1][0] == '-' ? "option" : "command", argv[1]);
		return usage(stderr, EXIT_USAGE);
	}
	snprintf(prog, sizeof(prog), "podctl %s", cmd->name);
	return run(cmd, prog, argc - 1, argv + 1);
}
