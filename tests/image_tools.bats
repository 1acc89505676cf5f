#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# What can be done with images besides restoring them.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up imgtools --faults
	export STORE=$LAB_SHARED/images
	cp "$LAB_BIN/../tests/debuggee" "$LAB_BIN/workload/deadleader" "$LAB_SHARED"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1
}

teardown() { end_jobs; }

said() { podctl logs "$1" | grep -q -- "$2"; }
as_user() { "$LAB" exec --user 1234 client1 -- "$@"; }
debuggee() { podrun -d -n "$1" -N nodeA -- /home/shared/debuggee >/dev/null && await said "$1" '^step 0$'; }
step() { podctl kill -s USR1 "$1" && await said "$1" "^step $2\$"; }
# in a host that sees the pod's programs under the names that the pod knows
gdb_says() { # CORE COMMAND...
	local core=$1 args=() x
	shift
	for x; do args+=(-ex "$x"); done
	"$LAB" exec nodeA -- gdb -nx -q -batch -ex 'set pagination off' "${args[@]}" /home/shared/debuggee "$core" 2>&1
}

@test "image core: a debugger finds threads, backtraces and values, out of all of the chain" {
	debuggee core
	podctl checkpoint core
	step core 1
	id=$(podctl checkpoint core)
	[ -n "$(podctl image list --noheadings | awk -v i="$id" '$1 == i { print $NF }' | grep -v '^-$')" ]
	run podctl image core "$id" 2 -o "$LAB_SHARED/c1"
	[ "$status" = 0 ]
	[ "$output" = "$LAB_SHARED/c1" ]
	[ "$(stat -c %a "$LAB_SHARED/c1")" = 600 ]
	run gdb_says /home/shared/c1 'info threads' 'thread apply all bt' 'p in_data' 'p in_bss' 'p left_alone[512]' \
		'p on_heap->value' 'p shared->value' 'p text' 'x/s on_heap' 'thread 4' 'frame function wait_here' \
		'info locals' 'p mine' 'frame function deeper' 'p number' 'p $_siginfo'
	echo "$output"
	[ "$(grep -c '^\[New LWP' <<<"$output")" = 5 ]
	[ "$(grep -c '^#.* in wait_here (number=[1-4]01, weight=' <<<"$output")" -ge 4 ]
	[ "$(grep -c '^#.* in deeper (number=[1-4]00)' <<<"$output")" -ge 4 ]
	grep -q '^#.* in main ()' <<<"$output"
	grep -q ' = 1002$' <<<"$output"
	grep -q ' = 4242$' <<<"$output"
	grep -q ' = 7001$' <<<"$output"
	grep -q ' = 9001$' <<<"$output"
	grep -q 'a constant string' <<<"$output"
	grep -q '"at its beginning"' <<<"$output"
	grep -q '^sum = 150$' <<<"$output"
	grep -q ' = 301$' <<<"$output"
	grep -q ' = 300$' <<<"$output"
	# the first image is as it was
	old=$(podctl image list --noheadings | awk '$2 == "core" { print $1; exit }')
	podctl image core "$old" 2 -o "$LAB_SHARED/c0"
	run gdb_says /home/shared/c0 'p in_data' 'p on_heap->value'
	grep -q ' = 1001$' <<<"$output"
	grep -q ' = 7000$' <<<"$output"
	podctl kill -s KILL -a core
}

