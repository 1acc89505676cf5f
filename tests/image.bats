#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# Checkpoints and restarts as their user sees them: podctl checkpoint, restore, image.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up image --faults
	export STORE=$LAB_SHARED/images
	mkdir -m 1777 "$LAB_SHARED/data"
	cat >"$LAB_SHARED/count" <<-'END'
		i=0
		while :; do echo $i; i=$((i + 1)); sleep 0.02; done # a pace: the numbers tell how far it has got
	END
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

field() { podps -a --noheadings | awk -v p="$1" -v f="$2" '$1 == p { print $f }'; }
state_is() { [ "$(field "$1" 5)" = "$2" ]; }
said() { podctl logs "$1" | grep -q -- "$2"; }
as_user() { "$LAB" exec --user 1234 client1 -- "$@"; }
counts() { podrun -d -n "$1" -N nodeA -- sh /home/shared/count >/dev/null && await said "$1" '^5$'; }
goes_on() {
	local n
	n=$(podctl logs "$1" | tail -n 1)
	await said "$1" "^$((n + 5))\$"
}
unbroken() { podctl logs "$1" | awk '$1 != NR - 1 { print "line " NR ": " $1; bad = 1 } END { exit bad || !NR }'; }
gone() { podctl kill -s KILL -a "$1"; await state_is "$1" "exited(137)"; }
nothing_of() { # POD NODE
	[ -d "$LAB_CGROUP/$2" ] && [ ! -d "$LAB_CGROUP/$2/podmigrate/$1" ] &&
		"$LAB" exec "$2" -- sh -c '! grep -q "/pods/$1/" /proc/self/mountinfo' sh "$1"
}

@test "checkpoint prints the image's id alone; the pod goes on; the image is the user's, whole, and listed" {
	counts keep
	run --separate-stderr podctl checkpoint keep
	[ "$status" = 0 ]
	[ "${#lines[@]}" = 1 ]
	id=$output
	[[ $id == keep.* ]]
	[[ $stderr == *"frozen"*"written"* ]]
	goes_on keep
	unbroken keep
	[ "$(stat -c '%a %u' "$STORE/root/$id.img")" = "600 0" ]
	run podctl image verify "$id"
	[ "$status" = 0 ]
	podctl image list | grep -Eq "^$id +keep +nodeA +root"
	podctl image list --json | python3 -c 'import json, sys; l = json.load(sys.stdin); assert any(i["id"] == sys.argv[1] and not i["ended"] for i in l)' "$id"
	run podctl inspect "$id"
	[ "$status" = 0 ]
	[[ $output == *"pod      keep of user root"*"1 podinit"*"sh  uid 0, 1 thread"* ]]
	podctl inspect "$id" --files | grep -Eq '^[0-9]+ 1 w pipe:'
	podctl inspect "$id" --maps | grep -Eq ' r-xp /.*dash$'
	podctl inspect "$id" --json --files | python3 -c '
import json, sys
i = json.load(sys.stdin)
assert i["pod"] == "keep" and any(p["comm"] == "sh" and p["fds"] for p in i["processes"])'
	# it lives: there must not be a second one
	run podctl restore "$id"
	[ "$status" = 13 ]
	[[ $output == *"lives on node 'nodeA'"* ]]
	goes_on keep
	gone keep
	# and it can come back when the first is dead
	run podctl restore "$id" -N nodeB
	[ "$status" = 0 ]
	[ "$(field keep 3)" = nodeB ]
	goes_on keep
	unbroken keep
	gone keep
}

@test "--term ends the pod with its image; a restart goes on from there, more than once" {
	counts once
	run --separate-stderr podctl checkpoint --term once
	[ "$status" = 0 ]
	id=$output
	[ -z "$(field once 3)" ]
	nothing_of once nodeA
	run podctl restore "$id" -N nodeB
	[ "$status" = 0 ]
	goes_on once
	unbroken once
	gone once
	run podctl restore "$id" -N nodeA -n twice
	[ "$status" = 0 ]
	goes_on twice
	unbroken twice
	# its address is in use now, and said so
	run podctl restore "$id" -N nodeB
	[ "$status" = 13 ]
	[[ $output == *", which the image's pod had, is that of pod '"*"' on node '"* ]]
	gone twice
}

