# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# For the .bats files: `load lib`.

. "$BATS_TEST_DIRNAME/await.bash"

# bats looks at no command that begins with "!"
not() {
	if "$@"; then
		echo "true: $*" >&2
		return 1
	fi
}

# have_ended PID...: of our own background jobs
have_ended() {
	local p
	for p; do kill -0 "$p" 2>/dev/null && return 1; done
	return 0
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