@test "a process whose main thread has ended: inspect, check, exec, and a core without that thread" {
	podrun -d -n dead -N nodeA -- /home/shared/deadleader
	await said dead '^ready$'
	podctl check dead
	podctl inspect dead >"$LAB_DIR/said"
	cat "$LAB_DIR/said"
	grep -Eq '^ *2 dead-0  uid 0, [3-9] threads, [1-9][0-9]* fds, ' "$LAB_DIR/said"
	[ "$(podctl exec dead -- sh -c 'grep State: /proc/2/status | cut -f 2')" = "Z (zombie)" ]
	id=$(podctl checkpoint dead)
	podctl inspect "$id" | grep -Eq '^ *2 dead-0  uid 0, [3-9] threads, [1-9][0-9]* fds, '
	podctl image core "$id" 2 -o "$LAB_SHARED/cdead"
	run "$LAB" exec nodeA -- gdb -nx -q -batch -ex 'set pagination off' -ex 'info threads' -ex 'thread apply all bt' \
		-ex 'p g.pid' /home/shared/deadleader "$LAB_SHARED/cdead"
	echo "$output"
	# gdb leaves the address out where a call was inlined
	frames() { grep -Ec "^#[0-9]+ +(0x[0-9a-f]+ in )?$1 \\(" <<<"$output"; }
	[ "$(frames sleep_on)" = 1 ]
	[ "$(frames take_signals)" = 1 ]
	[ "$(frames work)" = 1 ]
	[ "$(frames main)" = 0 ]
	podctl kill -s TERM dead
	await said dead '^ok$'
}

@test "image core: what is not there is said, and no file is left" {
	debuggee nocore
	id=$(podctl checkpoint --term nocore)
	run podctl image core "$id" 77 -o "$LAB_SHARED/none"
	[ "$status" = 3 ]
	run podctl image core "$id" two
	[ "$status" = 2 ]
	run podctl image core "$id"
	[ "$status" = 2 ]
	run podctl image core nobody.1 2 -o "$LAB_SHARED/none"
	[ "$status" = 3 ]
	run podctl image core "$id" 2 -o /nowhere/none
	[ "$status" = 1 ]
	run podctl image core "$id" 2 -o /dev/full
	[ "$status" = 1 ]
	[[ $output == *"not a regular file"* ]]
	# a disk that is full, on the way
	mkdir "$LAB_SHARED/small"
	mount -t tmpfs -o size=40k none "$LAB_SHARED/small"
	run podctl image core "$id" 2 -o "$LAB_SHARED/small/c"
	left=$(ls -A "$LAB_SHARED/small")
	umount "$LAB_SHARED/small"
	[ "$status" = 1 ]
	[[ $output == *"No space left"* ]]
	[ -z "$left" ]
	# not another's
	run as_user podctl image core "$STORE/root/$id.img" 2 -o /tmp/c
	[ "$status" = 3 ]
	# a page that is damaged
	cp "$STORE/root/$id.img" "$LAB_SHARED/bad.img"
	python3 - "$LAB_SHARED/bad.img" <<-'END'
		import sys
		f = open(sys.argv[1], "r+b")
		b = f.read()
		f.seek(b.find(b"at its beginning"))
		f.write(b"AT")
	END
	run podctl image core "$LAB_SHARED/bad.img" 2 -o "$LAB_SHARED/none"
	[ "$status" = 15 ]
	[ ! -e "$LAB_SHARED/none" ]
	[ -z "$(ls "$LAB_SHARED" | grep part)" ]
}

