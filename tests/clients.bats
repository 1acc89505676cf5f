#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-3.0-or-later
# The checking clients must see what is wrong, else a move that loses bytes would pass with them.

bats_require_minimum_version 1.5.0
load lib

setup_file() {
	export T=${B:-build}/tests PORT=$((20000 + $$ % 9000))
	export D=$BATS_FILE_TMPDIR
}

teardown() {
	for p in ${server:-} ${client:-}; do
		kill "$p" 2>/dev/null && wait "$p" || true
	done
}

# python: $1 is run with one accepted connection "c"; what it leaves open ends with it
bad_server() {
	python3 - "$PORT" "$D/listening" <<-END 3>&- &
	import socket, sys, struct
	s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
	open(sys.argv[2], "w").write("listening")
	s.settimeout(60)
	c = s.accept()[0]
	c.settimeout(60)
	$1
	END
	server=$!
	await grep -qs listening "$D/listening"
	rm "$D/listening"
}

@test "streamcheck: both directions at once, no error" {
	timeout 180 "$T/streamcheck" -l -a 127.0.0.1 "$PORT" >"$D/server" 3>&- &
	server=$!
	await grep -qs ready "$D/server"
	run timeout 60 "$T/streamcheck" -c 3 -t 1 127.0.0.1 "$PORT"
	[ "$status" = 0 ]
	jq -e '.errors == 0 and .sent > 1000000 and .received > 1000000' <<<"${lines[1]}"
	kill -TERM $server
	wait $server
	jq -e '.errors == 0 and .connections == 3' <<<"$(tail -n 1 "$D/server")"
}

@test "streamcheck: the totals of both ends agree" {
	timeout 180 "$T/streamcheck" -l -a 127.0.0.1 "$PORT" >"$D/server" 3>&- &
	server=$!
	await grep -qs ready "$D/server"
	run timeout 60 "$T/streamcheck" -t 1 127.0.0.1 "$PORT"
	kill -TERM $server
	wait $server
	[ "$(jq .sent <<<"${lines[1]}")" = "$(tail -n 1 "$D/server" | jq .received)" ]
	[ "$(jq .received <<<"${lines[1]}")" = "$(tail -n 1 "$D/server" | jq .sent)" ]
}

@test "streamcheck: a wrong byte, an early end and a reset are errors" {
	bad_server 'c.sendall(struct.pack("<QQ", 0x4b43455243545350, 7) + struct.pack("<I", 64) + bytes(64))'
	run timeout 60 "$T/streamcheck" -t 5 127.0.0.1 "$PORT"
	[ "$status" = 1 ]
	[[ $output == *"a wrong byte"* ]]
	wait $server

	bad_server 'c.sendall(struct.pack("<QQ", 0x4b43455243545350, 7)); c.shutdown(socket.SHUT_WR)
list(iter(lambda: c.recv(65536), bytes()))'
	run timeout 60 "$T/streamcheck" -t 5 127.0.0.1 "$PORT"
	[ "$status" = 1 ]
	[[ $output == *"ended in the middle"* ]]
	wait $server

	bad_server 'c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()'
	run timeout 60 "$T/streamcheck" -t 5 127.0.0.1 "$PORT"
	[ "$status" != 0 ] # 2 when it comes before connect() has returned
	wait $server
}

@test "redis_check: counts; a wrong value and a lost connection are errors" {
	redis-server --port "$PORT" --bind 127.0.0.1 --save '' --dir "$D" >"$D/redis" 3>&- &
	server=$!
	await grep -qs 'Ready to accept' "$D/redis"
	run timeout 60 "$T/redis_check" -c 4 -n 3000 127.0.0.1 "$PORT"
	[ "$status" = 0 ]
	jq -e '.errors == 0 and .requests >= 3000 and .connections == 4' <<<"${lines[1]}"

	timeout 180 "$T/redis_check" -c 2 -t 60 127.0.0.1 "$PORT" >"$D/client" 2>&1 3>&- &
	client=$!
	await grep -qs ready "$D/client"
	for k in $(redis-cli -p "$PORT" --scan --pattern 'check:*:0:n'); do
		redis-cli -p "$PORT" incr "$k" >/dev/null
	done
	rc=0
	await grep -qs 'wrong reply' "$D/client"
	kill -TERM $client
	wait $client || rc=$?
	[ $rc = 1 ]

	timeout 180 "$T/redis_check" -c 2 -t 60 127.0.0.1 "$PORT" >"$D/client" 2>&1 3>&- &
	client=$!
	await grep -qs ready "$D/client"
	redis-cli -p "$PORT" client kill type normal >/dev/null
	rc=0
	wait $client || rc=$?
	[ $rc = 1 ]
	kill -TERM $server
	wait $server
}

@test "http_check: checks bodies, counts refused connections" {
	head -c 200000 /dev/urandom >"$D/body"
	printf 'daemon off; user root; pid %s/pid; error_log %s/err; events {} http { access_log off;
		server { listen 127.0.0.1:%s; root %s; } }' "$D" "$D" "$PORT" "$D" >"$D/nginx.conf"
	/usr/sbin/nginx -e "$D/err" -c "$D/nginx.conf" 3>&- &
	server=$!
	run timeout 60 "$T/http_check" -n 200 -f "$D/body" 127.0.0.1 "$PORT" /body
	[ "$status" = 0 ]
	jq -e '.errors == 0 and .requests >= 200 and .connections >= 200' <<<"${lines[1]}"

	head -c 200000 /dev/urandom >"$D/other"
	run timeout 60 "$T/http_check" -t 1 -n 5 -f "$D/other" 127.0.0.1 "$PORT" /body
	[ "$status" = 1 ]
	[[ $output == *"a wrong byte"* ]]
	run timeout 60 "$T/http_check" -t 1 -n 5 -f "$D/body" 127.0.0.1 "$PORT" /missing
	[ "$status" = 1 ]

	timeout 180 "$T/http_check" -t 60 -f "$D/body" 127.0.0.1 "$PORT" /body >"$D/client" 2>"$D/client.err" 3>&- &
	client=$!
	await grep -qs ready "$D/client"
	kill -TERM $server
	wait $server
	await grep -q refused "$D/client.err"
	kill -TERM $client
	rc=0
	wait $client || rc=$?
	[ $rc = 1 ]
	jq -e '.refused > 0' <<<"$(tail -n 1 "$D/client")"
}
