/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What nodes say of a refusal are words for people. For programs, and for what to do about it, each has a name here: the first
 * pattern that fits the words gives it. tests/refusals holds this table, the words in the sources and the manual's together.
 */
#include "coordinator/cmd/reasons.h"

#include <fnmatch.h>

#include "pod/base/util.h"

#define CLOSE "let the program close it before the move"
#define NOTHING "such a program can only be started again elsewhere"
#define CODE "a change of the program, or of how it is started, is needed"

static const struct reason reasons[] = {
	/* what the target lacks */
	{ "file-missing", "*, which the target does not have for this user (*)", "install or mount it there, or choose another node", true },
	{ "file-differs", "* is '*', which is something else on the target", "the same files must be on both nodes", true },
	{ "file-differs", "* is '*', which is another program on the target *", "install the same version there", true },
	{ "file-differs", "* is '*', which has another size on the target *", "the same files must be on both nodes", true },
	{ "file-differs", "* is '*', which was changed at another time on the target", "copy it with its time, or put it on a shared file system", true },
	{ "cpu", "the target's CPU lacks features *", "choose a node with a CPU of the same or a newer generation", true },
	{ "cpu", "the extended registers differ: *", "choose a node with a CPU of the same generation", true },
	{ "cpu", "the two nodes describe their CPUs differently *", "install the same version of podmigrate on both", true },
	{ "vdso", "the target has another vdso, *", "choose a node with the same kernel", true },
	{ "timer-numbers", "*, and the target's kernel cannot give them their numbers: *", "choose a node with kernel 6.15 or newer", true },
	{ "room", "the pod's * on the target there is room for *", "remove files there, or choose another node", true },
	{ "memory", "the pod uses * of memory, on the target * are available", "choose another node", true },
	/* processes */
	{ "traced", "*: is traced by another process *", "detach the debugger", false },
	{ "main-thread", "*: its main thread has ended, others run: *", CODE, false },
	{ "init-stopped", "pid 1 (*): is stopped, *", "continue it: podctl kill -s CONT", false },
	{ "namespace", "*: is in a * namespace of its own: *", "do without unshare, containers and sandboxes inside a pod", false },
	{ "thread-credentials", "*: thread * has credentials of its own: *", CODE, false },
	{ "thread-table", "*: thread * has a * of its own: *", CODE, false },
	{ "shared-process", "*: shares its * with pid *", CODE, false },
	{ "chroot", "*has a root directory of its own (chroot): *", "give the whole pod that root: podrun --root", false },
	{ "directory-gone", "*works in '*', a directory without a name: *", "let the program change to a directory that exists", false },
	{ "directory-gone", "*works in the directory '*', which has no name *", "let the program change to a directory that exists", false },
	{ "scheduling", "*: thread * has scheduling policy *", "give it an ordinary policy: chrt -o -p 0 PID", false },
	{ "timers", "*: has * POSIX timer*", CODE, false },
	{ "seccomp", "*: has a seccomp filter, and so has this node's engine: *", "start podagent without a filter", false },
	{ "seccomp", "*thread * has a seccomp filter that cannot be read *", "start podagent with all capabilities", false },
	{ "seccomp", "*more than * seccomp filters*", CODE, false },
	{ "seccomp-lock", "*: has a seccomp filter, and a lock on * that could not be given back: *",
	  "release the lock, or run the program without its filter", false },
	{ "dispatch", "*: thread * dispatches its system calls itself *", "run the program without it: Wine and some sandboxes do so", false },
	{ "vfork", "*: waits for its vfork child, *", "wait until the child runs its program, or end it", false },
	{ "session", "*: its session * is neither its parent's nor one that can be entered", "end that process", false },
	{ "program", "*: has no vdso", NOTHING, false },
	{ "program", "*: its program file is not mapped", NOTHING, false },
	{ "program", "no hole of * KiB that is free in all processes", NOTHING, false },
	/* memory */
	{ "huge-pages", "*huge pages*", "use transparent huge pages: they need nothing", false },
	{ "huge-pages", "* is a file of hugetlbfs, *", "use transparent huge pages: they need nothing", false },
	{ "device-memory", "*: mapping * is a mapping of a device or of a kind that no kind takes", CLOSE, false },
	{ "device-memory", "*: mapping * is memory of a device", CLOSE, false },
	{ "droppable", "*: mapping * is droppable memory", CODE, false },
	{ "shadow-stack", "*: mapping * is a shadow stack: *", "start it with GLIBC_TUNABLES=glibc.cpu.hwcaps=-SHSTK", false },
	{ "protection-key", "*: mapping * is memory with a protection key: *", CODE, false },
	{ "file-replaced", "*: maps *, which has been replaced or removed since: *", "restart the program: its files were upgraded", false },
	{ "sysv-segment", "*: mapping *: is * a System V segment*", CODE, false },
	{ "sysv-segment", "*the System V segment * is locked in memory: *", "unlock it: SHM_UNLOCK", false },
	{ "mapping", "*: mapping * cannot be carried", NOTHING, false },
	/* what the pod has without a process */
	{ "sysv-kernel", "*(CONFIG_CHECKPOINT_RESTORE): *", "run it on a node whose kernel has that option", false },
	{ "sysv-kernel", "*(CONFIG_KCMP): *", "run it on a node whose kernel has that option", false },
	{ "semaphore-undo", "*: thread * undoes semaphore operations by itself *", CODE, false },
	{ "semaphore-undo", "*: undoes semaphore operations together with pid *", CODE, false },
	{ "semaphore-undo", "*: may have to undo operations on the System V semaphore set *", CODE, false },
	{ "queue-notify", "*the POSIX message queue * registered for its messages *", "withdraw it: mq_notify with NULL", false },
	{ "queue-notify", "*the POSIX message queue * has a process registered for the next message *", "let the program take its messages", false },
	{ "queue-notify", "* is a message queue that it is to hear of by signal *", "let the program take the signal", false },
	{ "device-file", "*is a device file in the pod's private tmpfs: *", "remove it", false },
	/* open files */
	{ "io_uring", "* is an io_uring: *", "run the program with its io_uring use turned off", false },
	{ "perf", "* is a perf event: *", "detach the profiler first", false },
	{ "userfaultfd", "* is a userfaultfd: *", CODE, false },
	{ "fanotify", "* is a fanotify group: *", CLOSE, false },
	{ "bpf", "* is a bpf *", CLOSE, false },
	{ "bpf", "* is a btf object: *", CLOSE, false },
	{ "pidfd", "* is a pidfd: *", CLOSE, false },
	{ "file-system", "* is a file system context: *", CLOSE, false },
	{ "seccomp-listener", "* is a seccomp listener: *", CLOSE, false },
	{ "landlock", "* is a landlock ruleset: *", CLOSE, false },
	{ "kvm", "* (kvm): *", "move the virtual machine by its own means", false },
	{ "device-buffer", "* is a dma buffer: *", CLOSE, false },
	{ "device-buffer", "* is a fence of a device: *", CLOSE, false },
	{ "device-buffer", "* is a vfio device: *", CLOSE, false },
	{ "secret-memory", "* is a memfd_secret: *", CODE, false },
	{ "inotify", "* is an inotify instance with events that the program does not read: *", "let the program read them", false },
	{ "inotify", "* is an inotify instance: *", CLOSE, false },
	{ "inotify", "*watches a file (*) that has no name: *", "let the program remove that watch", false },
	{ "inotify", "*has more than * watches: *", "let it watch less", false },
	{ "path-only", "* is an O_PATH descriptor of *", CLOSE, false },
	{ "path-only", "*was removed and is held by O_PATH", CLOSE, false },
	{ "unix-queue", "*a unix socket has * in its queue*", "let the program receive it", false },
	{ "unix-queue", "*a unix socket's queue *", "let the program receive it", false },
	{ "unix-queue", "*unix socket*accept queue holds data *", "let the program accept the connection", false },
	{ "netlink", "* is a netlink socket with messages that the program does not take: *", "let the program read them", false },
	{ "netlink", "*a netlink socket *", CLOSE, false },
	{ "socket-filter", "*is a socket with a filter of eBPF *", "let the program detach the filter", false },
	{ "accept-queue", "* connections wait in an accept queue *", "let the program accept them", false },
	{ "accept-queue", "connections are made faster than they are taken: *", "try again when there is less traffic", false },
	{ "tcp", "*a TCP socket of IPv6, with address *", "let the program use IPv4", false },
	{ "tcp", "*a TCP socket with *", CLOSE, false },
	{ "tcp", "*a multipath TCP socket*", "let the program use plain TCP", false },
	{ "tcp", "*urgent data waiting in a TCP socket*", "let the program read it", false },
	{ "tcp", "*a TCP socket in state *", "try again", false },
	{ "socket", "*not a UDP socket over IPv4", CLOSE, false },
	{ "udp", "*a UDP socket*", CLOSE, false },
	{ "udp", "*a multicast group with *", "let it join fewer", false },
	{ "socket", "* is a socket, IPv6 *", "let the program use IPv4", false },
	{ "socket", "* is a socket, *", CLOSE, false },
	{ "socket", "*not a TCP socket", CLOSE, false },
	{ "device", "* is character device *", CLOSE, false },
	{ "device", "* is block device *", CLOSE, false },
	{ "epoll", "*an epoll watches a file that was added as fd * and that no process with the epoll has any more*",
	  "let the program remove it before it closes it", false },
	{ "fifo", "*the FIFO *, which process * outside the pod has open too: *", "end that process, or let it close the FIFO", false },
	{ "fifo", "*the FIFO *", "remove its other links", false },
	{ "fifo", "* is a pipe or FIFO, *", CLOSE, false },
	{ "proc-file", "* procfs*", CLOSE, false },
	{ "kernel-file", "*' is a file of *: cannot be carried", CLOSE, false },
	{ "file-removed", "*' was removed*", "let the program close it, or remove the other links", false },
	{ "file-hidden", "*is hidden by a mount or lies outside the pod's root", "remove that mount, or bind the file: podrun --bind", false },
	{ "file-hidden", "*its path is too long", "put it into a shorter path", false },
	{ "terminal", "*terminal*", "start the program with a terminal of the pod's, or with none", false },
	{ "timerfd", "*a timerfd with TFD_TIMER_CANCEL_ON_SET: *", CODE, false },
	{ "lease", "*' holds a lease*", "let the program release it", false },
	{ "lease", "*' holds a delegation: *", "let the program release it", false },
	{ "locks", "* holds * lock*", "let the program release them", false },
	{ "other", "*", "", false },
};

const struct reason *reason_find(const char *words)
{
	size_t i = 0;

	while (i + 1 < ARRAY_SIZE(reasons) && fnmatch(reasons[i].pattern, words, 0) != 0)
		i++;
	return &reasons[i];
}
