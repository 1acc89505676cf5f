# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash
# For tests that need a lab: sourced by tests/move, tests/refused, tests/mutation and tests/real/*.
# They print TAP lines. A lab of their own is brought up and taken down, unless TEST_LAB names one.
export LC_ALL=C
. "$(dirname "${BASH_SOURCE[0]}")/await.bash"
top=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/..")
build=$(readlink -m "${B:-$top/build}")
lab=$top/deploy/lab/lab
out=
own_lab=

skip_all() {
	echo "ok ${0##*/} # skip $*"
	exit 0
}

finish() {
	local rc=$? jobs
	trap - EXIT
	trap '' INT TERM HUP
	jobs=$(jobs -rp)
	# shellcheck disable=SC2086
	[[ -z $jobs ]] || { kill $jobs; wait; } 2>/dev/null
	[[ -z $own_lab ]] || "$lab" down || rc=1
	[[ -z $out ]] || rm -rf "$out"
	exit "$rc"
}

# lab_up NAME [OPTIONS OF lab up]
lab_up() {
	local name=$1
	shift
	[[ $(id -u) == 0 ]] || skip_all "must be root"
	[[ -x $build/bin/podcoord ]] || { echo "not ok ${0##*/}: no programs in $build/bin"; exit 1; }
	out=$(mktemp -d) || exit 1
	cd / || exit 1 # a pod starts where podrun is called, if it has that directory: a checkout may be in /tmp
	trap finish EXIT
	trap 'exit 130' INT TERM HUP
	export LAB_NAME=${TEST_LAB:-$name$$}
	if [[ -z ${TEST_LAB-} ]]; then
		own_lab=1
		"$lab" up -n 2 --clients 1 --bin "$build/bin" "$@" >&2 ||
			{ echo "not ok ${0##*/}: the lab does not come up"; exit 1; }
	fi
	eval "$("$lab" env)"
	export LAB_NAME
	# where the programs are seen from within pods, whose /tmp is their own
	mkdir -p "$LAB_SHARED/bin" "$LAB_SHARED/data"
	chmod 1777 "$LAB_SHARED/data"
	cp -p "$build"/bin/workload/* "$LAB_SHARED/bin/" && cp -p "$build"/tests/* "$LAB_SHARED/bin/" 2>/dev/null
	bin=/home/shared/bin
	data=/home/shared/data
}

on() { local h=$1; shift; "$lab" exec "$h" -- "$@"; }

pod_log() { timeout 60 podctl logs "$1" 2>&1; }
pod_field() { timeout 60 podps -a --noheadings 2>/dev/null | awk -v p="$1" -v f="$2" '$1 == p { print $f }'; }
pod_node() { pod_field "$1" 3; }
pod_state() { pod_field "$1" 5; }
pod_ended() { [[ $(pod_state "$1") == exited* ]]; }
pod_said() { pod_log "$1" | grep -Eq "$2"; }

# pod_start NAME COMMAND...: detached on nodeA, waits for its "ready". Words of what went wrong on stdout.
pod_start() {
	local name=$1 said
	shift
	timeout 180 podrun -d -n "$name" -N nodeA ${POD_OPTIONS-} -- "$@" >"$out/$name.run" 2>&1 ||
		{ echo "podrun: exit code $?: $(tail -n 3 "$out/$name.run" | tr '\n' ' ')"; return 1; }
	await pod_said "$name" '^(ready|FAIL|skip)' ||
		{ echo "not ready: $(pod_log "$name" | tail -n 2 | tr '\n' ' ')"; return 1; }
	said=$(pod_log "$name" | grep -E '^(FAIL|skip)' | head -n 1)
	[[ -z $said ]] || { echo "$said"; return 1; }
}

# pod_is_on NAME NODE; else words of what podps says
pod_is_on() {
	local rows
	rows=$(timeout 60 podps -a --noheadings 2>&1)
	[[ $(awk -v p="$1" '$1 == p { print $3 }' <<<"$rows") == "$2" ]] || { echo "not on $2: podps says '$rows'"; return 1; }
}

# pod_move NAME NODE [OPTIONS]: exit code of podmigrate, or 124; its words in $out/NAME.moved
pod_move() {
	local name=$1 node=$2 rc
	shift 2
	timeout -k 5 180 podmigrate "$name" "$node" --progress none "$@" >"$out/$name.moved" 2>&1
	rc=$?
	((rc)) && return $rc
	pod_is_on "$name" "$node" >>"$out/$name.moved"
}

# pod_through_image NAME NODE: a checkpoint that it outlives, one that builds on that and ends it, a restart there. Exit
# codes as above.
pod_through_image() {
	local name=$1 node=$2 rc id first
	timeout -k 5 180 podctl checkpoint -R "$name" >"$out/$name.id" 2>"$out/$name.moved" || return
	first=$(<"$out/$name.id")
	timeout -k 5 180 podctl checkpoint --term "$name" >"$out/$name.id" 2>"$out/$name.moved" || return
	id=$(<"$out/$name.id")
	[[ -z $(pod_state "$name") ]] || { echo "after --term podps still sees $name" >>"$out/$name.moved"; return 1; }
	timeout -k 5 180 podctl restore "$id" -N "$node" >>"$out/$name.moved" 2>&1
	rc=$?
	rm -f "$LAB_SHARED"/images/*/{"$id","$first"}.img
	((rc)) && return $rc
	pod_is_on "$name" "$node" >>"$out/$name.moved"
}

