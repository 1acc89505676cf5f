#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Agents, coordinator and nodes that die during a checkpoint that ends the pod, and during a restart: afterwards the pod runs
# once, or not at all and its image is whole.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up imgfault --faults
	export STORE=$LAB_SHARED/images/root
	cat >"$LAB_SHARED/count" <<-'END'
		i=0
		while :; do echo $i; i=$((i + 1)); sleep 0.02; done
	END
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() { [ "$BATS_TEST_COMPLETED" ] || { podps -a; timeout 60 podctl recover; } >&2 || true; }
start() { case $1 in *agent-* | *coord@*) "$LAB" start "${1%% *}" >/dev/null ;; esac; }
# of the pod, if it lives: what an earlier one of its name left is not shown
row() { timeout 60 podps --noheadings | awk '$1 == "p"'; }
field() { row | awk -v f="$1" '{ print $f }'; }
said() { timeout 60 podctl logs p | grep -q -- "$1"; }
both_up() { [ "$(timeout 60 podctl nodes --noheadings | awk '$2 == "up"' | wc -l)" = 2 ]; }
running() { both_up && [ "$(field 5)" = running ] && podps --json | python3 -c 'import json, sys; sys.exit(any(p["op"] for p in json.load(sys.stdin)))'; }
state() { [ "$(field 5)" = "$1" ]; }
absent() { both_up && [ -z "$(row)" ]; }
copies() { find "$LAB_CGROUP" -type d -path '*/podmigrate/p' 2>/dev/null | while read -r d; do
	[ "$(awk '$1 == "populated" { print $2 }' "$d/cgroup.events")" = 1 ] && echo "$d"; done | wc -l; }
one_copy() { [ "$(copies)" = 1 ]; }
no_copy() { [ "$(copies)" = 0 ]; }
# nor is anything left of one, or undecided
nothing_left() { no_copy && timeout 60 podctl recover | grep -q '^nothing is to be recovered'; }
image() { podctl image list --noheadings | awk '{ print $1 }' | tail -n 1; }
runs_well() {
	await running
	await one_copy
	local n
	n=$(podctl logs p | tail -n 1)
	await said "^$((n + 5))\$"
	podctl logs p | awk '$1 != NR - 1 { print "line " NR ": " $1; bad = 1 } END { exit bad || !NR }'
}
one_way_or_the_other() { running || { absent && [ "$(image)" ]; }; }
gone() { podctl kill -s KILL -a p; await absent; }

