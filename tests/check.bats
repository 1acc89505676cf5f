#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# podctl check: all that is in the way of a pod is said, by process, object and hint; the program is not even woken.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up check --clients 1 --faults
	cp "$LAB_BIN/workload/refused" "$LAB_SHARED/"
	mkdir -m 1777 "$LAB_SHARED/data"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() {
	is_root || return 0
	end_jobs
	rm -f "$LAB_DIR"/faults/*
	podps --noheadings | while read -r pod _; do podctl kill -s KILL -a "$pod"; done || true
	await no_pods
}

no_pods() { [ -z "$(podps --noheadings)" ]; }
field() { podps -a --noheadings | awk -v p="$1" -v f="$2" '$1 == p { print $f }'; }
state_is() { [ "$(field "$1" 5)" = "$2" ]; }
said() { podctl logs "$1" | grep -q -- "$2"; }
as_user() { "$LAB" exec --user 1234 client1 -- "$@"; }
holds() { # POD KIND...: one process for each, of which the first is the command
	local pod=$1 kind script=
	for kind in "${@:3}"; do script+="/home/shared/refused $kind & "; done
	podrun -d -n "$pod" -N nodeA -- sh -c "$script exec /home/shared/refused $2" >/dev/null
	await ready "$pod" $(($# - 1))
}
ready() { [ "$(podctl logs "$1" | grep -c '^ready')" = "$2" ]; }
runs_on() { # POD: as its workload sees it: nothing has gone wrong in it, and it can still be ended
	podctl kill "$1"
	await state_is "$1" "exited(0)"
	said "$1" '^ok$'
}
# how often each thread of the processes called $2 in pod $1 on nodeA has gone to sleep: once more if it was stopped or frozen
sleeps() {
	local pid
	for pid in $(cat "$LAB_CGROUP/nodeA/podmigrate/$1/cgroup.procs"); do
		[ "$(<"/proc/$pid/comm")" = "$2" ] || continue
		grep -h ctxt_switches "/proc/$pid"/task/*/status
	done
}
json() { python3 -c "import json, sys; j = json.load(sys.stdin); $1"; }

@test "a pod in whose way nothing is: 0, and nobody in it was woken; a checkpoint wakes it" {
	podrun -d -n clean -N nodeA -- sleep 1000 >/dev/null
	before=$(sleeps clean sleep)
	[ -n "$before" ]
	run -0 podctl check clean
	[ "$output" = "clean: nodeA: nothing is in the way of a move or a checkpoint" ]
	run -0 podctl check clean --to nodeB
	[ "$output" = "clean: nodeA -> nodeB: nothing is in the way" ]
	podctl check clean --json --to nodeB | json '
assert j["ok"] and j["exit_code"] == 0 and j["nodes"] == [], j
assert j["pods"] == [{"pod": "clean", "node": "nodeA", "to": "nodeB", "ok": True, "error": None, "refusals": [], "unlisted": 0}], j'
	[ "$(sleeps clean sleep)" = "$before" ]
	podctl checkpoint clean
	[ "$(sleeps clean sleep)" != "$before" ]
	[ "$(field clean 3)" = nodeA ]
	state_is clean running
}

@test "what is in the way is named, all of it; the program goes on" {
	holds two io_uring packet
	run -6 podctl check two
	[[ $output == "two: nodeA: 2 things are in the way"$'\n'* ]]
	[[ $output == *"pid "*" (refused): fd "*" is an io_uring: cannot be carried"* ]]
	[[ $output == *"pid "*" (refused): fd "*" a packet socket with a ring"*"hint: let the program close it"* ]]
	run -6 --separate-stderr podctl check two --json
	[ -z "$stderr" ]
	json '
r = j["pods"][0]["refusals"]
assert not j["ok"] and j["exit_code"] == 6 and len(r) == 2, j
assert sorted(x["reason"] for x in r) == ["io_uring", "packet"], r
assert all(x["program"] == "refused" and x["pid"] > 1 and x["fd"] >= 3 and x["hint"] and x["where"] == "pod" for x in r), r' <<<"$output"
	# so does the check of a move
	run -6 podmigrate two nodeB --dry-run
	[[ $output == *"is an io_uring"*"a packet socket with a ring"* ]]
	runs_on two
}