# what podmigrate said, in a line
moved_words() { tr '\n' ' ' <"$out/$1.moved" | cut -c1-400; }
moved_frozen() { sed -nE 's/.*frozen ([0-9.]+ (us|ms|s))[,. ].*/\1/p' "$out/$1.moved" | head -n 1; }

# pod_finish NAME: SIGTERM, waits for "ok" and exit code 0. Words of what went wrong on stdout.
pod_finish() {
	local name=$1 state said
	timeout 60 podctl kill "$name" >"$out/$name.kill" 2>&1
	if ! await pod_ended "$name"; then
		said=$(pod_log "$name" | grep -v '^ready' | head -n 2 | tr '\n' ' ')
		echo "does not end: state $(pod_state "$name"), node $(pod_node "$name") $said"
		return 1
	fi
	state=$(pod_state "$name")
	said=$(pod_log "$name" | tail -n 1)
	[[ $state == "exited(0)" && $said == ok ]] && return 0
	said=$(pod_log "$name" | grep -m 1 '^FAIL' || echo "$said")
	echo "$state: ${said:-said nothing}"
	return 1
}

# nothing of the pod may stay
pod_remove() {
	[[ $(pod_state "$1") ]] && ! pod_ended "$1" || return 0
	timeout 60 podctl kill -s KILL -a "$1" >/dev/null 2>&1
	await pod_ended "$1"
}

# limit_jobs N: waits until fewer than N of our background jobs run
limit_jobs() {
	while (($(jobs -rp | wc -l) >= $1)); do wait -n 2>/dev/null || true; done
}

# goes NAME STEP...: a STEP is a node, NODE:--stop-copy or NODE:image; with work in between. Words in $why. On a machine that
# is busy with other things a program may write faster than its pages are sent: that it moves is what is asked here.
goes() {
	local name=$1 step node option rc
	shift
	for step; do
		node=${step%%:*}
		option=${step#"$node"}
		option=${option#:}
		sleep 0.5
		if [[ $option == image ]]; then
			pod_through_image "$name" "$node"
		else
			# shellcheck disable=SC2086
			pod_move "$name" "$node" ${option:---max-downtime 10000}
		fi
		rc=$?
		if ((rc)); then
			why="move to $node $option: exit code $rc: $(moved_words "$name")"
			return 1
		fi
		frozen+="${frozen:+,} $(moved_frozen "$name")"
	done
	sleep 0.5
}

there_and_back() { frozen=''; goes "$1" nodeB nodeA nodeB:--stop-copy nodeA; }
every_way() { frozen=''; goes "$1" nodeB nodeA:image nodeB:image nodeA:--stop-copy; }

# A 1 kHz ticker that is in no pod: what the machine itself does to such a program
machine_start() {
	"$LAB_SHARED/bin/ticker" >"$out/machine" 2>&1 &
	machine=$!
	await grep -qs ready "$out/machine"
}
# machine_gap: us by which its ticks have been late, at most, since the last call; in $gap
machine_gap() {
	local n
	n=$(wc -l <"$out/machine")
	kill -USR1 "$machine"
	# shellcheck disable=SC2016
	await sh -c '[ "$(wc -l <"$1")" -gt "$2" ]' sh "$out/machine" "$n" || { why="the machine's ticker does not answer"; return 1; }
	gap=$(awk 'END { print ($4 > 1000 ? $4 - 1000 : 0) }' "$out/machine")
}

# client_start WORDS CMD...: a client on client1 in the background; its output in $out/client
client_start() {
	"$lab" exec client1 -- "$@" >"$out/client" 2>"$out/client.err" &
	client=$!
	await grep -qs ready "$out/client" || { why="the client does not get through: $(cat "$out/client.err")"; return 1; }
}

client_end() {
	local rc
	kill -TERM "$client"
	wait "$client"
	rc=$?
	client_words=$(tail -n 1 "$out/client")
	((rc == 0)) || { why="the client ended with $rc: $client_words $(head -n 3 "$out/client.err" | tr '\n' ' ')"; return 1; }
	# it must have worked, else it has checked nothing
	[[ $client_words =~ \"(requests|received)\":\ *([0-9]+) ]] && ((BASH_REMATCH[2] > 100)) ||
		{ why="the client did nothing: $client_words"; return 1; }
}

# verdict NAME STATUS [WORDS]: the TAP line, and the end
verdict() {
	local bad=$2
	if ((bad)); then
		echo "not ok $1: ${why//$'\n'/; }"
		for h in nodeA nodeB head; do "$lab" logs "$h" 2>/dev/null | tail -n 8 | sed "s/^/# $h: /"; done
	else
		echo "ok $1 (frozen ${frozen# }${3:+; $3})"
	fi
	return "$bad"
}
