#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# A job of two pods on two nodes, with a byte-checking stream between them: it is cut as one, and comes back as one.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up job --faults
	export STORE=$LAB_SHARED/images/root
	mkdir -p "$STORE"
	cp "$LAB_BIN/../tests/streamcheck" "$LAB_BIN/workload/refused" "$LAB_SHARED/"
	mkdir -m 1777 "$LAB_SHARED/data"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() {
	is_root || return 0
	[ "$BATS_TEST_COMPLETED" ] || { podps -a; timeout 60 podctl recover; podctl logs cli; podctl logs srv; } >&2 || true
	for p in srv cli; do podctl kill -s KILL -a $p || true; done >/dev/null 2>&1
	await ended srv && await ended cli
	rm -f "$LAB_SHARED"/data/* "$LAB_DIR"/faults/*
}

field() { timeout 60 podps -a --noheadings | awk -v p="$1" -v f="$2" '$1 == p { print $f }'; }
ended() { [[ $(field "$1" 5) == exited* || -z $(field "$1" 5) ]]; }
running() { [ "$(field "$1" 5)" = running ] && [ -z "$(podps --json | jq -r ".[] | select(.pod == \"$1\") | .op")" ]; }
held() { [ -n "$(podps --json | jq -r '.[] | select(.pod == "srv") | .op')" ]; }
both_run() { both_up && running srv && running cli; }
both_up() { [ "$(timeout 60 podctl nodes --noheadings | awk '$2 == "up"' | wc -l)" = 2 ]; }
said() { timeout 60 podctl logs "$1" | grep -q -- "$2"; }
job_runs() { # [OPTIONS OF podrun]
	podrun -d -j J -n srv -N nodeA --ip 10.77.128.31 "$@" -- /home/shared/streamcheck -l 7000 >/dev/null
	await said srv ready
	podrun -d -j J -n cli -N nodeB --ip 10.77.128.32 "$@" -- /home/shared/streamcheck -c 2 10.77.128.31 7000 >/dev/null
	await said cli ready
}
# bytes came to the client since the question
received() { podctl exec cli -- awk '$1 == "eth0:" { print $2 }' /proc/net/dev; }
more_than() { [ "$(received)" -gt "$1" ]; }
flows() { local n; n=$(received); await more_than $((n + 1000000)); }
# it is told to stop: both streams are read to their ends and every byte was right
stream_ends_well() {
	flows
	podctl kill cli
	await ended cli
	[ "$(field cli 5)" = "exited(0)" ]
	podctl logs cli | grep -q '"errors": 0'
	running srv
}
both_die() {
	podctl kill -s KILL -a srv
	podctl kill -s KILL -a cli || true # the reset may have been quicker
	await ended srv
	await ended cli
}
where() { [ "$(field srv 3)" = "$1" ] && [ "$(field cli 3)" = "$2" ]; }
jobs_listed() { podctl image list --noheadings | awk '$8 != "-" { print $8 }' | sort -u; }

@test "checkpoint JOB goes on; both are killed; restore brings both back, on swapped nodes, and not a byte is wrong" {
	job_runs
	run --separate-stderr podctl checkpoint J
	[ "$status" = 0 ]
	[ "${#lines[@]}" = 1 ]
	[[ $output == J.* ]]
	[[ $stderr == *"J: checkpoint in"*"cli: frozen"* && $stderr == *"srv: frozen"* ]]
	id=$output
	flows
	[ "$(jobs_listed)" = "$id" ]
	# they live
	run podctl restore "$id"
	[ "$status" = 13 ]
	both_die
	run podctl restore --dry-run "$id"
	[ "$status" = 0 ]
	[[ $output == *"all 2 pods can be restored"* ]]
	ended srv
	ended cli
	run podctl restore "$id" -N nodeA,nodeB
	[ "$status" = 0 ]
	where nodeB nodeA # in the order of their names
	stream_ends_well
}

@test "--term ends both with one commit; a second image builds on the first; each comes back" {
	job_runs
	podctl checkpoint J
	flows
	id=$(podctl checkpoint --term J)
	[ -z "$(podps --noheadings)" ]
	[ "$(podctl image list --noheadings | awk -v j="$id" '$8 == j && $9 != "-"' | wc -l)" = 2 ]
	podctl restore "$id" -N nodeA,nodeB
	flows
	id=$(podctl checkpoint --term J)
	podctl restore "$id" -N nodeB,nodeA
	where nodeA nodeB
	stream_ends_well
}

@test "a pod that comes late to its cut: nobody hears of what another did after its own" {
	job_runs
	for late in nodeA nodeB; do
		echo "engine-source@quiesce:delay=300" >"$LAB_DIR/faults/$late"
		run podctl checkpoint J
		rm -f "$LAB_DIR/faults/$late"
		[ "$status" = 0 ]
		flows
		id=$(jobs_listed | sort -V | tail -n 1)
		both_die
		podctl restore "$id" -N nodeA,nodeB
		flows
	done
	stream_ends_well
}

@test "what one pod holds refuses for the job: nothing was stopped, there is no image" {
	job_runs
	before=$(ls "$STORE")
	podrun -d -j J -n odd -N nodeA -- /home/shared/refused packet >/dev/null
	await said odd ready
	run podctl checkpoint J
	podctl kill -s KILL -a odd
	[ "$status" = 6 ]
	[[ $output == *"pod 'odd'"* && $output == *"all 3 pods of job 'J' run as before"* ]]
	[ "$(ls "$STORE")" = "$before" ]
	stream_ends_well
}

@test "who dies at a barrier takes the whole cut with it, and every pod runs on" {
	job_runs
	for at in "nodeA engine-source@join" "nodeB engine-source@cut" "nodeA engine-source@hold" "nodeB engine-source@save" \
		"nodeA engine-source@agree" "nodeB agent-source@save" "head coord@barrier"; do
		echo "$at" >&3
		before=$(ls "$STORE")
		echo "${at#* }:kill" >"$LAB_DIR/faults/${at%% *}"
		run timeout 180 podctl checkpoint J
		rm -f "$LAB_DIR/faults/${at%% *}"
		[ "$status" != 0 ]
		case $at in *agent-* | head*) "$LAB" start "${at%% *}" >/dev/null ;; esac
		await both_run
		flows
		# who is killed when its image has a name cannot take it back: it is a pod's, not the job's
		new=$(comm -13 <(echo "$before") <(ls "$STORE") | wc -l)
		case $at in *@agree | *@save | head*) ((new < 2)) ;; *) ((new == 0)) ;; esac
	done
	stream_ends_well
}

@test "--term: who dies around the commit: both run, or both are in a whole image" {
	job_runs
	for at in "nodeA engine-source@commit" "nodeB agent-source@ready" "head coord@commit" "head coord@committed" \
		"nodeB agent-source@started" "nodeA agent-source@clean"; do
		echo "$at" >&3
		echo "${at#* }:kill" >"$LAB_DIR/faults/${at%% *}"
		run timeout 180 podctl checkpoint --term J
		rm -f "$LAB_DIR/faults/${at%% *}"
		case $at in *agent-* | head*) "$LAB" start "${at%% *}" >/dev/null ;; esac
		both_or_none() { both_run || { both_up && ended srv && ended cli; }; }
		await both_or_none
		if [ "$status" = 0 ]; then
			ended srv
			ended cli
		fi
		if ended srv; then
			podctl restore "$(podctl image list --noheadings | awk '{ print $8 }' | sort -V | tail -n 1)" -N nodeB,nodeA
		fi
		await both_run
		flows
	done
	stream_ends_well
}

@test "a file is missing, or a job is asked for that is none" {
	job_runs
	run podctl checkpoint nosuch
	[ "$status" = 3 ]
	run podctl checkpoint J -o "$LAB_SHARED/data/one.img"
	[ "$status" = 2 ]
	[[ $output == *"in a directory"* ]]
	run podctl checkpoint J -o "$LAB_SHARED/data"
	[ "$status" = 0 ]
	both_die
	mkdir "$LAB_SHARED/data/away"
	mv "$LAB_SHARED"/data/cli.*.img "$LAB_SHARED/data/away/"
	run podctl restore "$LAB_SHARED/data"
	[ "$status" = 15 ]
	[[ $output == *"that of pod 'cli' is missing"* ]]
	run podctl restore "$LAB_SHARED/data/away" -N nodeB
	[ "$status" = 15 ]
	mv "$LAB_SHARED"/data/away/* "$LAB_SHARED/data/"
	rmdir "$LAB_SHARED/data/away"
	podctl restore "$LAB_SHARED/data" -N nodeB,nodeA
	stream_ends_well
}

@test "one pod out of a job's image: its connections with the others are closed, and it is said" {
	job_runs
	podctl checkpoint J
	one=$(podctl image list --noheadings | awk '$2 == "cli" { print $1 }' | tail -n 1)
	both_die
	run podctl restore "$one" -N nodeA
	[ "$status" = 0 ]
	[[ $output == *"the connection with 10.77.128.31 port 7000 is closed with a reset"* ]]
	await ended cli
}

@test "pod-preempt vacates and brings back a job of several pods" {
	job_runs
	run pod-preempt vacate --job J --deadline "$(date +%s)"
	[ "$status" = 4 ]
	both_run
	run pod-preempt vacate --job J --deadline "$(($(date +%s) + 60))"
	[ "$status" = 0 ]
	ended srv
	ended cli
	run pod-preempt vacate --job J
	[ "$status" = 3 ]
	run pod-preempt restore --job J
	[ "$status" = 0 ]
	await both_run
	run pod-preempt restore --job J
	[ "$status" = 0 ]
	stream_ends_well
}

@test "podrun -i: a job's pods are cut together by themselves" {
	rm -f "$STORE"/*
	job_runs -i 1 --keep 2
	two() { [ "$(jobs_listed | wc -l)" -ge 2 ]; }
	await two
	flows
	both_die
	podctl restore "$(jobs_listed | sort -V | tail -n 1)" -N nodeB,nodeA
	stream_ends_well
}

@test "another user's job is not there for who is not its owner" {
	job_runs
	run "$LAB" exec --user 1234 client1 -- podctl checkpoint J
	[ "$status" = 3 ]
	both_run
	stream_ends_well
}

@test "given up in the middle, by hand or by --timeout: nothing stays, and every pod runs on" {
	job_runs
	before=$(ls "$STORE")
	for late in "nodeB engine-source@join" "nodeA engine-source@hold" "nodeB engine-source@save" "nodeB engine-source@agree"; do
		echo "$late" >&3
		# past its time, but not by so much that the coordinator waits no more for a node to say that it is undone
		echo "${late#* }:delay=2000" >"$LAB_DIR/faults/${late%% *}"
		run timeout 60 podctl checkpoint --timeout 1 J
		[ "$status" = 10 ]
		[[ $output == *"all 2 pods of job 'J' run as before; there is no new image"* ]]
		echo "${late#* }:delay=3000" >"$LAB_DIR/faults/${late%% *}"
		podctl checkpoint J >"$BATS_TEST_TMPDIR/id" 2>"$BATS_TEST_TMPDIR/said" 3>&- &
		await held
		kill -TERM $!
		wait $! && return 1
		rm -f "$LAB_DIR/faults/${late%% *}"
		[ ! -s "$BATS_TEST_TMPDIR/id" ]
		await both_run
		[ "$(ls "$STORE")" = "$before" ]
		flows
	done
	stream_ends_well
}

@test "a job that is just coming back is not cut; one that cannot come back in part says why; its images go together" {
	job_runs
	id=$(podctl checkpoint J)
	both_die
	echo "engine-target@precopy:delay=2000" >"$LAB_DIR/faults/nodeA"
	podctl restore "$id" -N nodeA 3>&- &
	busy() { run podctl checkpoint J && [ "$status" = 13 ]; }
	await busy
	wait %1
	rm -f "$LAB_DIR/faults/nodeA"
	await both_run
	both_die
	run podctl restore --dry-run "$id" -N nosuch,nodeA
	[ "$status" = 3 ]
	run podctl image rm "$id"
	[ "$status" = 0 ]
	[ -z "$(podctl image list --noheadings | awk -v j="$id" '$8 == j')" ]
}

@test "a pod that is called as a job is not taken for it, whosever it is" {
	"$LAB" exec --user 1234 client1 -- podrun -d -n J -N nodeA -- sleep 1000
	job_runs
	run podctl checkpoint J
	[ "$status" = 2 ]
	[[ $output == *"'J' is a pod and a job"* ]]
	run pod-preempt vacate --job J
	[ "$status" = 0 ]
	ended srv
	ended cli
	running J
	run pod-preempt restore --job J
	[ "$status" = 0 ]
	podctl kill -s KILL -a J
	await ended J
	stream_ends_well
}
