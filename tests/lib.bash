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

# bats 1.8 cannot skip in setup_file: that does nothing without root, and setup skips
is_root() { [ "$(id -u)" = 0 ]; }

# lab_up NAME [OPTIONS OF lab up]: a lab of two nodes of this file's own, and what `lab env` says of it
lab_up() {
	local bin
	bin=$(realpath -e "$BATS_TEST_DIRNAME/../${B:-build}/bin" 2>/dev/null || realpath -e "$B/bin")
	export LAB_NAME=$1$$ LAB=$BATS_TEST_DIRNAME/../deploy/lab/lab
	"$LAB" up -n 2 --bin "$bin" "${@:2}"
	eval "$("$LAB" env)"
}
lab_down() { [ -z "${LAB-}" ] || "$LAB" down; }

# teardown: what a test that failed has left running; a client would wait for its pod for ever, after the lab has gone, too
end_jobs() { pkill -KILL -P $BASHPID || true; }