@test "--term: who dies, and when: the pod runs, or its image is whole" {
	for at in "nodeA agent-source@precopy" "nodeA agent-source@ready" "head coord@commit" "head coord@committed" \
		"nodeA agent-source@started" "nodeA agent-source@clean" "nodeA engine-source@commit" "nodeA engine-source@ready"; do
		echo "$at" >&3
		rm -f "$STORE"/*
		podrun -d -n p -N nodeA -- sh /home/shared/count
		await said '^5$'
		echo "${at#* }:kill" >"$LAB_DIR/faults/${at%% *}"
		run timeout 180 podctl checkpoint --term p
		start "$at"
		await one_way_or_the_other
		[ ! -s "$LAB_DIR/faults/${at%% *}" ] # it has happened
		if [ -z "$(row)" ]; then
			await nothing_left
			podctl image verify "$(image)"
			podctl restore "$(image)" -N nodeB
		fi
		runs_well
		gone
	done
}

@test "restart: who dies, and when: the pod runs once, or not at all and it can be done again" {
	podrun -d -n p -N nodeA -- sh /home/shared/count
	await said '^5$'
	rm -f "$STORE"/*
	podctl checkpoint --term p
	for at in "nodeB agent-target@reserve" "nodeB agent-target@ready" "nodeB agent-target@commit" "nodeB agent-target@start" \
		"nodeB agent-target@started" "head coord@reserve" "head coord@commit" "head coord@committed" "head coord@started"; do
		echo "$at" >&3
		echo "${at#* }:kill" >"$LAB_DIR/faults/${at%% *}"
		run timeout 180 podctl restore "$(image)" -N nodeB
		start "$at"
		settled() { running || { absent && nothing_left; }; }
		await settled
		[ ! -s "$LAB_DIR/faults/${at%% *}" ]
		if [ -z "$(row)" ]; then
			await nothing_left
			podctl restore "$(image)" -N nodeA
		fi
		runs_well
		gone
	done
}

@test "restart: one that is being undone is no other pod; when it is said to be over, it is" {
	echo coord@commit:kill >"$LAB_DIR/faults/head"
	echo agent-target@undo:delay=6000 >"$LAB_DIR/faults/nodeB"
	run timeout 180 podctl restore "$(image)" -N nodeB
	"$LAB" start head >/dev/null
	await test ! -s "$LAB_DIR/faults/nodeB"
	run podctl restore "$(image)" -N nodeA
	[ "$status" = 13 ]
	[[ $output == *": operation "*" holds pod 'p'; nothing was made"* ]]
	await nothing_left
	podctl restore "$(image)" -N nodeA
	runs_well
	gone
	echo engine-target@cut:fail >"$LAB_DIR/faults/nodeB"
	run podctl restore "$(image)" -N nodeB
	[ "$status" = 9 ]
	podctl restore "$(image)" -N nodeB # at once
	runs_well
	gone
}

@test "a program that ends while its pod is moved or checkpointed: nobody says that it runs as before" {
	for what in "podmigrate p nodeB" "podctl checkpoint p"; do
		rm -f "$LAB_SHARED/end"
		podrun -d -n p -N nodeA -- sh -c 'until [ -e /home/shared/end ]; do sleep 0.01; done; exit 3'
		echo engine-source@precopy:delay=3000 >"$LAB_DIR/faults/nodeA"
		$what >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
		await test ! -s "$LAB_DIR/faults/nodeA"
		touch "$LAB_SHARED/end"
		status=0
		wait $! || status=$?
		[ "$status" = 10 ]
		grep "pod 'p' has ended on 'nodeA'; \(nothing is left on 'nodeB'\|there is no new image\)$" "$BATS_TEST_TMPDIR/said"
		await absent
		podps -a | grep 'exited(3)'
	done
}

@test "restart on a node that dies: the image comes back elsewhere, at once" {
	echo "engine-target@cut:delay=3000" >"$LAB_DIR/faults/nodeB"
	timeout 180 podctl restore "$(image)" -N nodeB >/dev/null 2>&1 3>&- &
	restore=$!
	await test ! -s "$LAB_DIR/faults/nodeB"
	"$LAB" kill nodeB
	wait $restore || true
	run podctl restore "$(image)" -N nodeA
	[ "$status" = 0 ]
	n=$(podctl logs p | tail -n 1)
	await said "^$((n + 5))\$"
	"$LAB" reboot nodeB
	await both_up
	runs_well
	gone
}

@test "an agent that is slow at the end of a checkpoint: who was told of the end can ask for the next at once" {
	podrun -d -n p -N nodeA -- sh /home/shared/count
	await said '^5$'
	echo "engine-source@ready:delay=1500" >"$LAB_DIR/faults/nodeA"
	podctl checkpoint -R p >"$BATS_TEST_TMPDIR/first" 3>&- &
	local pid=$!
	# the coordinator is told so, too
	await state migrating
	echo "agent-source@goes-on:delay=1500" >"$LAB_DIR/faults/nodeA"
	wait "$pid"
	podctl checkpoint -R p
	[ ! -s "$LAB_DIR/faults/nodeA" ] # it has happened
	# what the target says meanwhile is not the answer
	echo "agent-source@goes-on:delay=1500" >"$LAB_DIR/faults/nodeA"
	podmigrate p nodeB --dry-run
	[ ! -s "$LAB_DIR/faults/nodeA" ]
	gone
}
