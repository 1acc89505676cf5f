#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# A user who is not root gains nothing by a pod: not by --bind, not by --root, not by a setuid program.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	lab_up podpriv
	export MINE=/home/shared/mine
	as_user mkdir "$MINE"
	as_user sh -c 'echo root::0:0:root:/root:/bin/sh >'"$MINE"'/passwd; echo root::19000:0:99999:7::: >'"$MINE"'/shadow'
	# what root left lying about: a setuid shell, and one that can change ids by file capabilities
	cp /bin/bash "$LAB_SHARED/suidsh"
	chmod 4755 "$LAB_SHARED/suidsh"
}

teardown_file() { lab_down; }

setup() {
	is_root || skip "must be root"
	cd / || return 1 # a pod starts where podrun is called; a checkout may be in /tmp
}

as_user() { "$LAB" exec --user 1000 client1 -- "$@"; }
pod() { as_user timeout 180 podrun "$@" </dev/null; }

@test "the pod is the user's: ids, no capability in any set, no_new_privs" {
	run pod -- sh -c 'id -u; id -g; grep -c "^Cap.*:.*0000000000000000$" /proc/self/status; grep NoNewPrivs /proc/self/status'
	[ "$status" = 0 ]
	[ "${lines[0]}" = 1000 ]
	[ "${lines[1]}" = 1000 ]
	[ "${lines[2]}" = 5 ]
	[[ ${lines[3]} == *1 ]]
}

@test "pid 1 is the user's too, and out of the user's reach" {
	run pod -- sh -c 'grep -E "^(Uid|CapBnd|CapEff|CapPrm|NoNewPrivs)" /proc/1/status; ls /proc/1/fd'
	[[ $output == *"Uid:"*1000*1000*1000*1000* ]]
	[[ $output == *CapPrm:*0000000000000000* ]]
	[[ $output == *CapBnd:*0000000000000000* ]]
	[[ $output == *NoNewPrivs:*1* ]]
	[[ $output == *"Permission denied"* ]]
}

@test "su with the user's own /etc/shadow and /etc/passwd gives no root" {
	run pod --bind "$MINE/shadow:/etc/shadow" --bind "$MINE/passwd:/etc/passwd" -- su -c 'id -u'
	[ "$status" != 0 ]
	[ "$status" != 125 ]
	[[ $'\n'$output$'\n' != *$'\n0\n'* ]]
	# the bind itself was there
	run pod --bind "$MINE/shadow:/etc/shadow" -- cat /etc/shadow
	[[ $output == root::* ]]
}

@test "a setuid program gives no root, from the node's root or from a bind" {
	run pod --bind /home/shared/suidsh:/mnt -- true
	run pod -- /home/shared/suidsh -p -c 'id -u'
	[ "$output" = 1000 ]
	run pod --bind /home/shared:/mnt -- /mnt/suidsh -p -c 'id -u'
	[ "$output" = 1000 ]
	# outside a pod it does: the test would see a difference
	[ "$(as_user "$LAB_DIR/shared/suidsh" -p -c 'id -u')" = 0 ] ||
		[ "$(as_user /home/shared/suidsh -p -c 'id -u')" = 0 ]
}

@test "--root with planted files and a setuid program gives no root" {
	as_user sh -c 'mkdir -p '"$MINE"'/root/bin '"$MINE"'/root/etc && cp '"$MINE"'/passwd '"$MINE"'/shadow '"$MINE"'/root/etc/'
	cat >"$BATS_TEST_TMPDIR/who.c" <<-'END'
		#include <stdio.h>
		#include <unistd.h>
		int main(void)
		{
			int was = geteuid();

			return printf("%d %d\n", was, setresuid(0, 0, 0)) < 0;
		}
	END
	cc -D_GNU_SOURCE -static -o "$LAB_SHARED/mine/root/bin/who" "$BATS_TEST_TMPDIR/who.c"
	chmod 4755 "$LAB_SHARED/mine/root/bin/who"
	[ "$(as_user "$MINE/root/bin/who")" = "0 0" ]
	[ "$(pod --root "$MINE/root" -- /bin/who)" = "1000 -1" ]
}