@test "several things of one process; what would end a move only later" {
	podrun -d -n late -N nodeA -- /home/shared/refused needs unread: unaccepted: node: >/dev/null
	await ready late 1
	run -6 podctl check late
	[[ $output == *"late: nodeA: 3 things are in the way"* ]]
	[[ $output == *"is an inotify instance with events that the program does not read"* ]]
	[[ $output == *"accept queue holds data that the program does not take"* ]]
	[[ $output == *"'/tmp/wl-node' is a device file in the pod's private tmpfs"* ]]
	runs_on late
}

@test "very many things: the first are listed, the rest is counted" {
	podrun -d -n many -N nodeA -- /home/shared/refused needs pidfds:600 >/dev/null
	await ready many 1
	run -6 podctl check many
	[[ ${lines[0]} == "many: nodeA: 600 things are in the way" ]]
	[ "$(grep -c 'is a pidfd' <<<"$output")" = 512 ]
	[ "${lines[-1]}" = "  and 88 more" ]
	podctl check many --json | json 'p = j["pods"][0]; assert len(p["refusals"]) == 512 and p["unlisted"] == 88, p'
	run -6 podmigrate many nodeB
	[[ $output == *"(and 599 more)"* ]]
	runs_on many
}

@test "a name that is no text is in the JSON all the same" {
	name=$'/tmp/\xed\xa0\x80\xf4\x90\x80\x80' # a surrogate, and a character behind the last
	podrun -d -n odd -N nodeA -- sh -c "cp /home/shared/refused '$name' && exec '$name' io_uring" >/dev/null
	await ready odd 1
	run -6 podctl check odd
	[[ $output == *"(???????): fd "*" is an io_uring"* ]]
	podctl check odd --json | json '
r = j["pods"][0]["refusals"]
assert len(r) == 1 and r[0]["program"] == "???????" and r[0]["reason"] == "io_uring", j'
	runs_on odd
}

@test "--to: what the target lacks is said with the rest" {
	"$LAB" exec nodeA -- sh -c 'echo text >/opt/check-file'
	podrun -d -n far -N nodeA -- /home/shared/refused needs open:/opt/check-file >/dev/null
	await ready far 1
	run -0 podctl check far
	run -6 podctl check far --to nodeB
	[[ $output == *"far: nodeA -> nodeB: 1 thing is in the way"* ]]
	[[ $output == *"fd "*" is '/opt/check-file', which the target does not have"*"hint: install or mount it there"* ]]
	podctl exec -T far sh -c '/home/shared/refused io_uring >/dev/null 2>&1 &'
	await check_says far io_uring
	podctl check far --to nodeB --json | json '
assert sorted((r["where"], r["reason"]) for r in j["pods"][0]["refusals"]) == [("pod", "io_uring"), ("target", "file-missing")], j'
	[ "$(field far 3)" = nodeA ]
}
check_says() { podctl check "$1" | grep -q "$2"; }

@test "the pods of a job, one after the other; a name that is both is not guessed" {
	for p in j1 j2; do podrun -d -j J -n $p -N nodeA -- sleep 1000 >/dev/null; done
	run -0 podctl check J
	[ "${#lines[@]}" = 2 ]
	podrun -d -j J -n j3 -N nodeB -- /home/shared/refused io_uring >/dev/null
	await said j3 ready
	run -6 podctl check J
	[[ $output == *"j1: nodeA: nothing"*"j2: nodeA: nothing"*"j3: nodeB: 1 thing is in the way"* ]]
	podctl check J --json | json 'assert [p["ok"] for p in j["pods"]] == [True, True, False], j'
	podrun -d -n J -N nodeA -- sleep 1000 >/dev/null
	run -2 podctl check J
	[[ $output == *"is a pod and a job"* ]]
}