@test "a restart can be tried without being made" {
	counts dry
	id=$(podctl checkpoint --term dry)
	run podctl restore "$id" -N nodeB --dry-run
	[ "$status" = 0 ]
	[[ $output == *"can be restored on nodeB; nothing was made"* ]]
	await nothing_of dry nodeB
	[ -z "$(field dry 3)" ]
	run podctl restore "$id" -N nodeB
	[ "$status" = 0 ]
	gone dry
}

@test "what was open when the image was begun, and is no more at the cut, is not asked for" {
	cat >"$LAB_SHARED/brief" <<-'END'
		mkdir -p /home/shared/data/brief && cd /home/shared/data || exit 1
		for ((i = 0; ; i++)); do
			echo $i >brief/$i
			exec 3<brief/$i
			for ((k = 0; k < 300; k++)); do :; done
			exec 3<&-
			rm brief/$i
			((i % 100)) || echo $((i / 100))
		done
	END
	podrun -d -n brief -N nodeA -- bash /home/shared/brief
	await said brief '^3$'
	for node in nodeB nodeA nodeB; do
		id=$(podctl checkpoint --term brief)
		run podctl restore "$id" -N $node
		echo "$output"
		[ "$status" = 0 ]
		n=$(podctl logs brief | tail -n 1)
		await said brief "^$((n + 2))\$"
	done
	unbroken brief
	gone brief
}

@test "what does not exist is said" {
	run podctl checkpoint nobody
	[ "$status" = 3 ]
	run podctl restore nobody.1
	[ "$status" = 3 ]
	run podctl restore /nowhere/x.img
	[ "$status" = 3 ]
	run podctl image verify nobody.1
	[ "$status" = 3 ]
	counts here
	id=$(podctl checkpoint --term here)
	run podctl restore "$id" -N nowhere
	[ "$status" = 3 ]
	[[ $output == *"there is no node 'nowhere'"* ]]
	run podctl restore /etc/passwd
	[ "$status" = 15 ]
	run podctl checkpoint
	[ "$status" = 2 ]
	run podctl checkpoint here --term -R
	[ "$status" = 2 ]
}

@test "-o: a file, replaced as a whole; a directory; neither leaves anything when it cannot be written" {
	counts out
	cd "$LAB_SHARED/data"
	"$LAB" exec nodeA -- mkdir -p /home/shared/data/dir
	echo old >"$LAB_SHARED/data/file.img"
	run --separate-stderr podctl checkpoint out -o /home/shared/data/file.img
	[ "$status" = 0 ]
	[ "$output" = /home/shared/data/file.img ]
	podctl image verify "$LAB_SHARED/data/file.img"
	run podctl checkpoint out -o /home/shared/data/dir/
	[ "$status" = 0 ]
	[ "$(ls "$LAB_SHARED/data/dir" | wc -l)" = 1 ]
	run podctl checkpoint out -o /nowhere/x.img
	[ "$status" = 7 ]
	[[ $output == *"/nowhere"*"runs on 'nodeA' as before; there is no new image"* ]]
	"$LAB" exec nodeA -- sh -c 'mkdir /mnt/small && mount -t tmpfs -o size=32k none /mnt/small'
	run podctl checkpoint out -o /mnt/small/x.img
	[ "$status" = 7 ]
	[[ $output == *"No space left on device"*"as before"* ]]
	[ -z "$("$LAB" exec nodeA -- ls -A /mnt/small)" ]
	goes_on out
	unbroken out
	gone out
}

@test "a damaged image is refused with 15, and nothing is left" {
	counts whole
	id=$(podctl checkpoint --term whole)
	img=$STORE/root/$id.img
	size=$(stat -c %s "$img")
	bad=$LAB_SHARED/data/bad.img
	for cut in 0 100 $((size / 2)) $((size - 1)); do
		head -c "$cut" "$img" >"$bad"
		run podctl restore "$bad"
		[ "$status" = 15 ]
		run podctl image verify "$bad"
		[ "$status" = 15 ]
	done
	cp "$img" "$bad"
	# in the middle of the pages: the index knows nothing of it
	printf '\377\376' | dd of="$bad" bs=1 seek=$((size / 2)) conv=notrunc status=none
	run podctl image verify "$bad"
	[ "$status" = 15 ]
	run podctl restore /home/shared/data/bad.img -N nodeB
	[ "$status" = 3 ] # the client looks, too, and sees another tree
	run "$LAB" exec nodeB -- podctl restore /home/shared/data/bad.img -N nodeB
	[ "$status" = 15 ]
	[[ $output == *"the image is as it was; nothing is left on 'nodeB'"* ]]
	await nothing_of whole nodeB
	podctl restore "$id"
	goes_on whole
	gone whole
}

