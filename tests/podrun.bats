#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Pods and their consoles: podrun, podps, podctl exec|logs|attach|kill|nodes.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up podrun
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
state_is() { [ "$(podps -a --noheadings | awk -v p="$1" '$1 == p { print $5 }')" = "$2" ]; }

@test "a working directory that the pod lacks is said, and / taken" {
	run --separate-stderr podrun -- pwd
	[ "$status" = 0 ]
	[ "$output" = / ]
	[[ $stderr == *"cannot enter '$PWD'"* ]]
	cd /usr/lib
	[ "$(podrun -- pwd)" = /usr/lib ]
}

@test "output, errors and the exit code are the command's" {
	cd /
	run --separate-stderr podrun -- sh -c 'echo out; echo err >&2; exit 7'
	[ "$status" = 7 ]
	[ "$output" = out ]
	[ "$stderr" = err ]
}

@test "a command killed by a signal has 128 + its number" {
	run podrun -- sh -c 'kill -SEGV $$'
	[ "$status" = 139 ]
}

@test "not found is 127, not executable 126, our own failures 125" {
	run -127 podrun -- /no/such/command
	[ "$status" = 127 ]
	[[ $output == *"No such file"*"no pod was made"* ]]
	run podrun -- /etc/passwd
	[ "$status" = 126 ]
	run podrun -N nowhere -- true
	[ "$status" = 125 ]
	[[ $output == *nowhere* ]]
	run podrun --frobnicate -- true
	[ "$status" = 125 ]
	[[ $output == *"--frobnicate"*"usage:"* ]]
}

@test "usage errors are 2 and name the option" {
	run podps --frobnicate
	[ "$status" = 2 ]
	[[ $output == *"--frobnicate"*"usage:"* ]]
	run podmigrate onlyone
	[ "$status" = 2 ]
	run podmigrate a b --max-rounds many
	[ "$status" = 2 ]
	[[ $output == *many* ]]
	run podctl frobnicate
	[ "$status" = 2 ]
	run podctl kill -s NOSUCH x
	[ "$status" = 2 ]
}

@test "no coordinator is 4, no such pod 3" {
	printf '[client]\ncoordinator = %s/none\n' "$PWD" >conf
	PODMIGRATE_CONF=$PWD/conf run podps
	[ "$status" = 4 ]
	run podctl kill nosuch
	[ "$status" = 3 ]
	run podctl logs nosuch
	[ "$status" = 3 ]
	run podctl exec nosuch true
	[ "$status" = 3 ]
	run podmigrate nosuch nodeB
	[ "$status" = 3 ]
}

@test "50 MB through stdin and back are the same bytes" {
	head -c 50000000 /dev/urandom >data
	[ "$(podrun -- cat <data | md5sum)" = "$(md5sum <data)" ]
}

@test "a flood of output arrives whole, from its first byte" {
	sum=$(seq 1 10000000 | md5sum)
	for i in 1 2 3; do
		[ "$(timeout 180 podrun -- seq 1 10000000 | md5sum)" = "$sum" ]
	done
}

@test "an end of stdin reaches the command" {
	[ "$(printf 'a\nb' | podrun -- wc -c)" = 3 ]
	[ "$(podrun -- wc -c </dev/null)" = 0 ]
}

@test "the end of a command that is faster than its input is heard at once" {
	cd /
	for i in $(seq 40); do
		podrun -- sh -c 'exit 7' <<<"input" 3>&- &
		AWAIT_S=5 await have_ended $!
		code=0
		wait $! || code=$?
		[ $code = 7 ]
	done
}

@test "a command that reads nothing does not block podrun" {
	run bash -c 'head -c 10000000 /dev/zero | timeout 60 podrun -- true'
	[ "$status" = 0 ]
}

@test "signals to podrun go to the command" {
	podrun -- sh -c 'trap "echo int; exit 3" INT; echo ready; while :; do sleep 0.05; done' >out 3>&- &
	pid=$!
	await has ready out
	kill -INT $pid
	code=0
	wait $pid || code=$?
	[ $code = 3 ]
	[ "$(tail -n 1 out)" = int ]
}

