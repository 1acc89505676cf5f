# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# Which workload lives on which kind: sourced by tests/mutation and tests/kinds, after $top is set.

# kind of the engine's table -> the workload that lives on it
declare -A workload=(
	[chardev]=files [pty]=pty [pipe]=pipes [fifo]=fifo [tcp]=tcp [udp]=udp [raw]=raw [packet]=packet [netlink]=netlink [unix]=unixsock [unix-dgram]=unixmsg [eventfd]=eventfd
	[signalfd]=signalfd [inotify]=inotify [timerfd]=timerfd [epoll]=epoll [file]=files
	[comm]=threads [sigaction]=signals [altstack]=signals [clear-child-tid]=threads
	[robust-list]=threads [umask]=creds [cwd]=creds [ctty]=pty [sched]=procattr [attrs]=procattr
	[proc-attrs]=procattr [itimer]=itimer [sigpending]=signals [sigpending-thread]=signals
	[filelock]=locks [posix-timer]=posixtimer [rlimit]=creds [creds]=creds [dumpable]=creds [pdeathsig]=creds [rseq]=rseq
	[sysvmsg]=sysvmsg [sysvsem]=sysvsem [mqueue]=mqueue [mqueue-fd]=mqueue
)
# the names in the table's order, by its own file and the kinds' files
names() {
	local symbol
	for symbol in $(sed -n '/table\[\]/,/};/p' "$top/pod/kind/kinds.c" | grep -o '&kind_[a-z0-9_]*'); do
		cat "$top"/pod/kind/*.c | grep -A 3 "^const struct kind ${symbol#&} = " |
			sed -n 's/.*\.name = "\([^"]*\)".*/\1/p' | head -n 1
	done
}