@test "all mounts of the pod are nosuid and nodev, the device nodes apart" {
	run pod -- sh -c 'awk "\$5 !~ /^\/dev(\/|\$)/ && (\$6 !~ /nosuid/ || \$6 !~ /nodev/)" /proc/self/mountinfo; awk "\$6 !~ /nosuid/" /proc/self/mountinfo'
	[ "$status" = 0 ]
	[ -z "$output" ]
}

@test "what the user cannot read cannot be bound" {
	for src in /etc/shadow /root /proc/1/root /proc/self/fd/3; do
		run pod --bind "$src:/mnt" -- cat /mnt
		[ "$status" = 125 ]
		[[ $output == *"--bind"* ]]
	done
	run pod --root /root -- /bin/true
	[ "$status" = 125 ]
	[[ $output == *"--root"* ]]
}

@test "links planted in --root lead nowhere outside" {
	as_user sh -c 'mkdir -p '"$MINE"'/evil && cd '"$MINE"'/evil && mkdir -p proc sys dev run && ln -sfn ../../../../../etc tmp; ln -sfn / out'
	run pod --root "$MINE/evil" --bind "$MINE/passwd:/out/../../../etc/passwd" -- /bin/true
	[ "$status" != 0 ]
	# on the node nothing was made or covered
	"$LAB" exec nodeA -- sh -c '! grep -q "^root::" /etc/passwd && [ ! -e /etc/null ]'
}

@test "devices cannot be made, root's files not written, /proc and /sys not tuned" {
	run pod -- mknod /tmp/disk b 254 0
	[ "$status" != 0 ]
	run pod -- sh -c 'echo x >/etc/podmigrate-test'
	[ "$status" != 0 ]
	run pod -- sh -c 'echo 1 >/proc/sys/kernel/sysrq'
	[ "$status" != 0 ]
	run pod -- unshare -m true
	[ "$status" != 0 ]
	run pod -- hostname other
	[ "$status" != 0 ]
}

@test "another user's pod is neither entered nor ended; root's neither" {
	podrun -d -n rootpod -- sleep 1000
	for try in 'exec rootpod id' 'kill rootpod' 'logs rootpod' 'attach rootpod'; do
		# shellcheck disable=SC2086
		run as_user podctl $try </dev/null
		[ "$status" = 5 ]
	done
	run as_user podmigrate rootpod nodeA
	[ "$status" = 5 ]
	podctl kill rootpod
}

@test "nobody inside the pod can talk to podinit" {
	run pod -- python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect("\0podmigrate/podinit")
print(len(s.recv(100)))'
	[[ $output == 0 || $output == *reset* ]]
	[[ $output != *timed* ]]
}

# outer_pid HOST MARK [COMM]: the sleep, or COMM, whose environment says so
outer_pid() {
	"$LAB" exec "$1" -- sh -c 'for p in /proc/[0-9]*; do grep -qsz "^MARK='"$2"'$" $p/environ && [ "$(cat $p/comm)" = '"${3-sleep}"' ] && echo ${p#/proc/}; done; true'
}

holder() { # holder NAME: a pod of the user's on nodeA with one process that is known by its environment
	pod -d -n "$1" -N nodeA -- env "MARK=$1" sleep 1000
	is_there() { held=$(outer_pid nodeA "$1") && [ -n "$held" ]; }
	await is_there "$1"
}