@test "inspect: of a pod that runs the same sections as of its image; it is not stopped" {
	cat >"$LAB_SHARED/sockets.py" <<-'END'
		import os, socket, time
		l = socket.create_server(("127.0.0.1", 4711))
		c = socket.create_connection(("127.0.0.1", 4711))
		s, _ = l.accept()
		l6 = socket.create_server(("::1", 4712), family=socket.AF_INET6)
		u = socket.socket(socket.AF_UNIX)
		u.bind("/tmp/u.sock")
		u.listen()
		d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		d.bind(("127.0.0.1", 4713))
		none = socket.socket()
		r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
		r.bind(("127.0.0.2", 0))
		r.connect(("127.0.0.1", 0))
		i = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) for n in (1, 2)]
		i[0].bind(("127.0.0.1", 4714))
		k = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
		k.bind(("lo", 0x88b5))
		open("/tmp/big", "wb").write(b"x" * 100000)
		f = open("/tmp/big", "rb")
		f.seek(777)
		print("ready", flush=True)
		while True: time.sleep(3600)
	END
	mkdir -p "$LAB_SHARED/bound"
	podrun -d -n seen -N nodeA -e MARK=here --bind /home/shared/bound:/mnt:ro -- python3 /home/shared/sockets.py
	await said seen '^ready$'
	run podctl inspect seen
	[ "$status" = 0 ]
	[[ $output == *"pod      seen of user root, address 10.77."*"running on nodeA"*"1 podinit"*"  2 python3  uid 0, 1 thread"* ]]
	run podctl inspect seen --sockets --pid 2
	grep -Eq '^2 [0-9]+ tcp LISTEN 127.0.0.1:4711 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ tcp ESTABLISHED 127.0.0.1:4711 127.0.0.1:[0-9]+$' <<<"$output"
	grep -Eq '^2 [0-9]+ tcp ESTABLISHED 127.0.0.1:[0-9]+ 127.0.0.1:4711$' <<<"$output"
	grep -Eq '^2 [0-9]+ tcp6 LISTEN \[::1\]:4712 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ unix LISTEN /tmp/u.sock -$' <<<"$output"
	grep -Eq '^2 [0-9]+ udp CLOSE 127.0.0.1:4713 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ tcp CLOSE 0.0.0.0:0 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ raw ESTABLISHED 127.0.0.2:0 127.0.0.1:0$' <<<"$output"
	grep -Eq '^2 [0-9]+ icmp CLOSE 127.0.0.1:4714 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ icmp CLOSE 0.0.0.0:0 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ packet HEARS 0x88b5 -$' <<<"$output"
	podctl inspect seen --mounts | grep -q '^/mnt /home/shared/bound ro$'
	podctl inspect seen --mounts | grep -Eq '^/tmp tmpfs rw (9[0-9]|1[0-9][0-9]) KiB$'
	podctl inspect seen --env --pid 2 | grep -q '^2 MARK=here$'
	# the whole of it is the same in an image
	all=(--files --sockets --mounts --maps --env --json)
	podctl inspect seen "${all[@]}" >"$LAB_SHARED/pod.json"
	podctl inspect "$(podctl checkpoint seen)" "${all[@]}" >"$LAB_SHARED/image.json"
	python3 - "$LAB_SHARED/pod.json" "$LAB_SHARED/image.json" <<-'END'
		import json, sys
		p, i = (json.load(open(f)) for f in sys.argv[1:])
		assert p["image"] is None and i["image"].startswith("seen.")
		assert [k for k in i if k not in p] == ["created_ns", "ended", "bytes", "pages", "stored", "images"], i.keys()
		assert [k for k in p if k not in i] == ["state", "epoch", "mem"], p.keys()
		for k in "pod", "user", "ip", "node", "mounts":
		    assert p[k] == i[k], (k, p[k], i[k])
		a, b = ([x for x in q["processes"] if x["pid"] == 2][0] for q in (p, i))
		for k in b:
		    if k == "maps": # a file has other words in an image
		        assert [{**m, "name": 0} for m in a[k]] == [{**m, "name": 0} for m in b[k]]
		    else:
		        assert a[k] == b[k], (k, a[k], b[k])
		assert any(f["what"] == "/tmp/big" and f["pos"] == 777 for f in a["fds"])
	END
	# of a stopped process, too, and what a move would refuse
	podrun -d -n odd -N nodeB -- python3 -c 'if True:
		import os, signal, socket
		os.mkfifo("/tmp/f")
		os.open("/tmp/f", os.O_RDWR)
		os.pidfd_open(os.getpid())
		u, n = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for i in (1, 2))
		u.bind(("::1", 4714))
		os.kill(os.getpid(), signal.SIGSTOP)'
	await sh -c "podctl exec odd grep -q 'T (stopped)' /proc/2/status"
	run podmigrate odd nodeA --dry-run
	[ "$status" = 6 ]
	run podctl inspect odd --files
	[ "$status" = 0 ]
	grep -Eq '^2 3 rw /tmp/f$' <<<"$output"
	grep -Eq '^2 4 rw anon_inode:\[pidfd\]$' <<<"$output"
	run podctl inspect odd --sockets --pid 2
	grep -Eq '^2 [0-9]+ udp6 CLOSE \[::1\]:4714 -$' <<<"$output"
	grep -Eq '^2 [0-9]+ udp6 CLOSE \[::\]:0 -$' <<<"$output"
	podctl kill -s KILL -a odd
}

