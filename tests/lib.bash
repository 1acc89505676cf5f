# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# For the .bats files: `load lib`.

# until CONDITION, at most 20 s (AWAIT_S)
await() {
	local i
	for i in $(seq $((${AWAIT_S:-20} * 20))); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.05
	done
	echo "never true: $*" >&2
	return 1
}

# bats looks at no command that begins with "!"
not() {
	if "$@"; then
		echo "true: $*" >&2
		return 1
	fi
}