@test "a user's pod moves with its files, and is the user's still" {
	pod -d -n mine -N nodeA -- sh -c 'umask 0; mkdir /tmp/d; echo x >/tmp/d/f; chmod 4755 /tmp/d/f; mkfifo /run/p; ln -s f /tmp/d/l; exec sleep 1000'
	await as_user podctl exec mine -- test -L /tmp/d/l
	as_user timeout 180 podmigrate mine nodeB
	run as_user podctl exec mine -- sh -c 'stat -c "%u %g %a %n" /tmp /run /tmp/d /tmp/d/f /run/p; grep -E "^(CapBnd|NoNewPrivs)" /proc/1/status'
	[[ $output == *"0 0 1777 /tmp"* ]]
	[[ $output == *"1000 1000 4755 /tmp/d/f"* ]]
	[[ $output == *"1000 1000 666 /run/p"* ]]
	[[ $output == *CapBnd:*0000000000000000* ]]
	[[ $output == *NoNewPrivs:*1* ]]
	as_user timeout 180 podmigrate --stop-copy mine nodeA
	as_user podctl kill -s KILL -a mine
}

@test "what root gave a user's process is not given on another node by the image's word" {
	holder prio
	"$LAB" exec nodeA -- renice -n -5 -p "$held"
	run as_user timeout 180 podmigrate prio nodeB
	[ "$status" != 0 ]
	[[ $output == *"nice -5"* ]]
	"$LAB" exec nodeA -- renice -n 0 -p "$held"
	"$LAB" exec nodeA -- chrt -f -p 5 "$held"
	run as_user timeout 180 podmigrate prio nodeB
	[ "$status" != 0 ]
	[[ $output == *"real-time priority 5"* ]]
	"$LAB" exec nodeA -- chrt -o -p 0 "$held"
	# not everybody who is root may do that: containers
	if "$LAB" exec nodeA -- sh -c "echo -500 >/proc/$held/oom_score_adj" 2>/dev/null; then
		run as_user timeout 180 podmigrate prio nodeB
		[ "$status" != 0 ]
		[[ $output == *"OOM score -500"* ]]
		"$LAB" exec nodeA -- sh -c "echo 0 >/proc/$held/oom_score_adj"
	fi
	as_user timeout 180 podmigrate prio nodeB
	as_user podctl kill -s KILL -a prio
}

@test "nor what root did to a user's sockets: groups of netlink, options of CAP_NET_ADMIN; such a pod stays and runs" {
	as_user sh -c "cat >$MINE/sockets.py" <<-'END'
		import os, socket
		n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 2) # NETLINK_USERSOCK
		u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
		v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
		for s in n, u, v:
		    s.set_inheritable(True)
		print('ready', n.fileno(), u.fileno(), v.fileno(), flush=True)
		os.execvp('sleep', ['sleep', '1000'])
	END
	pod -d -n socks -N nodeA -- env MARK=socks /usr/bin/python3 "$MINE/sockets.py"
	is_there() { held=$(outer_pid nodeA socks) && [ -n "$held" ] && fds=$(as_user podctl logs socks | grep ready); }
	await is_there
	read -r _ n u v <<<"$fds"
	as_root() { # FD LEVEL OPTION VALUE: to the socket of the pod's program
		"$LAB" exec nodeA -- python3 -c '
import ctypes, os, socket, sys
pid, fd, level, name, value = map(int, sys.argv[1:])
got = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(pid), fd, 0) # pidfd_getfd
assert got >= 0, os.strerror(ctypes.get_errno())
socket.socket(fileno=got).setsockopt(level, name, value)' "$held" "$@"
	}
	refused() {
		run as_user timeout 180 podmigrate socks nodeB
		[ "$status" != 0 ]
		[[ $output == *"$1"* ]]
		as_user podctl exec socks -- true
	}
	as_root "$n" 270 1 5 # NETLINK_ADD_MEMBERSHIP
	refused "netlink group 5: Operation not permitted"
	as_root "$n" 270 2 5
	as_root "$u" 1 36 7
	refused "SO_MARK 7 of a socket"
	as_root "$u" 1 36 0
	as_root "$v" 1 12 9
	refused "SO_PRIORITY 9 of a socket"
	as_root "$v" 1 12 0
	as_root "$u" 0 19 1
	refused "IP_TRANSPARENT 1 of a socket"
	as_root "$u" 0 19 0
	as_root "$v" 41 75 1 # IPV6_TRANSPARENT
	refused "IP_TRANSPARENT 1 of a socket"
	as_root "$v" 41 75 0
	as_user timeout 180 podmigrate socks nodeB
	as_user podctl kill -s KILL -a socks
}