@test "a reader that goes away ends the command" {
	cd /
	run bash -c 'timeout 60 podrun -- yes | head -n 1'
	[ "$output" = y ]
	[ "$status" = 0 ]
}

@test "a reader that does not read holds the command, loses nothing" {
	podrun -- seq 1 3000000 | { head -c 100; sleep 1; cat; } | # who does not read for a while is the point
		md5sum >sum
	[ "$(cat sum)" = "$(seq 1 3000000 | md5sum)" ]
}

@test "what a command leaves behind ends with it" {
	podrun -n leaves -- sh -c 'setsid sleep 98765 & exit 0'
	await state_is leaves 'exited(0)'
	not pgrep -f 'sleep 98765'
}

@test "podrun -d, podps, exec, logs, kill" {
	[ "$(podrun -d -n web -N nodeB -j job7 -e GREETING=hi -- sh -c 'echo $GREETING; exec sleep 1000')" = web ]
	podps --noheadings | grep -Eq '^web +job7 +nodeB +root +running +2 '
	podps --json | jq -e '.[] | select(.pod == "web") | .node == "nodeB" and .job == "job7"'
	[ -z "$(podps --noheadings -w nodeA | grep web)" ]
	[ "$(podctl exec web hostname)" = web ]
	[ "$(podctl exec -e A=b web sh -c 'echo $A $GREETING')" = "b hi" ]
	run podctl exec web sh -c 'exit 9'
	[ "$status" = 9 ]
	[ "$(echo piped | podctl exec web cat)" = piped ]
	run -127 podctl exec web nosuchcommand
	[ "$status" = 127 ]
	await sh -c 'podctl logs web | grep -qx hi'
	podctl kill web
	await state_is web 'exited(143)'
	[ "$(podctl logs web)" = hi ]
	run podctl exec web true
	[ "$status" = 3 ]
}

@test "attach shows what comes and gives the exit code" {
	podrun -d -n att -- sh -c 'while [ ! -e /tmp/go ]; do echo before; sleep 0.05; done; echo after; exit 6'
	podctl attach att </dev/null >out 3>&- &
	pid=$!
	await has before out
	podctl exec att touch /tmp/go || true # the end of the pod may overtake its answer
	code=0
	wait $pid || code=$?
	[ $code = 6 ]
	[ "$(uniq out)" = $'before\nafter' ]
}

@test "a name that is taken is refused, and the pod lives on" {
	podrun -d -n twice -- sleep 1000
	run podrun -n twice -- true
	[ "$status" = 125 ]
	[[ $output == *twice* ]]
	state_is twice running
	podctl kill twice
}

@test "a pod has its own pids, mounts, host name and clock" {
	podrun -n own -- sh -c 'hostname; echo $$; ls /proc | grep -c "^[0-9]"; ls -A /tmp /run /dev/shm; ls /dev/pts' >out
	[ "$(head -n 1 out)" = own ]
	[ "$(sed -n 2p out)" = 2 ]
	[ "$(sed -n 3p out)" -le 5 ]
	not podrun -- sh -c 'echo x >/sys/kernel/mm/ksm/run'
	podrun -- sh -c 'echo x >/dev/null && head -c 1 /dev/zero >/dev/null && head -c 1 /dev/urandom >/dev/null'
}

@test "--bind, --bind :ro and their refusals" {
	mkdir -p "$LAB_SHARED/bound" && echo inside >"$LAB_SHARED/bound/file"
	[ "$(podrun --bind /home/shared/bound:/mnt -- cat /mnt/file)" = inside ]
	[ "$(podrun --bind /home/shared/bound:/tmp/new -- cat /tmp/new/file)" = inside ]
	podrun --bind /home/shared/bound:/mnt -- sh -c 'echo more >/mnt/file2'
	[ "$(cat "$LAB_SHARED/bound/file2")" = more ]
	run podrun --bind /home/shared/bound:/mnt:ro -- sh -c 'echo no >/mnt/file'
	[ "$status" != 0 ]
	[[ $output == *"Read-only"* ]]
	run podrun --bind /no/such:/mnt -- true
	[ "$status" = 125 ]
	[[ $output == *"--bind '/no/such'"* ]]
	run podrun --bind /home:/no/such/place -- true
	[ "$status" = 125 ]
}