@test "inspect: only for the pod's owner and root; what there is not is said" {
	as_user podrun -d -n theirs -N nodeA -- sleep 1000
	podrun -d -n ours -N nodeA -- sleep 1000
	run as_user podctl inspect theirs --env --files
	[ "$status" = 0 ]
	run podctl inspect theirs
	[ "$status" = 0 ]
	run as_user podctl inspect ours
	[ "$status" = 5 ]
	[[ $output == *"belongs to user 'root'"* ]]
	run podctl inspect nobody
	[ "$status" = 3 ]
	podctl kill -s KILL -a ours
	podctl kill -s KILL -a theirs
	ended() { podctl inspect ours >&2; [ $? = 3 ]; }
	await ended
	# a file of the pod's name, which is no image
	podrun -d -n named -N nodeA -- sleep 1000
	cd "$LAB_SHARED"
	echo no image >named
	run podctl inspect named
	[ "$status" = 0 ]
	podctl kill -s KILL -a named
}

@test "image diff: what differs is said, and nothing else" {
	debuggee other
	a=$(podctl checkpoint other)
	b=$(podctl checkpoint --full other)
	step other 1
	c=$(podctl checkpoint other)
	run podctl image diff "$a" "$a"
	[ "$status" = 0 ]
	[ "$output" = "0 processes differ, 0 B of memory" ]
	run podctl image diff "$a" "$c"
	[ "$status" = 0 ]
	[[ $output == *"debuggee changed: "*" KiB"* ]]
	[[ $output == *"2 debuggee: "*"[heap]"* ]] || [[ $output == *"2 debuggee: "*"-"* ]]
	podctl exec other sleep 1000 3>&- &
	await sh -c 'podctl inspect other | grep -q sleep'
	d=$(podctl checkpoint other)
	kill $!
	podctl image diff --json "$a" "$c" >"$LAB_SHARED/ac.json"
	podctl image diff --json "$a" "$d" >"$LAB_SHARED/ad.json"
	podctl image diff --json "$d" "$a" >"$LAB_SHARED/da.json"
	python3 - "$LAB_SHARED/ac.json" "$LAB_SHARED/ad.json" "$LAB_SHARED/da.json" <<-'END'
		import json, sys
		ac, ad, da = (json.load(open(f)) for f in sys.argv[1:])
		p = [p for p in ac["processes"] if p["pid"] == 2][0]
		assert p["what"] == "changed" and "threads" not in p and "files" not in p, p
		# in_data, in_bss; the value on the heap, the one in shared memory; the stack
		assert 4 * 4096 <= sum(m["bytes"] for m in p["memory"]) <= 32 * 4096, p
		assert all(m["bytes"] % 4096 == 0 and m["what"] == "changed" for m in p["memory"]), p
		assert any("debuggee" in m["name"] for m in p["memory"]), p
		assert ac["bytes"] == sum(m["bytes"] for q in ac["processes"] for m in q.get("memory", []))
		new = [p for p in ad["processes"] if p["comm"] == "sleep"]
		assert [p["what"] for p in new] == ["only in the second"], ad
		assert [p["what"] for p in da["processes"] if p["comm"] == "sleep"] == ["only in the first"], da
	END
	# of the same memory twice, once in a chain and once not, nothing differs that the program would have to write; the kernel
	# notes in every thread's block on what CPU it is (rseq)
	podctl image diff --json "$a" "$b" | python3 -c '
import json, sys
m = [m for p in json.load(sys.stdin)["processes"] if p["pid"] == 2 for m in p["memory"]]
assert sum(x["bytes"] for x in m) <= 5 * 4096, m
assert not [x for x in m if "debuggee" in x["name"] or x["name"] == "[heap]"], m'
	# whatever the files are called
	cp "$STORE/root/$a.img" "$LAB_SHARED/"$'\xff'
	podctl image diff --json "$LAB_SHARED/"$'\xff' "$c" | python3 -c 'import json, sys; assert json.load(sys.stdin)["processes"]'
	run podctl image diff "$a"
	[ "$status" = 2 ]
	run podctl image diff "$a" nobody.1
	[ "$status" = 3 ]
	podctl kill -s KILL -a other
}

