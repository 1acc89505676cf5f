# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# For tests/lib.sh and tests/lib.bash.

# await CMD...: until CMD succeeds, for AWAIT_S seconds (60) that the machine runs: it is tries that are counted, so that one that
# stands still meanwhile does not use up the time
await() {
	local i
	for ((i = ${AWAIT_S:-60} * 20; i > 0; i--)); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.05
	done
	echo "never true: $*" >&2
	return 1
}
