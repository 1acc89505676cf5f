#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# A console over moves: the user at podrun sees nothing of them, and no byte, signal or exit code is lost.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up podcons
}

teardown_file() {
	tmux -L "${LAB_NAME-}" kill-server 2>/dev/null || true
	lab_down
}

setup() {
	is_root || skip "must be root"
	cd "$BATS_TEST_TMPDIR" || return 1
}

teardown() { end_jobs; }

has() { grep -q -- "$1" "$2"; }

# $1 goes to nodeB and back, $2 times
to_and_fro() {
	local i
	for i in $(seq "$2"); do
		podmigrate "$1" nodeB && podmigrate "$1" nodeA || return 1
	done
}

@test "output in full flood over moves" {
	# the command waits for a last word, so that it cannot end before the moves are done
	mkfifo go
	podrun -n flood -N nodeA -- sh -c 'seq 1 8000000; read x; seq 8000001 8000100' <go >out 3>&- &
	pid=$!
	exec 9>go
	await test -s out
	to_and_fro flood 2
	echo >&9
	exec 9>&-
	wait $pid
	[ "$(md5sum <out)" = "$(seq 1 8000100 | md5sum)" ]
}

@test "stdin over moves" {
	mkfifo go
	podrun -n input -N nodeA -- md5sum <go >sum 3>&- &
	pid=$!
	exec 9>go
	seq 1 300000 >&9
	for i in 1 2; do
		podmigrate input nodeB 3>&- &
		mover=$!
		seq $((i * 1000000)) $((i * 1000000 + 300000)) >&9
		wait $mover
		podmigrate input nodeA
	done
	exec 9>&-
	wait $pid
	[ "$(cat sum)" = "$({ seq 1 300000; seq 1000000 1300000; seq 2000000 2300000; } | md5sum)" ]
}

@test "each signal arrives once" {
	cat >count.py <<-'END'
		import os, signal
		got = 0
		def on(*a):
		    global got
		    got += 1
		    print("got", got, flush=True)
		signal.signal(signal.SIGUSR1, on)
		signal.signal(signal.SIGTERM, lambda *a: os._exit(got))
		print("ready", flush=True)
		while True:
		    signal.pause()
	END
	podrun -n sig -N nodeA -- python3 -c "$(cat count.py)" >out 3>&- &
	pid=$!
	await has ready out
	to_and_fro sig 2 3>&- &
	mover=$!
	for i in $(seq 30); do
		kill -USR1 $pid
		await has "^got $i\$" out
	done
	wait $mover
	kill -TERM $pid
	code=0
	wait $pid || code=$?
	[ $code = 30 ]
}

@test "a reader that goes away after a move ends the command" {
	mkfifo pipe
	podrun -n reader -N nodeA -- yes >pipe 3>&- &
	pid=$!
	exec 8<pipe
	head -c 1000 <&8 >/dev/null
	podmigrate reader nodeB
	exec 8<&-
	code=0
	wait $pid || code=$?
	[ $code = 141 ]
}

@test "an exec session goes with its pod" {
	podrun -d -n host -N nodeA -- sleep 1000
	mkfifo go
	podctl exec host sh -c 'while read x; do echo "$x"; done; exit 7' <go >out 3>&- &
	pid=$!
	exec 9>go
	echo one >&9
	await has one out
	podmigrate host nodeB
	echo two >&9
	await has two out
	podmigrate host nodeA
	echo three >&9
	exec 9>&-
	code=0
	wait $pid || code=$?
	[ $code = 7 ]
	[ "$(cat out)" = $'one\ntwo\nthree' ]
	podctl kill host
}

@test "logs follow and are whole after moves" {
	podrun -d -n log -N nodeA -- sh -c 'i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); echo line $i; sleep 0.01; done; echo end $i'
	podctl logs -f log >follow 3>&- &
	pid=$!
	await has 'line 20$' follow
	to_and_fro log 1
	podctl exec log touch /tmp/end || true
	wait $pid
	n=$(sed -n 's/^end //p' follow)
	[ "$n" -gt 20 ]
	[ "$(cat follow)" = "$(seq "$n" | sed 's/^/line /'; echo "end $n")" ]
	[ "$(podctl logs log)" = "$(cat follow)" ]
}

@test "a terminal with job control over moves" {
	t() { tmux -L "$LAB_NAME" "$@"; }
	sees() { t capture-pane -p | grep -q -- "$1"; }
	t new-session -d -x 100 -y 30 "podrun -n tty -N nodeA -- bash --norc --noprofile; echo CODE=\$?; exec cat"
	await sees 'bash-[0-9.]*#'
	t send-keys 'sleep 1000 &' Enter
	await sees '^\[1\]'
	podmigrate tty nodeB
	t send-keys 'echo af''ter; jobs' Enter
	await sees '^after'
	await sees 'Running'
	podmigrate tty nodeA
	t send-keys 'fg' Enter
	await sh -c "podctl exec tty ps -o stat= 3 | grep -q +"
	t send-keys C-c
	t send-keys 'echo code $?' Enter
	await sees '^code 130'
	podmigrate tty nodeB
	t resize-window -x 70 -y 20
	await sh -c "tmux -L $LAB_NAME send-keys 'stty size' Enter; sleep 0.2; tmux -L $LAB_NAME capture-pane -p | grep -q '^20 70'"
	t send-keys 'python3 -q' Enter
	await sees '>>>'
	t send-keys 'x = 41' Enter
	podmigrate tty nodeA
	t send-keys 'x + 1' Enter
	await sees '^42'
	t send-keys C-d
	t send-keys 'exit 9' Enter
	await sees 'CODE=9'
	t kill-server
}

@test "podmigrate says the truth: last line, -t, --json, --dry-run, refusals" {
	podrun -d -n truth -N nodeA -- sleep 1000
	run podmigrate truth nodeB --dry-run
	[ "$status" = 0 ]
	[[ $output == *"nothing was stopped"* ]]
	podps --noheadings | grep -Eq '^truth .*nodeA '
	run --separate-stderr podmigrate truth nodeB -t
	[ "$status" = 0 ]
	[[ ${lines[0]} =~ ^truth:\ nodeA\ -\>\ nodeB\ in\ .*,\ frozen\ .*\ ms,\ .*round.*sent$ ]]
	[[ $output == *commit* ]]
	podmigrate truth nodeA --stop-copy --json | jq -es 'last | .event == "done" and .to == "nodeA" and .frozen_ns > 0 and .total_ns > .frozen_ns'
	run podmigrate truth nodeA
	[ "$status" -ne 0 ]
	[[ $output == *nodeA* ]]
	run podmigrate truth nowhere
	[ "$status" = 3 ]
	podps --noheadings | grep -Eq '^truth .*nodeA +root +running'
	podctl kill truth
}