@test "a pinned image stays, whatever is pruned, until it is unpinned" {
	debuggee pins
	a=$(podctl checkpoint --pin pins)
	[ -e "$STORE/root/$a.img.pin" ]
	podctl image list --noheadings | awk -v i="$a" '$1 == i { print $7 }' | grep -qx yes
	b=$(podctl checkpoint --full pins)
	c=$(podctl checkpoint --full --keep 1 pins)
	[ -e "$STORE/root/$a.img" ]
	[ ! -e "$STORE/root/$b.img" ]
	podctl image prune --keep 1 pins
	[ -e "$STORE/root/$a.img" ]
	run podctl image rm "$a"
	[ "$status" = 13 ]
	[[ $output == *"pinned"* ]]
	podctl image pin "$c"
	podctl image unpin "$a"
	run podctl image prune --keep 0 pins
	[ "$output" = "$a" ]
	[ ! -e "$STORE/root/$a.img" ]
	[ ! -e "$STORE/root/$a.img.pin" ]
	[ -e "$STORE/root/$c.img" ]
	run podctl image pin nobody.1
	[ "$status" = 3 ]
	run podctl checkpoint --pin -o /home/shared/x pins
	[ "$status" = 2 ]
	podctl kill -s KILL -a pins
}

@test "--compress: images and moves of programs that check their memory; the ratio is shown; what was not compressed is of the version before" {
	local p way ids=()
	cp "$LAB_BIN/workload/anon" "$LAB_BIN/workload/memfd" "$LAB_SHARED/"
	for p in anon memfd; do
		podrun -d -n "z$p" -N nodeA -- "/home/shared/$p"
		await said "z$p" '^ready$'
		podmigrate "z$p" nodeB --compress lz4 --max-downtime 5000
		podmigrate "z$p" nodeA --compress lz4 --stop-copy
		podmigrate "z$p" nodeB --compress auto --bandwidth 20M --max-downtime 5000
		podmigrate "z$p" nodeA --compress none --max-downtime 5000
		podctl checkpoint "z$p" --compress lz4
		id=$(podctl checkpoint "z$p" --compress lz4 --term)
		podctl image verify "$id"
		podctl restore "$id" -N nodeB
		podctl kill -s TERM "z$p"
		await said "z$p" '^ok$'
	done
	podrun -d -n text -N nodeA -- python3 -c '
import time
b = b"".join(b"%d is a number, " % i for i in range(2000000))
print("ready", flush=True)
time.sleep(1000)'
	await said text '^ready$'
	none=$(podctl checkpoint text --full --compress none)
	auto=$(podctl checkpoint text --full)
	size() { stat -c %s "$STORE/root/$1.img"; }
	[ $(($(size "$auto") * 3 / 2)) -lt "$(size "$none")" ]
	podctl inspect "$auto" | grep -Eq 'compressed to [0-9]+ %'
	podctl image verify "$auto" | grep -Eq 'compressed to [0-9]+ %'
	[ -z "$(podctl inspect "$none" | grep compressed)" ]
	podctl inspect "$auto" | grep -q 'format 2'
	# an increment finds the pages of either
	inc=$(podctl checkpoint text)
	[ "$(size "$inc")" -lt $(($(size "$auto") / 4)) ]
	run podctl checkpoint text --compress zip
	[ "$status" = 2 ]
	run podmigrate text nodeB --compress zip
	[ "$status" = 2 ]
	podctl image diff "$none" "$auto" --json | python3 -c '
import json, sys
assert json.load(sys.stdin)["bytes"] < 1 << 20'
	gone=$(podctl checkpoint text --term)
	podctl restore "$gone" -N nodeB
	podctl kill -s KILL -a text
}

some_hidden() { [ -n "$(hidden)" ]; }
hidden() { find "$STORE" "$LAB_SHARED" -maxdepth 2 -name '.*.img'; }

