# SPDX-License-Identifier: GPL-3.0-or-later
# Runs in a pod, see tests/real/scripts. Threads around a queue, a data base, children, sockets.
import hashlib
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

stop = threading.Event()
counts = {}
work = queue.Queue(50)
done = queue.Queue()
sent = 0


def fail(words):
    print("FAIL: " + words, flush=True)
    os._exit(1)


def guarded(fn):
    def body(*args):
        try:
            fn(*args)
        except BaseException as e:
            fail("%s: expected no exception, got %r" % (fn.__name__, e))
    return body


@guarded
def hasher(n):
    while True:
        item = work.get()
        if item is None:
            return
        number, data, digest = item
        if hashlib.sha256(data).hexdigest() != digest:
            fail("item %d: wrong digest" % number)
        done.put(number)
        counts[n] = counts.get(n, 0) + 1


@guarded
def echo(sock):
    while True:
        data = sock.recv(65536)
        if not data:
            return
        sock.sendall(data)


@guarded
def talker(sock):
    n = 0
    while not stop.is_set():
        block = hashlib.sha256(b"%d" % n).digest() * 300
        sock.sendall(block)
        got = b""
        while len(got) < len(block):
            got += sock.recv(65536)
        if got != block:
            fail("echo %d: other bytes" % n)
        n += 1
        counts["echo"] = n
    sock.shutdown(socket.SHUT_WR)


@guarded
def database(path):
    # without file locks, which cannot be carried yet
    db = sqlite3.connect("file:%s?nolock=1" % path, uri=True)
    db.execute("pragma journal_mode=truncate")
    db.execute("create table t (n integer primary key, sq integer)")
    n = 0
    while not stop.is_set():
        with db:
            db.execute("insert into t values (?, ?)", (n, n * n))
        n += 1
        rows, total = db.execute("select count(*), sum(sq) from t").fetchone()
        if rows != n or total != sum(i * i for i in range(n)):
            fail("data base: expected %d rows, got %d, sum %d" % (n, rows, total))
        if n >= 500:
            with db:
                db.execute("delete from t")
            n = 0
        counts["rows"] = counts.get("rows", 0) + 1


@guarded
def children():
    n = 0
    while not stop.is_set():
        text = "line %d\n" % n * 100
        r = subprocess.run(["sort", "-r"], input=text, capture_output=True, text=True,
                           start_new_session=True)  # SIGTERM goes to our group ...
        if r.returncode == -signal.SIGTERM and stop.wait(60):
            return  # ... of which a child is a member until it has a session of its own
        if r.returncode or r.stdout != text:
            fail("child %d: status %d, %d bytes" % (n, r.returncode, len(r.stdout)))
        n += 1
        counts["children"] = n


@guarded
def sleeper():
    while not stop.is_set():
        t0 = time.monotonic()
        time.sleep(0.05)
        if time.monotonic() - t0 < 0.0499:
            fail("sleep: expected 50 ms, got %f" % (time.monotonic() - t0))
        counts["sleeps"] = counts.get("sleeps", 0) + 1


def main():
    global sent
    signal.signal(signal.SIGTERM, lambda *a: stop.set())
    listener = socket.create_server(("127.0.0.1", 0))
    a = socket.create_connection(listener.getsockname())
    b = listener.accept()[0]
    c, d = socket.socketpair()
    # on a file system that both nodes share: sqlite watches the inode number of its file
    path = os.path.join(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None), "data.db")
    hashers = [threading.Thread(target=hasher, args=(n,)) for n in range(8)]
    others = [threading.Thread(target=f, args=args) for f, args in (
        (echo, (b,)), (talker, (a,)), (echo, (d,)), (talker, (c,)), (database, (path,)),
        (children, ()), (sleeper, ()))]
    for t in hashers + others:
        t.start()
    print("ready", flush=True)
    while not stop.is_set():
        data = os.urandom(2000)
        work.put((sent, data, hashlib.sha256(data).hexdigest()))
        sent += 1
        if sent % 50 == 0:
            time.sleep(0.01)
    for t in hashers:
        work.put(None)
    for t in hashers + others:
        t.join(60)
        if t.is_alive():
            fail("thread %s does not end" % t.name)
    numbers = []
    while not done.empty():
        numbers.append(done.get())
    if sorted(numbers) != list(range(sent)):
        fail("queue: expected %d items, got %d" % (sent, len(numbers)))
    for what in ("echo", "rows", "children", "sleeps"):
        if counts.get(what, 0) < 2:
            fail("%s: did nothing" % what)
    print("%d rounds" % sent)
    print("ok", flush=True)


if __name__ == "__main__":
    sys.exit(main())
