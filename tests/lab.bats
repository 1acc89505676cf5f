#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# The lab itself: what the other tests rely on.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	is_root || return 0
	export LAB_NAME=labtest$$
	export LAB=$BATS_TEST_DIRNAME/../deploy/lab/lab
	"$LAB" up -n 2 --no-daemons
}

teardown_file() { lab_down; }

setup() { is_root || skip "must be root"; }

lab() { "$LAB" "$@"; }

# everything of this lab that the machine itself can see
traces() {
	grep -c "podmigrate-lab-$LAB_NAME" /proc/self/mountinfo
	ls -d "/run/podmigrate-lab/$LAB_NAME" "$1"/podmigrate-lab-"$LAB_NAME" 2>/dev/null
	ip netns list | grep "$LAB_NAME"
	# a dead process that the machine's init has not reaped yet shows its cgroup as deleted
	grep -h "/podmigrate-lab-$LAB_NAME/" /proc/[0-9]*/cgroup 2>/dev/null | grep -v '(deleted)$'
	true
}

cgroup2() { findmnt -no TARGET -t cgroup2 | head -n 1; }

@test "each host has namespaces, a name and an address of its own" {
	for ns in pid net mnt uts ipc cgroup time; do
		a=$(lab exec nodeA -- readlink /proc/self/ns/$ns)
		b=$(lab exec nodeB -- readlink /proc/self/ns/$ns)
		[ "$a" != "$b" ]
		[ "$a" != "$(readlink /proc/self/ns/$ns)" ]
		[ "$b" != "$(readlink /proc/self/ns/$ns)" ]
	done
	[ "$(lab exec nodeB -- hostname)" = nodeB ]
	lab exec nodeB -- ip -4 addr show dev pod0 | grep -q 'inet 10.77.0.2/16'
	lab exec client1 -- ip -4 addr show dev eth0 | grep -q 'inet 10.77.1.1/16'
	lab exec nodeA -- ip link show dev eth0 | grep -q 'master pod0'
}

@test "the clocks of hosts differ by 1000 s, and so do their boot ids" {
	a=$(lab exec nodeA -- cut -d. -f1 /proc/uptime)
	b=$(lab exec nodeB -- cut -d. -f1 /proc/uptime)
	((b - a >= 1000 && b - a < 1010))
	a=$(lab exec nodeA -- cat /proc/sys/kernel/random/boot_id)
	b=$(lab exec nodeB -- cat /proc/sys/kernel/random/boot_id)
	[ "$a" != "$b" ]
	[ "$a" != "$(cat /proc/sys/kernel/random/boot_id)" ]
}

@test "hosts reach each other and nothing else" {
	lab exec nodeB -- python3 -c '
import socket
s = socket.create_server(("10.77.0.2", 5555))
open("/home/shared/listening", "w").close()
s.settimeout(60)
c, peer = s.accept()
c.sendall(peer[0].encode())' 3>&- &
	server=$!
	await test -e "/run/podmigrate-lab/$LAB_NAME/shared/listening"
	run lab exec client1 -- bash -c 'exec 3<>/dev/tcp/nodeB/5555 && cat <&3'
	[ "$output" = 10.77.1.1 ]
	wait $server
	[ -z "$(lab exec nodeA -- ip route show default)" ]
}

@test "a host writes everywhere without a trace outside; /home/shared is common" {
	lab exec nodeA -- sh -c 'echo A >/etc/labtest; echo A >/root/labtest; echo A >/home/shared/common'
	[ ! -e /etc/labtest ]
	[ ! -e /root/labtest ]
	run lab exec nodeB -- cat /etc/labtest
	[ "$status" -ne 0 ]
	[ "$(lab exec nodeB -- cat /home/shared/common)" = A ]
	[ "$(lab exec nodeB -- cat "/run/podmigrate-lab/$LAB_NAME/shared/common")" = A ]
}

@test "a host's cgroup is the root of its hierarchy" {
	lab exec nodeA -- mkdir /sys/fs/cgroup/podmigrate
	[ -d "$(cgroup2)/podmigrate-lab-$LAB_NAME/nodeA/podmigrate" ]
	lab exec nodeA -- rmdir /sys/fs/cgroup/podmigrate
	[ "$(lab exec nodeA -- cat /proc/self/cgroup | grep ^0:)" = 0::/system ]
}

@test "exec: exit codes, stdin, users, signals, environment" {
	run lab exec nodeA -- sh -c 'exit 7'
	[ "$status" = 7 ]
	run lab exec nodeA -- sh -c 'kill -9 $$'
	[ "$status" = 137 ]
	run -127 lab exec nodeA -- /no/such/program
	[ "$(echo words | lab exec nodeA -- cat)" = words ]
	[ "$(lab exec --user 65534 nodeA -- id -u)" = 65534 ]
	run lab exec --user nobody nodeA -- sh -c 'echo x >/etc/labtest2'
	[ "$status" -ne 0 ]
	"$LAB" exec nodeA -- sleep 600 3>&- &
	await lab exec nodeA -- pgrep -xf 'sleep 600'
	kill -TERM $!
	code=0
	wait $! || code=$?
	[ $code = 143 ]
	run lab exec nodeA -- pgrep -xf 'sleep 600'
	[ "$status" -ne 0 ]
	[ "$(WORD='a b' lab exec nodeA -- sh -c 'echo "$WORD"')" = 'a b' ]
}

