#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Nodes are cordoned and emptied; whatever fails meanwhile, no pod is lost, and none runs twice.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up drain -n 3 --faults
	cp "$LAB_BIN/workload/"{anon,tree,refused} "$LAB_SHARED/"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() {
	is_root || return 0
	[ "$BATS_TEST_COMPLETED" ] || { podps -a; timeout 60 podctl nodes; timeout 60 podctl recover; } >&2 || true
	end_jobs
	rm -f "$LAB_DIR"/faults/*
	"$LAB" start head >/dev/null 2>&1
	for p in $(pods); do podctl kill -s KILL -a "$p" || true; done >/dev/null 2>&1
	await none_left
	for n in nodeA nodeB nodeC; do podctl uncordon $n; done
}

pods() { timeout 60 podps --noheadings | awk '{ print $1 }'; }
none_left() { [ -z "$(pods)" ]; }
field() { timeout 60 podps -a --noheadings | awk -v p="$1" -v f="$2" '$1 == p { print $f }'; }
node_of() { field "$1" 3; }
state_of() { timeout 60 podctl nodes --noheadings | awk -v n="$1" '$1 == n { print $2 }'; }
is_empty() { [ -z "$(podps -w "$1" --noheadings)" ]; }
running() { [ "$(field "$1" 5)" = running ] && [ -z "$(podps --json | jq -r ".[] | select(.pod == \"$1\") | .op")" ]; }
said() { timeout 60 podctl logs "$1" | grep -q -- "$2"; }
exited() { [[ $(field "$1" 5) == exited* ]]; }
held() { [ -n "$(podps --json | jq -r ".[] | select(.pod == \"$1\") | .op")" ]; }
pod() { # NAME PROGRAM [ARGUMENTS], on nodeA; it works
	podrun -d -n "$1" -N nodeA -- "/home/shared/$2" "${@:3}" >/dev/null
	await said "$1" ready
}
# they run, and have noticed nothing
end_well() {
	local p
	for p; do
		running "$p"
		podctl kill "$p"
		await exited "$p"
		[ "$(field "$p" 5)" = "exited(0)" ]
		podctl logs "$p" | grep -qx ok
	done
}
all_run() { local p; for p; do running "$p" || return 1; done; }

@test "a cordoned node takes no new pod, no moving one, no restart; the coordinator remembers it" {
	podrun -d -n b -N nodeB -- sleep 1000 >/dev/null
	podctl checkpoint b >/dev/null
	run podctl cordon nodeA --reason "a fan is loud"
	[ "$status" = 0 ]
	[ "$(state_of nodeA)" = cordoned ]
	[ "$(podctl nodes --json | jq -r '.[] | select(.cordoned) | .node + ": " + .reason')" = "nodeA: a fan is loud" ]
	run podrun -d -n x -N nodeA -- true
	[ "$status" = 125 ]
	[[ $output == *"node 'nodeA' is cordoned, it takes no more pods: a fan is loud"* && $output == *"podctl uncordon nodeA"* ]]
	run podmigrate b nodeA
	[ "$status" = 6 ]
	[[ $output == *"check: node 'nodeA' is cordoned"*"the pod runs on as before"* ]]
	running b
	id=$(podctl checkpoint --term b)
	run podctl restore "$id" -N nodeA
	[ "$status" = 6 ]
	[[ $output == *"node 'nodeA' is cordoned"*"nothing was made"* ]]
	"$LAB" kill head
	"$LAB" start head
	[ "$(state_of nodeA)" = cordoned ]
	# who has no wish goes elsewhere, though it is empty
	for i in 1 2 3; do podrun -d -n "e$i" -- sleep 1000 >/dev/null; done
	is_empty nodeA
	podctl uncordon nodeA
	[ "$(state_of nodeA)" = up ]
	podrun -d -n x -- sleep 1000 >/dev/null
	[ "$(node_of x)" = nodeA ]
}

@test "only root may; names that are none are said; nothing happens" {
	run setpriv --reuid 65534 --regid 65534 --clear-groups podctl cordon nodeA
	[ "$status" = 5 ]
	run setpriv --reuid 65534 --regid 65534 --clear-groups podctl drain nodeA
	[ "$status" = 5 ]
	run podctl drain nodeX
	[ "$status" = 3 ]
	run podctl drain nodeA --to nodeB,nodeX
	[ "$status" = 3 ]
	[[ $output == *"there is no node 'nodeX'"* ]]
	run podctl drain nodeA --to nodeA
	[ "$status" = 2 ]
	run podctl uncordon nodeX
	[ "$status" = 3 ]
	[ "$(state_of nodeA)" = up ]
	# nothing is there: that is empty, too
	run podctl drain nodeA
	[ "$status" = 0 ]
	[ "$(state_of nodeA)" = cordoned ]
}

@test "drain moves all pods, to where the fewest are; --dry-run only says so" {
	for i in 1 2 3; do
		pod "a$i" anon
		pod "t$i" tree
	done
	podrun -d -n b -N nodeB -- sleep 1000 >/dev/null
	run --separate-stderr podctl drain nodeA --dry-run
	[ "$status" = 0 ]
	[ "$(grep -c "can move  *node" <<<"$output")" = 6 ]
	[ "$(state_of nodeA)" = up ]
	[ "$(podps -w nodeA --noheadings | wc -l)" = 6 ]
	run --separate-stderr poddrain nodeA --max-parallel 3 --reason disk
	echo "$output"
	[ "$status" = 0 ]
	[ "$(grep -c " moved " <<<"$output")" = 6 ]
	[[ $output == *"6 pods moved"*"0 left"*"podctl uncordon nodeA"* ]]
	[[ $stderr == *"[6/6]"* ]]
	is_empty nodeA
	[ "$(podps -w nodeB --noheadings | wc -l)" -ge 3 ]
	[ "$(podps -w nodeC --noheadings | wc -l)" -ge 3 ]
	end_well a1 a2 a3 t1 t2 t3
}

@test "--to; what no other node can take stays, or ends with its image; the rest goes" {
	"$LAB" exec nodeA -- sh -c 'echo here alone >/var/tmp/own'
	pod a1 anon
	pod odd refused packet
	pod own refused needs open:/var/tmp/own
	run --separate-stderr podctl drain nodeA --to nodeC
	[ "$status" = 12 ]
	[ "$(node_of a1)" = nodeC ]
	[[ $output == *"1 pod moved"*"2 left"* ]]
	[[ $(grep ^odd <<<"$output") == *"stays"*"PACKET_RX_RING"* ]]
	[[ $(grep ^own <<<"$output") == *"stays"*"/var/tmp/own"* ]]
	all_run odd own
	run --separate-stderr podctl drain nodeA --on-failure checkpoint --json
	[ "$status" = 12 ]
	[ "$(jq -r '.pods[] | .pod + " " + .result' <<<"$output" | sort | xargs)" = "odd stays own checkpointed" ]
	image=$(jq -r '.pods[] | select(.pod == "own") | .why' <<<"$output")
	[ "$(node_of own)" = "" ]
	running odd
	podctl uncordon nodeA
	podctl restore "$image" -N nodeA
	await running own
	end_well a1
}

@test "--on-failure stop: no more are begun" {
	for i in 1 2 3 4; do pod "odd$i" refused packet; done
	run --separate-stderr podctl drain nodeA --on-failure stop --max-parallel 1
	[ "$status" = 12 ]
	[ "$(grep -c "not tried: the drain was ended" <<<"$output")" = 3 ]
	all_run odd1 odd2 odd3 odd4
}

@test "a node that fails a pod is not asked again: another takes it; a pod that is held is waited for" {
	pod a1 anon
	pod t1 tree
	echo engine-target@precopy:kill >"$LAB_DIR/faults/nodeB"
	run --separate-stderr podctl drain nodeA --max-parallel 1
	[ "$status" = 0 ]
	[ ! -s "$LAB_DIR/faults/nodeB" ]
	is_empty nodeA
	end_well a1 t1
	podctl uncordon nodeA
	pod a1 anon
	echo engine-source@precopy:delay=3000 >"$LAB_DIR/faults/nodeA"
	podctl checkpoint a1 >/dev/null &
	await held a1
	run --separate-stderr podctl drain nodeA
	[ "$status" = 0 ]
	wait $!
	[ "$(node_of a1)" != nodeA ]
	end_well a1
}

@test "who has left the node meanwhile is left alone; who is on the way to it is waited for" {
	pod a1 anon
	pod t1 tree
	echo engine-source@precopy:delay=3000 >"$LAB_DIR/faults/nodeA"
	podmigrate a1 nodeB >/dev/null &
	await held a1
	run --separate-stderr podctl drain nodeA --to nodeC --on-failure checkpoint
	[ "$status" = 0 ]
	wait $!
	[[ $(grep ^a1 <<<"$output") == *" gone "* ]]
	[ "$(node_of a1)" = nodeB ]
	[ "$(node_of t1)" = nodeC ]
	podctl uncordon nodeA
	echo engine-source@precopy:delay=3000 >"$LAB_DIR/faults/nodeB"
	podmigrate a1 nodeA >/dev/null &
	await held a1
	run --separate-stderr podctl drain nodeA
	[ "$status" = 0 ]
	wait $!
	[[ $output == *"1 pod moved"* ]]
	is_empty nodeA
	end_well a1 t1
}

@test "Ctrl-C: what is under way goes on where it is; the next drain does the rest" {
	pod a1 anon
	pod t1 tree
	echo engine-source@precopy:delay=20000 >"$LAB_DIR/faults/nodeA"
	podctl drain nodeA --max-parallel 1 >"$BATS_TEST_TMPDIR/out" 2>&1 &
	await fault_was nodeA
	kill -INT $!
	status=0
	wait $! || status=$?
	cat "$BATS_TEST_TMPDIR/out"
	[ "$status" = 12 ]
	grep -q "aborting what is under way" "$BATS_TEST_TMPDIR/out"
	grep -q "2 left" "$BATS_TEST_TMPDIR/out"
	await all_run a1 t1
	[ "$(podps -w nodeA --noheadings | wc -l)" = 2 ]
	run podctl drain nodeA
	[ "$status" = 0 ]
	is_empty nodeA
	end_well a1 t1
}

@test "agents, engines and the coordinator die in a drain: no pod is lost, none runs twice, and the next drain does the rest" {
	for at in "nodeB agent-target@ready" "nodeA agent-source@ready" "nodeC engine-target@cut" "nodeA engine-source@started" \
		"head coord@commit" "head coord@committed" "head coord@started"; do
		echo "$at" >&3
		for i in 1 2 3; do pod "a$i" anon; done
		echo "${at#* }:kill" >"$LAB_DIR/faults/${at% *}"
		timeout 120 podctl drain nodeA --max-parallel 2 >&2 &
		await fault_was "${at% *}"
		"$LAB" start "${at% *}" >/dev/null
		status=0
		wait $! || status=$?
		# the coordinator's death is the drain's end; else it does it all by itself
		[ "$status" = 0 ] || [[ $at == head* ]]
		await nodes_up
		await all_run a1 a2 a3
		timeout 120 podctl drain nodeA >&2
		is_empty nodeA
		[ "$(podps --noheadings | wc -l)" = 3 ]
		end_well a1 a2 a3
		podctl uncordon nodeA
	done
}
fault_was() { [ ! -s "$LAB_DIR/faults/$1" ]; }
nodes_up() { [ "$(timeout 60 podctl nodes --noheadings | awk '$2 == "up" || $2 == "cordoned"' | wc -l)" = 3 ]; }