@test "another user's pod is 5; no such pod 3; wrong usage 2; one that is busy 13, with its state" {
	podrun -d -n roots -N nodeA -- sleep 1000 >/dev/null
	run -5 as_user podctl check roots
	[[ $output == *"pod 'roots' belongs to user 'root'"* ]]
	run -5 --separate-stderr as_user podctl check roots --json
	json 'assert j["pods"][0]["error"]["exit_code"] == 5 and not j["pods"][0]["ok"], j' <<<"$output"
	as_user podrun -d -n users -N nodeA -- sleep 1000
	run -0 as_user podctl check users
	run -0 podctl check users
	run -3 podctl check nosuch
	run -3 podctl check roots --to nowhere
	run -2 podctl check roots users
	run -2 podctl check --to nodeB
	run -2 podctl check --bogus roots
	run -2 podctl check roots --to
	podctl kill -s KILL users
	await state_is users "exited(137)"
	run -3 podctl check users
	[[ $output == *"has exited with code 137"* ]]
	echo engine-source@precopy:delay=50000 >"$LAB_DIR/faults/nodeA" # longer than the two questions, and then ended
	podmigrate roots nodeB --max-downtime 60000 >&2 &
	await state_is roots migrating
	run -13 podctl check roots
	[[ $output == *"operation m"*" holds pod 'roots'"* ]]
	run -13 podctl check roots --to nodeB
	[[ $output == *"cannot be moved now: it is migrating, or being checkpointed (operation m"* ]]
	kill $!
	not wait $!
	await state_is roots running
	run -0 podctl check roots
}

@test "a node: what is there, what is missing, what does not answer" {
	run -0 podctl check nodeA
	[[ $output == "nodeA: pods can run here, and come and go"*"userfaultfd"*"nftables"*"of room for images in"* ]]
	run -0 podctl check
	[[ $output == *"nodeA: "*"nodeB: "* ]]
	podctl check nodeB --json | json '
assert j["ok"] and j["pods"] == [] and [n["node"] for n in j["nodes"]] == ["nodeB"], j
assert all(set(f) == {"name", "ok", "needed", "text"} for f in j["nodes"][0]["findings"]), j'
	run -0 as_user podctl check nodeA
	# nothing is left of the trial of the filter
	run -0 "$LAB" exec nodeA -- nft list tables
	[ -z "$output" ]
	echo agent@means:nftables >"$LAB_DIR/faults/nodeA"
	run -6 podctl check
	[[ $output == *"nodeA: pods cannot be moved from or to here"*"MISSING  nftables"*"nodeB: pods can run here"* ]]
	echo agent@means:memory >"$LAB_DIR/faults/nodeA"
	run -0 podctl check nodeA
	[[ $output == *"warning  memory "* ]]
	# who asks while it is looked at gets the same answer: no second thread
	printf '%s\n' agent@means:memory agent@check:delay=5000 >"$LAB_DIR/faults/nodeA"
	as_user podctl check nodeA >"$BATS_TEST_TMPDIR/first" &
	await not grep -q . "$LAB_DIR/faults/nodeA"
	run -0 podctl check nodeA
	[[ $output == *"warning  memory "* ]]
	wait $!
	grep -q 'warning  memory ' "$BATS_TEST_TMPDIR/first"
	run -0 podctl check nodeA
	[[ $output != *"warning  memory "* ]]
	"$LAB" stop nodeB podagent --kill
	await node_is_down nodeB
	run -4 podctl check nodeB
	run -4 podctl check
	[[ $output == *"nodeA: pods can run"* ]]
	"$LAB" start nodeB podagent
	await not node_is_down nodeB
}
node_is_down() { podctl nodes --noheadings | grep -q "^$1 .*down"; }