@test "a refused pod leaves nothing on the node" {
	before=$("$LAB" exec nodeA -- sh -c 'ip -o link | wc -l; ls /sys/fs/cgroup/podmigrate 2>/dev/null; grep -c . /proc/mounts')
	run podrun -N nodeA --bind /no/such:/mnt -- true
	run -127 podrun -N nodeA -- /no/such
	run podrun -N nodeA --cpus 999 -- true
	[ "$status" = 125 ]
	[ "$("$LAB" exec nodeA -- sh -c 'ip -o link | wc -l; ls /sys/fs/cgroup/podmigrate 2>/dev/null; grep -c . /proc/mounts')" = "$before" ]
}

@test "output goes on byte for byte when the node's agent is killed" {
	podrun -n agent1 -N nodeA -- seq 1 3000000 3>&- | {
		head -c 100000
		touch half
		await test -e again
		cat
	} 3>&- | md5sum >sum 3>&- &
	pid=$!
	await test -e half
	"$LAB" stop nodeA podagent --kill
	"$LAB" start nodeA podagent
	touch again
	wait $pid
	[ "$(cat sum)" = "$(seq 1 3000000 | md5sum)" ]
}

@test "stdin goes on byte for byte when agent and coordinator are killed" {
	{
		seq 1 200000
		touch half
		await test -e again
		seq 200001 400000
	} 3>&- | podrun -n agent2 -N nodeA -- md5sum >sum 3>&- &
	pid=$!
	await test -e half
	"$LAB" stop nodeA podagent --kill
	"$LAB" stop head podcoord --kill
	"$LAB" start head podcoord
	"$LAB" start nodeA podagent
	touch again
	wait $pid
	[ "$(cat sum)" = "$(seq 1 400000 | md5sum)" ]
}

@test "a terminal: job control, Ctrl-C, window size, Ctrl-D, leaving and attaching" {
	t() { tmux -L "$LAB_NAME" "$@"; }
	sees() { t capture-pane -p | grep -q -- "$1"; }
	t new-session -d -x 100 -y 30 "podrun -n tty1 -- bash --norc --noprofile; echo CODE=\$?; exec cat"
	await sees 'bash-[0-9.]*#'
	t send-keys 'stty size' Enter
	await sees '^30 100'
	t send-keys 'sleep 1000' Enter
	await sh -c 'podctl exec tty1 ps ax | grep -q "[s]leep 1000"'
	t send-keys C-c
	t send-keys 'echo code $?' Enter
	await sees '^code 130'
	t send-keys 'sleep 1000' Enter
	await sh -c 'podctl exec tty1 ps ax | grep -q "[s]leep 1000"'
	t send-keys C-z
	await sees 'Stopped'
	t send-keys 'bg' Enter 'jobs' Enter
	await sees 'Running'
	t resize-window -x 70 -y 20
	await sh -c "tmux -L $LAB_NAME send-keys 'stty size' Enter; sleep 0.2; tmux -L $LAB_NAME capture-pane -p | grep -q '^20 70'"
	t send-keys 'kill %1; exec sh -c "read x; echo got \$x; exit 5"' Enter
	t send-keys Enter '~.'
	await sees 'CODE=0'
	state_is tty1 running || state_is tty1 'exited(5)'
	t respawn-pane -k "podrun -n tty2 -- bash --norc --noprofile; echo CODE=\$?; exec cat"
	await sees 'bash-[0-9.]*#'
	t send-keys Enter '~.'
	await sees 'CODE=0'
	state_is tty2 running
	t respawn-pane -k "podctl attach tty2; echo CODE=\$?; exec cat"
	await sh -c "tmux -L $LAB_NAME send-keys 'echo at''tached' Enter; sleep 0.2; tmux -L $LAB_NAME capture-pane -p | grep -q '^attached'"
	t send-keys 'false' Enter C-d
	await sees 'CODE=1'
	t kill-server
}