@test "a user's pod may have ICMP sockets, but no raw or packet socket, whoever has given it one" {
	as_user sh -c "cat >$MINE/raw.py" <<-'END'
		import os, socket, time
		l = socket.socket(socket.AF_UNIX)
		l.bind('\0give')
		l.listen(1)
		ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
		try:
		    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
		except PermissionError:
		    print('no raw socket', flush=True)
		fds = []
		while True:
		    c = l.accept()[0]
		    for f in fds:
		        os.close(f)
		    fds = socket.recv_fds(c, 1, 2)[1]
		    c.close()
		    print('given', len(fds), flush=True)
		    if not fds:
		        ping.sendto(b'\x08\0\0\0\0\0\0\7', ('127.0.0.1', 0))
		        print('reply', ping.recv(100)[7], flush=True)
	END
	pod -d -n rawman -N nodeA -- env MARK=rawman /usr/bin/python3 "$MINE/raw.py"
	said() { as_user podctl logs rawman | grep -q "$1"; }
	await said '^no raw socket$'
	give() { # WHAT: an expression of python that is the list of what to send
		is_here() { held=$(outer_pid nodeB rawman python3) && [ -n "$held" ]; }
		await is_here
		"$LAB" exec nodeB -- nsenter -n -t "$held" python3 -c "
import socket
u = socket.socket(socket.AF_UNIX)
u.connect('\0give')
given = $1
socket.send_fds(u, [b'x'], [s.fileno() for s in given])"
	}
	as_user timeout 180 podmigrate rawman nodeB
	give '[]'
	await said '^reply 7$'
	give '[socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)]'
	await said '^given 1$'
	# it is held by nothing but a number in the program
	run as_user timeout 180 podmigrate rawman nodeA
	[ "$status" != 0 ]
	[[ $output == *"a raw socket (protocol 1), which the pod's user cannot have"* ]]
	give '[socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0), socket.socket()]'
	await said '^given 2$'
	run as_user timeout 180 podmigrate rawman nodeA
	[ "$status" != 0 ]
	[[ $output == *"a packet socket, which the pod's user cannot have"* ]]
	as_user podctl exec rawman -- true
	as_user podctl kill -s KILL -a rawman
}

@test "another's file in the private /tmp of a user's pod does not travel" {
	holder alien
	"$LAB" exec nodeA -- sh -c "cp /bin/true /proc/$held/root/tmp/suid && chmod 4755 /proc/$held/root/tmp/suid"
	run as_user timeout 180 podmigrate alien nodeB
	[ "$status" != 0 ]
	[[ $output == *"'tmp/suid' belongs to 0:0"* ]]
	as_user podctl exec alien -- test -e /tmp/suid # it runs as before
	as_user podctl kill -s KILL -a alien
}

@test "what is opened and made anew for a user is the user's: kernel addresses stay hidden, a listener is not root" {
	as_user sh -c "cat >$MINE/opened.py" <<-'END'
		import os, socket, struct, time
		k = os.open('/proc/kallsyms', os.O_RDONLY)
		s = socket.socket(socket.AF_UNIX)
		s.bind('/tmp/l')
		s.listen(4)
		print('ready', flush=True)
		while not os.path.exists('/tmp/go'):
		    time.sleep(0.05) # there is no event for a file that comes
		c = socket.socket(socket.AF_UNIX)
		c.connect('/tmp/l')
		peer = struct.unpack('3i', c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
		print(os.read(k, 16).decode(), peer[1], flush=True)
	END
	pod -d -n opened -N nodeA -- /usr/bin/python3 "$MINE/opened.py"
	said() { as_user podctl logs opened | grep -q "$1"; }
	await said ready
	as_user podmigrate opened nodeB
	as_user podctl exec opened -- touch /tmp/go
	await said '^0000000000000000 1000$'
}