@test "an image through a pipe: the bytes of a file; what fails on the way leaves nothing, or all of it when the pod has ended" {
	debuggee pipe
	podctl checkpoint pipe -o - 2>"$LAB_SHARED/err" | cat >"$LAB_SHARED/piped.img"
	id=$(head -n 1 "$LAB_SHARED/err")
	[[ $id == pipe.* ]]
	podctl image verify "$LAB_SHARED/piped.img"
	[ "$(podctl inspect "$LAB_SHARED/piped.img" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["image"])')" = "$id" ]
	[ -z "$(hidden)" ]
	[ -z "$(podctl image list | grep "^$id ")" ]
	# nobody reads; no room; the pod runs on in both
	run bash -c '{ podctl checkpoint pipe -o - 2>"$1/e1"; echo $? >"$1/code"; } | true' sh "$LAB_SHARED"
	[ "$(cat "$LAB_SHARED/code")" = 7 ]
	grep -q 'Broken pipe; the pod runs on' "$LAB_SHARED/e1"
	run bash -c 'podctl checkpoint pipe -o - >/dev/full'
	[ "$status" = 7 ]
	[[ $output == *"No space left"* ]]
	[ -z "$(hidden)" ]
	run bash -c 'podctl checkpoint pipe -o - >&-'
	[ "$status" = 0 ] # as to /dev/null, which the program puts in its place
	[ -z "$(hidden)" ]
	step pipe 1
	# it ends with its image, which cannot be written: it stays in the store
	run bash -c 'podctl checkpoint --term pipe -o - >/dev/full'
	[ "$status" = 1 ]
	[[ $output == *"its image stays as 'pipe."* ]]
	kept=$(podctl image list --noheadings | awk '$2 == "pipe" { print $1 }')
	podctl restore "$kept" -N nodeB
	step pipe 2
	podctl checkpoint --term pipe -o - 2>/dev/null >"$LAB_SHARED/piped.img"
	[ -z "$(hidden)" ]
	podctl restore - -N nodeA <"$LAB_SHARED/piped.img"
	step pipe 3
	[ -z "$(hidden)" ]
	podctl kill -s KILL -a pipe
}

@test "an image from a pipe: what is none, or not all of one, or another's, is refused, and nothing is left" {
	debuggee from
	podctl checkpoint --term from -o - >"$LAB_SHARED/from.img"
	run bash -c 'head -c 100000 "$1" | podctl restore -' sh "$LAB_SHARED/from.img"
	[ "$status" = 15 ]
	run bash -c 'echo no image | podctl restore -'
	[ "$status" = 15 ]
	run bash -c ': | podctl restore -'
	[ "$status" = 15 ]
	run bash -c 'podctl restore - <&-'
	[ "$status" = 15 ]
	run podctl restore - -N nodeA --dry-run <"$LAB_SHARED/from.img"
	[ "$status" = 0 ]
	[ -z "$(hidden)" ]
	# whose it becomes is who brings it: a user gets no pod of root's
	mkdir -p "$STORE/1234"
	chown 1234 "$STORE/1234"
	chmod 700 "$STORE/1234"
	run as_user podctl restore - -N nodeA <"$LAB_SHARED/from.img"
	[ "$status" != 0 ]
	[ -z "$(podps --noheadings | awk '$1 == "from"')" ]
	as_user podrun -d -n mine -N nodeA -- sleep 1000
	as_user podctl checkpoint --term mine -o - >"$LAB_SHARED/mine.img"
	run as_user podctl restore - -N nodeB <"$LAB_SHARED/mine.img"
	[ "$status" = 0 ]
	podps --noheadings | awk '$1 == "mine"' | grep -q 1234
	[ -z "$(hidden)" ]
	podctl kill -s KILL -a mine
	# a client that is told to go while it reads
	mkfifo "$LAB_SHARED/slow"
	podctl restore - <>"$LAB_SHARED/slow" 3>&- &
	await some_hidden
	kill -TERM $!
	wait $! || true
	[ -z "$(hidden)" ]
	podctl restore - -N nodeB <"$LAB_SHARED/from.img"
	step from 1
	podctl kill -s KILL -a from
}