@test "kill: a node's death takes everything in it, and its cable" {
	lab exec nodeB -- sh -c 'mkdir /sys/fs/cgroup/frozen; sleep 601 & echo $! >/sys/fs/cgroup/frozen/cgroup.procs
		echo 1 >/sys/fs/cgroup/frozen/cgroup.freeze'
	lab kill nodeB
	lab status | grep -q '^nodeB *down'
	run pgrep -f 'sleep 601'
	[ "$status" -ne 0 ]
	run nsenter -t "$(cut -d: -f1 "/run/podmigrate-lab/$LAB_NAME/hosts/fabric/pid1")" -n ip link show v-nodeB
	[ "$status" -ne 0 ]
	run lab exec nodeB -- true
	[ "$status" = 1 ]
	lab up -n 2 --no-daemons
	lab exec nodeB -- true
}

@test "reboot: same name, address and disk; new boot id, clock, /run and /tmp" {
	before=$(lab exec nodeA -- cat /proc/sys/kernel/random/boot_id)
	lab exec nodeA -- sh -c 'echo kept >/var/lib/labtest; echo gone >/run/labtest; echo gone >/tmp/labtest'
	lab reboot nodeA
	[ "$(lab exec nodeA -- cat /proc/sys/kernel/random/boot_id)" != "$before" ]
	[ "$(lab exec nodeA -- cat /var/lib/labtest)" = kept ]
	run lab exec nodeA -- ls /run/labtest
	[ "$status" -ne 0 ]
	run lab exec nodeA -- ls /tmp/labtest
	[ "$status" -ne 0 ]
	[ "$(lab exec nodeA -- hostname)" = nodeA ]
	lab exec nodeA -- ip -4 addr show dev pod0 | grep -q 'inet 10.77.0.1/16'
	up=$(lab exec nodeA -- cut -d. -f1 /proc/uptime)
	((up < 100))
}

@test "up is idempotent; labs live side by side" {
	pid=$(lab pid nodeA)
	lab up -n 2 --no-daemons
	[ "$(lab pid nodeA)" = "$pid" ]
	lab up --name "$LAB_NAME-2" -n 1 --clients 0 --no-daemons
	[ "$(lab exec --name "$LAB_NAME-2" nodeA -- hostname)" = nodeA ]
	[ "$(lab pid --name "$LAB_NAME-2" nodeA)" != "$pid" ]
	lab down --name "$LAB_NAME-2"
	lab exec nodeA -- true
}

@test "wrong names are refused" {
	run lab exec nodeZ -- true
	[ "$status" = 1 ]
	[[ $output == *"has no host 'nodeZ'"* ]]
	run lab up --name '../x'
	[ "$status" = 1 ]
	run lab up -n 27
	[ "$status" = 1 ]
}

@test "down leaves nothing, also after everything was killed" {
	cg=$(cgroup2)
	export LAB_NAME=$LAB_NAME-3
	lab up -n 2 --no-daemons
	[ -n "$(traces "$cg" | grep -v '^0$')" ]
	for h in fabric head nodeA; do
		kill -9 "$(cut -d: -f1 "/run/podmigrate-lab/$LAB_NAME/hosts/$h/pid1")"
	done
	lab down
	[ "$(traces "$cg")" = 0 ]
	# half a lab: the record is gone, the processes are not
	lab up -n 1 --no-daemons
	umount -l "/run/podmigrate-lab/$LAB_NAME"
	lab down
	[ "$(traces "$cg")" = 0 ]
	lab down
}

@test "daemons: started, killed and started again, rebooted, with a pod's end at down" {
	cg=$(cgroup2)
	export LAB_NAME=$LAB_NAME-4
	lab up -n 2 --faults --bin "${B:-build}/bin"
	eval "$(lab env)"
	[ "$(podctl nodes --noheadings | awk '$2 == "up"' | wc -l)" = 2 ]
	pid=$(lab pid nodeA podagent)
	tr '\0' '\n' <"/proc/$pid/environ" | grep -qx "POD_FAULT_FILE=$LAB_DIR/faults/nodeA"
	lab exec nodeA -- test -w "$LAB_DIR/faults/nodeA"

	podrun -d -n sleeper -N nodeA -- sleep 602
	lab stop nodeA --kill
	lab status | grep -q '^nodeA .*podagent not running'
	lab exec nodeA -- pgrep -f 'sleep 602'
	lab start nodeA
	[ "$(podctl nodes --noheadings | awk '$2 == "up"' | wc -l)" = 2 ]
	[ "$(lab pid nodeA podagent)" != "$pid" ]
	podps --noheadings | grep -q '^sleeper .*running'
	[ "$(lab exec --user nobody client1 -- podctl nodes --noheadings | wc -l)" = 2 ]

	lab reboot nodeB
	[ "$(podctl nodes --noheadings | awk '$2 == "up"' | wc -l)" = 2 ]
	grep -q 'listens at' <(lab logs nodeB)
	lab stop head
	lab start head podcoord
	podps --noheadings | grep -q '^sleeper .*running'
	lab down
	[ "$(traces "$cg")" = 0 ]
	run pgrep -f 'sleep 602'
	[ "$status" -ne 0 ]
}
