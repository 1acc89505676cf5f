#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# What podmigrate is asked for besides the move: a limit of bytes per second, of the freeze, of the time; what happens to a program
# that writes faster than can be sent.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up options --faults
	cp "$LAB_BIN/workload/bigmem" "$LAB_SHARED/"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() {
	is_root || return 0
	[ "$BATS_TEST_COMPLETED" ] || { podps -a; "$LAB" logs nodeA | tail -n 40; } >&2 || true
	rm -f "$LAB_DIR"/faults/*
	podctl kill -s KILL -a p >/dev/null 2>&1 || true
	await exited
}

field() { timeout 60 podps -a --noheadings | awk -v f="$1" '$1 == "p" { print $f }'; }
exited() { [[ $(field 5) == exited* ]]; }
said() { timeout 60 podctl logs p | grep -q -- "$1"; }
writes() { # MIB RATE: a program on nodeA
	podrun -d -n p -N nodeA -- /home/shared/bigmem "$1" "$2" >/dev/null
	await said ready
}
ends_well() {
	podctl kill p
	await exited
	[ "$(field 5)" = "exited(0)" ]
	podctl logs p | grep -qx ok
}
in_a() { "$LAB" exec nodeA -- "$@"; }
# it is in the fault's delay, its helper at work
slowed_down() { [ ! -s "$LAB_DIR/faults/nodeA" ] && [ "$(in_a pgrep -x pod-engine | wc -l)" = 2 ]; }
# dead ones wait for the agent
no_engine() { not in_a pgrep -r R,S,D -x pod-engine; }
result() { jq -s "last | .$1" <<<"$output"; }
# there and back: a machine may stand still in one try
quicker_than() { # NS [OPTIONS]
	local to=nodeB
	[ "$(field 3)" = nodeA ] || to=nodeA
	run --separate-stderr podmigrate p $to --json "${@:2}"
	[ "$status" = 0 ] && [ "$(result total_ns)" -lt "$1" ]
}
# more than any link of the lab's takes in its time: all of its memory, again and again
FAST="256 8000"

@test "--bandwidth: no faster while the pod runs" {
	writes 128 4
	run --separate-stderr podmigrate p nodeB --json --bandwidth 64M
	[ "$status" = 0 ]
	# 128 MiB and little more
	[ "$(result total_ns)" -gt 1900000000 ]
	# without it is quicker, if not each time
	await quicker_than 1900000000
	ends_well
}

@test "who writes faster than can be sent does not move, is slowed down for it, or is frozen for longer: as the user says" {
	writes $FAST
	run --separate-stderr podmigrate p nodeB --max-downtime 20 --bandwidth 400M
	[ "$status" = 11 ]
	[[ $stderr == *"precopy: did not converge: after "*"the limit is 20 ms; pod 'p' runs on 'nodeA' as before"* ]]
	run --separate-stderr podmigrate p nodeB --json --max-downtime 20 --bandwidth 400M --auto-converge
	[ "$status" = 0 ]
	"$LAB" logs nodeA | grep -q "p: stands still for 50 % of the time"
	run --separate-stderr podmigrate p nodeA --json --max-downtime 20 --bandwidth 400M --timeout 60 --timeout-action stop-copy
	[ "$status" = 0 ]
	[ "$(field 3)" = nodeA ]
	ends_well
}

@test "--timeout: the pod runs on, or is frozen for the rest" {
	writes 256 8
	run --separate-stderr podmigrate p nodeB --bandwidth 40M --timeout 2
	[ "$status" = 10 ]
	[[ $stderr == *"not done within 2 s; pod 'p' runs on 'nodeA' as before"* ]]
	# what could not be sent by the limit goes without it: 256 MiB would take 6.4 s
	await quicker_than 6000000000 --bandwidth 40M --timeout 2 --timeout-action stop-copy
	ends_well
}

@test "an engine that dies while it slows the pod down leaves it at its own speed, and its agent need not be there" {
	writes $FAST
	echo engine-source@throttle:delay=20000 >"$LAB_DIR/faults/nodeA"
	podmigrate p nodeB --max-downtime 20 --bandwidth 400M --auto-converge >"$BATS_TEST_TMPDIR/out" 2>&1 &
	await slowed_down
	in_a pkill -STOP -x podagent
	in_a pkill -KILL -o -x pod-engine
	await no_engine
	cgroup=$(find "$LAB_CGROUP" -type d -path '*/nodeA/*/p')
	frozen=$(cat "$cgroup/cgroup.freeze")
	in_a pkill -CONT -x podagent
	[ "$frozen" = 0 ]
	status=0
	wait $! || status=$?
	cat "$BATS_TEST_TMPDIR/out"
	[ "$status" != 0 ]
	grep -q "pod 'p' runs on 'nodeA' as before" "$BATS_TEST_TMPDIR/out"
	run podmigrate p nodeB
	[ "$status" = 0 ]
	ends_well
}

@test "op: what is under way is listed, waited for, and aborted by whom it belongs to; what is over is known" {
	writes 16 4
	echo engine-source@precopy:delay=8000 >"$LAB_DIR/faults/nodeA"
	id=$(podmigrate p nodeB --detach)
	[[ $id == m* ]]
	run podctl op list --noheadings
	[ "$status" = 0 ]
	[[ $(xargs <<<"$output") == "$id move p nodeA nodeB "* ]]
	[ "$(podctl op show "$id" --json | jq -r '.[0] | .pod + " " + .kind + " " + .user')" = "p move root" ]
	timeout 60 podctl op wait "$id" >"$BATS_TEST_TMPDIR/waited" &
	run setpriv --reuid 65534 --regid 65534 --clear-groups podctl op abort "$id"
	[ "$status" = 5 ]
	run podctl op abort "$id"
	[ "$status" = 0 ]
	[[ $output == "$id: move of pod 'p' is undone: aborted"* ]]
	status=0
	wait $! || status=$?
	[ "$status" = 10 ]
	[ "$(cat "$BATS_TEST_TMPDIR/waited")" = "$output" ]
	[ "$(field 3)" = nodeA ]
	[ -z "$(podctl op list --noheadings)" ]
	[[ $(podctl op show "$id" --noheadings) == *" undone "* ]]
	run podctl op wait "$id"
	[ "$status" = 10 ]
	run podctl op abort "$id"
	[ "$status" = 3 ]
	id=$(podmigrate p nodeB --detach)
	run timeout 60 podctl op wait "$id"
	[ "$status" = 0 ]
	[ "$output" = "$id: move of pod 'p' is done" ]
	[ "$(field 3)" = nodeB ]
	run podctl op show m0-none
	[ "$status" = 3 ]
	run podctl op
	[ "$status" = 2 ]
	ends_well
}