@test "files that were written since: what was only appended is cut back, what else was changed is refused" {
	cat >"$LAB_SHARED/data/files.py" <<-'END'
		import os, sys, time
		log = os.open("/home/shared/data/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
		fixed = os.open("/home/shared/data/fixed", os.O_RDWR | os.O_CREAT, 0o644)
		os.pwrite(fixed, b"x" * 100, 0)
		n = 0
		while True:
		    os.write(log, b"%d\n" % n)
		    n += 1
		    if n == 3:
		        print("three", flush=True)
		    time.sleep(0.02)
	END
	podrun -d -n files -N nodeA -- python3 /home/shared/data/files.py
	await said files three
	id=$(podctl checkpoint files)
	had=$(wc -l <"$LAB_SHARED/data/log")
	grows() { [ "$(wc -l <"$LAB_SHARED/data/log")" -gt "$((had + 3))" ]; }
	await grows
	gone files
	had=$(wc -l <"$LAB_SHARED/data/log")
	run podctl restore "$id" -N nodeB
	echo "$output"
	[ "$status" = 0 ]
	[[ $output == *"'/home/shared/data/log' was cut back"* ]]
	await grows
	awk '$1 != NR - 1 { exit 1 }' "$LAB_SHARED/data/log"
	gone files
	before=$(md5sum <"$LAB_SHARED/data/log")
	printf y | dd of="$LAB_SHARED/data/fixed" bs=1 seek=50 conv=notrunc status=none
	run podctl restore "$id" -N nodeB
	[ "$status" = 9 ]
	[[ $output == *"'/home/shared/data/fixed' was written after the image was made"* ]]
	[[ $output == *"--force=files"* ]]
	[ "$(md5sum <"$LAB_SHARED/data/log")" = "$before" ]
	run podctl restore "$id" -N nodeB --force=files
	[ "$status" = 0 ]
	gone files
}

@test "TCP: within the pod kept, to the outside closed with a reset, and listed" {
	cat >"$LAB_SHARED/data/peer.py" <<-'END'
		import socket
		s = socket.create_server(("", 7000))
		c = s.accept()[0]
		while c.recv(100):
		    pass
	END
	cat >"$LAB_SHARED/data/tcp.py" <<-'END'
		import socket, sys, time
		out = socket.create_connection((sys.argv[1], 7000))
		l = socket.create_server(("127.0.0.1", 0))
		a = socket.create_connection(l.getsockname())
		b = l.accept()[0]
		print("ready", flush=True)
		n = 0
		while True:
		    a.sendall(b"%08d" % n)
		    assert b.recv(8, socket.MSG_WAITALL) == b"%08d" % n
		    n += 1
		    time.sleep(0.01)
		    try:
		        out.sendall(b"x")
		    except ConnectionResetError:
		        print("reset", flush=True)
		        break
		for n in range(n, n + 20):
		    a.sendall(b"%08d" % n)
		    assert b.recv(8, socket.MSG_WAITALL) == b"%08d" % n
		print("done", flush=True)
	END
	ip=$("$LAB" exec client1 -- sh -c 'hostname -i 2>/dev/null || getent hosts client1' | awk '{ print $1 }')
	[ "$ip" ]
	"$LAB" exec client1 -- python3 /home/shared/data/peer.py 3>&- &
	podrun -d -n net -N nodeA -- sh -c "until python3 /home/shared/data/tcp.py $ip; do sleep 0.1; done"
	await said net ready
	id=$(podctl checkpoint net)
	not said net reset
	podctl checkpoint --term net >"$BATS_TEST_TMPDIR/id"
	run podctl restore "$(cat "$BATS_TEST_TMPDIR/id")" -N nodeB
	[ "$status" = 0 ]
	[[ $output == *"the connection with $ip port 7000 is closed with a reset"* ]]
	await said net reset
	await said net '^done'
	await state_is net "exited(0)"
	kill %1 2>/dev/null || true
	wait
}

@test "a user's images are the user's own; root may restore them, as that user" {
	as_user podrun -d -n mine -N nodeA -- sh /home/shared/count
	await said mine '^5$'
	id=$(as_user podctl checkpoint --term mine)
	img=$(echo "$STORE"/*/"$id.img")
	[ "$(stat -c '%a %u' "$img")" = "600 1234" ]
	[ "$(stat -c '%a %u' "$(dirname "$img")")" = "700 1234" ]
	as_user podctl image list | grep -q "^$id "
	run podctl restore "$id" -N nodeB
	[ "$status" = 0 ]
	[ "$(podctl exec -T mine id -u)" = 1234 ]
	goes_on mine
	gone mine
	# not somebody else's, by id or by path
	run "$LAB" exec --user 1235 client1 -- podctl restore "$id"
	[ "$status" = 3 ]
	run "$LAB" exec --user 1235 client1 -- podctl restore "/home/shared/images/${img#"$STORE"/}"
	[ "$status" != 0 ]
	# not where the user may not write
	as_user podrun -d -n mine2 -N nodeA -- sh /home/shared/count
	await said mine2 '^5$'
	run as_user podctl checkpoint mine2 -o /etc/x.img
	[ "$status" = 7 ]
	[[ $output == *"Permission denied"* ]]
	run "$LAB" exec --user 1235 client1 -- podctl checkpoint mine2
	[ "$status" = 5 ]
	goes_on mine2
	gone mine2
	# root's image, handed to a user, makes no root
	counts roots
	rid=$(podctl checkpoint --term roots)
	cp "$STORE/root/$rid.img" "$LAB_SHARED/data/stolen.img"
	chown 1234 "$LAB_SHARED/data/stolen.img"
	run as_user podctl restore /home/shared/data/stolen.img -N nodeB
	[ "$status" != 0 ]
	[ -z "$(field roots 3)" ]
	await nothing_of roots nodeB
}

@test "whoever dies during a checkpoint, the pod runs on and there is no half image" {
	counts tough
	for stage in check reserve precopy quiesce cut save; do
		echo "engine-source@$stage:kill" >"$LAB_DIR/faults/nodeA"
		run timeout 180 podctl checkpoint tough
		[ "$status" = 7 ]
		[[ $output == *"runs on 'nodeA' as before"* ]]
		await state_is tough running
		goes_on tough
		[ -z "$(find "$STORE" \( -name 'tough*' -o -name '.tough*' \))" ]
	done
	id=$(podctl checkpoint tough)
	podctl image verify "$id"
	unbroken tough
	gone tough
	for stage in check reserve precopy cut ready; do
		echo "engine-target@$stage:kill" >"$LAB_DIR/faults/nodeB"
		run timeout 180 podctl restore "$id" -N nodeB
		[ "$status" = 9 ]
		await nothing_of tough nodeB
	done
	podctl restore "$id" -N nodeB
	goes_on tough
	gone tough
}

@test "images build on one another by themselves: an increment is small, a restart needs no word of it, a move in between changes nothing" {
	cat >"$LAB_SHARED/data/blocks.py" <<-'END'
	import hashlib, time
	block = [hashlib.sha256(b"%d" % i).digest() * 128 for i in range(8192)]
	n = 0
	while True:
	    print(n, flush=True)
	    n += 1
	    if n % 20 == 0:
	        for i in range(8192):
	            assert block[i] == hashlib.sha256(b"%d" % i).digest() * 128
	    time.sleep(0.02)
	END
	podrun -d -n inc -N nodeA -- python3 /home/shared/data/blocks.py
	await said inc '^5$'
	first=$(podctl checkpoint --compress none inc)
	second=$(podctl checkpoint inc)
	podmigrate inc nodeB --progress none
	third=$(podctl checkpoint inc)
	size() { stat -c %s "$STORE/root/$1.img"; }
	[ "$(size "$first")" -gt 33554432 ]
	[ "$(size "$second")" -lt 3000000 ]
	[ "$(size "$third")" -lt 3000000 ]
	podctl image list --noheadings | grep -Eq "^$third .* $second\$"
	run podctl image verify "$third"
	[[ $output == *"3 images" ]]
	# what an image builds on is not removed under it
	run podctl image rm "$first"
	[ "$status" = 13 ]
	run podctl image prune inc
	[ "$status" = 0 ]
	[ -z "$output" ]
	full=$(podctl checkpoint --full --compress none inc)
	[ "$(size "$full")" -gt 33554432 ]
	fourth=$(podctl checkpoint --term inc)
	run podctl restore "$third" -N nodeA
	[ "$status" = 0 ]
	goes_on inc
	gone inc
	run podctl restore "$fourth" -N nodeB
	[ "$status" = 0 ]
	goes_on inc
	unbroken inc
	gone inc
	# damage in an older image is seen by all that build on it
	cp "$STORE/root/$full.img" "$BATS_TEST_TMPDIR/full"
	printf '\377\376\375\374' | dd of="$STORE/root/$full.img" bs=1 seek=20000000 conv=notrunc status=none
	run podctl restore "$fourth" -N nodeB
	[ "$status" = 15 ]
	await nothing_of inc nodeB
	rm "$STORE/root/$full.img"
	run podctl restore "$fourth" -N nodeB
	[ "$status" = 15 ]
	[[ $output == *"builds on, is not there"* ]]
	cp "$BATS_TEST_TMPDIR/full" "$STORE/root/$full.img"
	podctl restore "$fourth" -N nodeB
	goes_on inc
	run podctl image prune inc
	[ "$status" = 0 ]
	[ "$(sort <<<"$output")" = "$(printf '%s\n' "$first" "$second" "$third" | sort)" ]
	[ "$(podctl image list --noheadings | grep -c '^inc')" = 2 ]
	podctl checkpoint --full --keep 1 inc
	[ "$(podctl image list --noheadings | grep -c '^inc')" = 1 ]
	gone inc
}

@test "what is newer is told by time, not by number: the image just made is never pruned, nor is its number taken" {
	counts back
	first=$(podctl checkpoint back)
	# as if a coordinator had lost its journal, and counted from 1 again
	cp -p "$STORE/root/$first.img" "$STORE/root/back.900000.img"
	next=back.$((${first##*.} + 1))
	cp -p "$STORE/root/$first.img" "$STORE/root/$next.img"
	run --separate-stderr podctl checkpoint --keep 1 back
	[ "$status" = 0 ]
	second=$output
	[ "$second" = "back.$((${first##*.} + 2))" ]
	[ "$(ls "$STORE/root" | grep '^back\.' | sort | xargs)" = "$(printf '%s\n' "$first.img" "$second.img" | sort | xargs)" ]
	cp -p "$STORE/root/$first.img" "$STORE/root/back.900000.img"
	# an image that goes by its number to a directory takes no other's place, either
	mkdir "$LAB_SHARED/data/numbers"
	one=$(podctl checkpoint back -o "/home/shared/data/numbers/")
	n=${one%.img} n=${n##*.}
	echo mine >"$LAB_SHARED/data/numbers/back.$((n + 1)).img"
	run --separate-stderr podctl checkpoint back -o "/home/shared/data/numbers/"
	[ "$status" = 0 ]
	[ "$output" = "/home/shared/data/numbers/back.$((n + 2)).img" ]
	[ "$(cat "$LAB_SHARED/data/numbers/back.$((n + 1)).img")" = mine ]
	podctl image verify "$LAB_SHARED/data/numbers/back.$((n + 2)).img"
	last=$(podctl checkpoint --term --full --keep 1 back)
	only() { [ "$(ls "$STORE/root" | grep '^back\.')" = "$last.img" ]; }
	await only
	podctl restore "$last" -N nodeB
	goes_on back
	unbroken back
	gone back
}

@test "a pod's images are pruned for images of its own alone, and not at all when one cannot be read" {
	counts twin
	old=$(podctl checkpoint --term twin)
	counts twin # another one, of the same name
	first=$(podctl checkpoint --full twin)
	second=$(podctl checkpoint --full --keep 1 twin)
	[ -e "$STORE/root/$old.img" ]
	[ ! -e "$STORE/root/$first.img" ]
	[ -e "$STORE/root/$second.img" ]
	# its pages are not those of the first one's image, either
	run podctl image verify "$second"
	[[ $output == *"1 image" ]]
	mv "$STORE/root/$old.img" "$BATS_TEST_TMPDIR/old"
	head -c 1000 "$BATS_TEST_TMPDIR/old" >"$STORE/root/$old.img"
	third=$(podctl checkpoint --full --keep 1 twin)
	[ -e "$STORE/root/$old.img" ]
	[ -e "$STORE/root/$second.img" ]
	run podctl image prune twin
	[[ $output == *"$old.img"*"no image of 'twin' is removed"* ]]
	[ -e "$STORE/root/$second.img" ]
	cp "$BATS_TEST_TMPDIR/old" "$STORE/root/$old.img"
	run podctl image prune twin
	[ "$status" = 0 ]
	[ "$output" = "$second" ]
	gone twin
	podctl restore "$old" -N nodeB
	goes_on twin
	gone twin
	podctl restore "$third" -N nodeB
	goes_on twin
	gone twin
}

@test "--term builds on nothing that is damaged; an image of a pod that runs on after all goes" {
	counts sure
	first=$(podctl checkpoint sure)
	size=$(stat -c %s "$STORE/root/$first.img")
	printf '\377\376\375\374' | dd of="$STORE/root/$first.img" bs=1 seek=$((size / 2)) conv=notrunc status=none
	run podctl image verify "$first"
	[ "$status" = 15 ]
	echo "agent-source@ready:fail" >"$LAB_DIR/faults/nodeA"
	run podctl checkpoint --term sure
	[ "$status" != 0 ]
	[[ $output == *"runs on"*"as before"* ]]
	await state_is sure running
	goes_on sure
	[ "$(ls -A "$STORE/root" | grep sure)" = "$first.img" ]
	last=$(podctl checkpoint --term sure)
	run podctl image verify "$last"
	[ "$status" = 0 ]
	[[ $output == *"1 image" ]]
	podctl restore "$last" -N nodeB
	goes_on sure
	unbroken sure
	gone sure
}

@test "podrun -i: images by themselves, the newest are kept, each can be restarted from" {
	podrun -d -n often -i 1 --keep 2 -N nodeA -- sh /home/shared/count
	await said often '^5$'
	newest() { podctl image list --noheadings | awk '$2 == "often" { print $1 }' | tail -n 1; }
	number() { echo "${1##*.}"; }
	later() { [ "$(newest)" ] && [ "$(number "$(newest)")" -gt "$1" ]; }
	await later 0
	first=$(number "$(newest)")
	await later "$first"
	await later "$((first + 1))"
	moves() { podmigrate often nodeB --progress none; } # unless a checkpoint is under way
	await moves
	await later "$(number "$(newest)")"
	unbroken often
	goes_on often
	gone often
	id=$(newest)
	run podctl image verify "$id"
	[ "$status" = 0 ]
	podctl restore "$id" -N nodeA
	goes_on often
	unbroken often
	await later "$(number "$id")"
	gone often
	run podrun -i 0 -- true
	[ "$status" = 125 ] || [ "$status" = 2 ]
}

# what came before the checkpoint is more than podinit's ring holds
@test "what a pod had printed comes with its image" {
	podrun -d -n talk -N nodeA -- sh -c 'seq 0 400000; i=400001; while :; do echo $i; echo e$i >&2; i=$((i + 1)); sleep 0.02; done'
	await said talk '^400005$'
	id=$(podctl checkpoint talk)
	await said talk "^$(($(podctl logs talk 2>/dev/null | tail -n 1) + 20))\$"
	had=$(podctl logs talk 2>/dev/null | tail -n 1)
	last=$(podctl checkpoint --term talk)
	# the earlier image knows nothing of what came after it
	podctl restore "$id" -N nodeB
	[ "$(podctl logs talk 2>/dev/null | tail -n 1)" -lt "$had" ]
	goes_on talk
	unbroken talk
	gone talk
	unbroken talk
	[ "$(podctl logs talk | wc -c)" -gt 2000000 ]
	podctl restore "$last" -N nodeB
	[ "$(podctl logs talk 2>/dev/null | tail -n 1)" -ge "$had" ]
	goes_on talk
	unbroken talk
	podctl logs talk 2>&1 >/dev/null | awk '$1 != "e" (NR + 400000) { print; bad = 1 } END { exit bad || NR < 5 }'
	# one of its pieces is damaged: nothing of it is taken for the truth
	gone talk
	at=$(LC_ALL=C grep -abo '^123456$' "$STORE/root/$last.img" | head -n 1 | cut -d: -f 1)
	[ "$at" ]
	cp "$STORE/root/$last.img" "$BATS_TEST_TMPDIR/img"
	printf x | dd of="$STORE/root/$last.img" bs=1 seek="$at" conv=notrunc status=none
	run podctl restore "$last" -N nodeB
	[ "$status" = 15 ]
	await nothing_of talk nodeB
	cp "$BATS_TEST_TMPDIR/img" "$STORE/root/$last.img"
}

@test "who is attached to a pod that a checkpoint ends is told so, at once" {
	cd "$BATS_TEST_TMPDIR"
	podrun -n fore -N nodeA -- sh /home/shared/count >out 2>err </dev/null 3>&- &
	fore=$!
	await said fore '^5$'
	podctl logs -f fore >logs 2>logs.err 3>&- &
	logs=$!
	podctl attach fore >att 2>att.err </dev/null 3>&- &
	att=$!
	await test -s att
	await test -s logs
	podrun -d -n quiet -N nodeA -- sleep 1000
	podctl logs -f quiet >/dev/null 2>quiet.err 3>&- &
	quiet=$!
	id=$(podctl checkpoint --term fore)
	AWAIT_S=2 await have_ended $fore $logs $att
	code=0; wait $fore || code=$?
	[ "$code" = 125 ]
	code=0; wait $logs || code=$?
	[ "$code" = 3 ]
	code=0; wait $att || code=$?
	[ "$code" = 3 ]
	qid=$(podctl checkpoint --term quiet)
	AWAIT_S=2 await have_ended $quiet
	code=0; wait $quiet || code=$?
	[ "$code" = 3 ]
	for f in err logs.err att.err; do
		grep -q "fore: it was ended by a checkpoint; it is in image $id\$" $f
		grep -q "^hint: podctl restore $id\$" $f
	done
	grep -q "quiet: it was ended by a checkpoint; it is in image $qid\$" quiet.err
	[ -s out ]
	awk '$1 != NR - 1 { exit 1 }' out
	run podctl logs fore
	[ "$status" = 3 ]
	[[ $output == *"ended by a checkpoint"* ]]
	# of another user's pod nobody hears more than that there is none
	run "$LAB" exec --user 1235 client1 -- podctl logs fore
	[ "$status" = 3 ]
	[[ $output == *"there is no pod"* ]]
	podctl restore "$id" -N nodeB
	goes_on fore
	gone fore
}

@test "pod-preempt: vacate and restore, again without harm; too late is not begun" {
	as_user podrun -d -n job7 -j 7 -N nodeA -- sh /home/shared/count
	await said job7 '^5$'
	run as_user pod-preempt vacate --job 7 --deadline "$(date +%s)"
	[ "$status" = 4 ]
	[[ $output == *"not begun; it runs on"* ]]
	goes_on job7
	run as_user pod-preempt vacate --job 8
	[ "$status" = 3 ]
	run as_user pod-preempt vacate --job 7 --deadline "$(($(date +%s) + 60))"
	[ "$status" = 0 ]
	[ -z "$(field job7 3)" ]
	run as_user pod-preempt vacate --job 7
	[ "$status" = 3 ]
	run as_user env SLURM_JOB_ID=7 pod-preempt restore --node nodeB
	[ "$status" = 0 ]
	[ "$(field job7 3)" = nodeB ]
	goes_on job7
	unbroken job7
	run as_user pod-preempt restore --job 7
	[ "$status" = 0 ]
	[ "$output" = job7 ]
	as_user mkdir /home/shared/data/seven
	run as_user pod-preempt vacate --job 7 --image /home/shared/data/seven
	[ "$status" = 0 ]
	run as_user pod-preempt restore --job 7 --image /home/shared/data/seven
	[ "$status" = 0 ]
	goes_on job7
	unbroken job7
	run as_user pod-preempt restore --job 9
	[ "$status" = 3 ]
	run as_user pod-preempt vanish --job 7
	[ "$status" = 2 ]
	gone job7
}

@test "a restart that comes to nothing leaves the pod's files as they were; no name of a file speaks to a terminal" {
	log=$LAB_SHARED/data/$'l\e[31mo\302\233g'
	cat >"$LAB_SHARED/data/back.py" <<-'PY'
		import os, time
		log = os.open(b"/home/shared/data/l\x1b[31mo\xc2\x9bg", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o200)
		again = os.open(b"/home/shared/data/l\x1b[31mo\xc2\x9bg", os.O_WRONLY | os.O_APPEND)
		n = 0
		while True:
		    os.write(log, b"%d\n" % n)
		    n += 1
		    if n == 3:
		        print("three", flush=True)
		    time.sleep(0.02)
	PY
	speaks() { LC_ALL=C grep -q $'\e\\|\302\233'; }
	podrun -d -n undone -N nodeA -- python3 /home/shared/data/back.py
	await said undone three
	id=$(podctl checkpoint undone)
	size=$(stat -c %s "$log")
	longer() { [ "$(stat -c %s "$log")" -gt $((size + 20)) ]; }
	await longer
	gone undone
	had=$(md5sum <"$log") size=$(stat -c %s "$log") time=$(stat -c %y "$log")
	for fault in coord@commit:fail engine-target@ready:fail; do
		host=head
		[[ $fault == coord* ]] || host=nodeB
		echo "$fault" >"$LAB_DIR/faults/$host"
		run timeout 180 podctl restore "$id" -N nodeB
		echo "$output"
		[ "$status" != 0 ]
		await nothing_of undone nodeB
		[ "$(md5sum <"$log")" = "$had" ]
		[ "$(stat -c '%s %y' "$log")" = "$size $time" ]
	done
	podctl inspect "$id" --files | grep -F '/l?[31mo??g'
	for how in --maps --json; do
		run podctl inspect "$id" --files $how
		[ "$status" = 0 ]
		not speaks <<<"$output"
	done
	run podctl restore "$id" -N nodeB
	echo "$output"
	[ "$status" = 0 ]
	[[ $output == *"l?[31mo??g' was cut back to "*" bytes: "*" that were appended"* ]]
	not speaks <<<"$output"
	goes() { [ "$(stat -c %s "$log")" -gt "$size" ]; }
	await goes
	awk '$1 != NR - 1 { exit 1 }' "$log"
	gone undone
	cp "$STORE/root/$id.img" "$LAB_SHARED/data/"$'e\e]0;xvil\a.img'
	podctl image verify "$LAB_SHARED/data/"$'e\e]0;xvil\a.img' | grep -F 'e?]0;xvil?.img: whole'
	truncate -s 100 "$LAB_SHARED/data/"$'e\e]0;xvil\a.img'
	run podctl image verify "$LAB_SHARED/data/"$'e\e]0;xvil\a.img'
	[ "$status" = 15 ]
	[[ $output == *"e?]0;xvil?.img"* ]]
	not speaks <<<"$output"
}

@test "root is not led by what a user puts into a directory of images" {
	as_user podrun -d -n led -j 77 -N nodeA -- sh /home/shared/count
	await said led '^5$'
	id=$(as_user podctl checkpoint led)
	img=$(echo "$STORE"/*/"$id.img")
	dir=$(dirname "$img")
	mkfifo "$dir/fifo.1.img"
	ln -s /dev/zero "$dir/dev.1.img"
	ln -s "$img" "$dir/link.1.img"
	run timeout 60 podctl image list
	[ "$status" = 15 ]
	[ "$(grep -c 'it is not a regular file' <<<"$output")" = 3 ]
	grep -q "^$id " <<<"$output"
	not grep -q "^link.1 " <<<"$output"
	rm "$dir"/{fifo,dev,link}.1.img
	ln -s "$dir" "$STORE/other"
	[ "$(podctl image list --noheadings | grep -c "^$id ")" = 1 ]
	rm "$STORE/other"
	gone led
	# between the look at the owner and the opening the file becomes another's
	cp "$img" "$LAB_SHARED/data/swap.img"
	chown 1000 "$LAB_SHARED/data/swap.img"
	chmod 644 "$LAB_SHARED/data/swap.img"
	echo "coord@check:delay=1500" >"$LAB_DIR/faults/head"
	"$LAB" exec nodeB -- podctl restore /home/shared/data/swap.img -N nodeB >"$BATS_TEST_TMPDIR/out" 2>&1 3>&- &
	restore=$!
	fired() { ! [ -s "$LAB_DIR/faults/head" ]; }
	await fired
	chown 1001 "$LAB_SHARED/data/swap.img"
	code=0; wait $restore || code=$?
	cat "$BATS_TEST_TMPDIR/out"
	[ "$code" = 5 ]
	grep -q "is a file of uid 1001: a pod of uid 1000 is not made from it" "$BATS_TEST_TMPDIR/out"
	await nothing_of led nodeB
	# nor does a user get another's for the newest
	as_user mkdir /home/shared/data/jobs
	as_user podctl restore "$id" -N nodeB
	run as_user pod-preempt vacate --job 77 --image /home/shared/data/jobs
	[ "$status" = 0 ]
	podrun -d -n evil -j 77 -N nodeA -- sh /home/shared/count
	await said evil '^5$'
	podctl checkpoint --term evil -o /home/shared/data/jobs/evil.1.img
	chmod 644 "$LAB_SHARED/data/jobs/evil.1.img"
	run as_user pod-preempt restore --job 77 --image /home/shared/data/jobs
	echo "$output"
	[ "$status" = 0 ]
	[ "$(field led 4)" ]
	[ -z "$(field evil 4)" ]
	goes_on led
	gone led
}
