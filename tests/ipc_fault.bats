#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Engines and their helpers that die, or give up, when they have looked at queues, semaphores and raw sockets: the program sees nothing of it,
# and the next move is a good one.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up ipcfault --faults
	cp "$LAB_BIN"/workload/{mqueue,sysvmsg,sysvsem,raw} "$LAB_SHARED"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() { [ "$BATS_TEST_COMPLETED" ] || { podps -a; podctl logs p; } >&2 || true; }
row() { timeout 60 podps --noheadings | awk '$1 == "p"'; }
said() { timeout 60 podctl logs p | grep -q -- "$1"; }
running() { [ "$(row | awk '{ print $5 }')" = running ] && podps --json | python3 -c 'import json, sys; sys.exit(any(p["op"] for p in json.load(sys.stdin)))'; }
absent() { [ -z "$(row)" ]; }
on_node() { row | grep -q "$1"; }
faults() { printf '%s\n' "$@" >"$LAB_DIR/faults/nodeA"; }
happened() { [ ! -s "$LAB_DIR/faults/nodeA" ]; }
begin() {
	podrun -d -n p -N nodeA -- "/home/shared/$1"
	await said '^ready$'
}
# It has come to no harm: it works for a while, here and after a move, and ends well
works() {
	await running
	not said FAIL
	run timeout 180 podmigrate p nodeB
	[ "$status" = 0 ]
	await on_node nodeB
	sleep 0.3 # its work, which is not to be awaited: it tells only what goes wrong
	podctl kill -s TERM -a p
	await said '^ok$'
	await absent
}

@test "the helper dies while it has the messages, or packets: the engine puts them back, and the move goes on" {
	for w in mqueue raw; do
		begin $w
		faults engine-source@taken:kill
		run timeout 180 podmigrate p nodeB
		[ "$status" = 0 ]
		happened
		await running
		not said FAIL
		run timeout 180 podmigrate p nodeA
		[ "$status" = 0 ]
		works
	done
}

@test "the engine dies while its helper has the messages, or packets: the helper puts them back before anybody runs" {
	for w in mqueue raw; do
		begin $w
		faults engine-source@taken:delay=500 engine-source@helped:kill
		run timeout 180 podmigrate p nodeB
		[ "$status" != 0 ]
		happened
		on_node nodeA
		works
	done
}

@test "an engine that gives up, or dies, after all was looked at leaves queues, semaphores and raw sockets as they were" {
	for w in mqueue sysvmsg sysvsem raw; do
		for action in fail kill; do
			echo "$w $action" >&3
			begin $w
			faults engine-source@ready:$action
			run timeout 180 podmigrate p nodeB
			[ "$status" != 0 ]
			happened
			on_node nodeA
			works
		done
	done
}
