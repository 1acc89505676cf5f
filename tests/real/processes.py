# SPDX-License-Identifier: GPL-3.0-or-later
# Runs in a pod, see tests/real/scripts. Processes of multiprocessing around a pool, a queue, a manager,
# a shared memory block, a semaphore and a lock; each result is checked.
import hashlib
import multiprocessing as mp
import os
import signal
import struct
import sys
import threading
import time
from multiprocessing import shared_memory

SLOTS = 256
counts = {}
stop = threading.Event()


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


def ignore():
    # SIGTERM goes to all; the parent says when the others end
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def digest(item):
    n, data = item
    h = data
    for _ in range(50):
        h = hashlib.sha256(h).digest()
    return n, h


def produce(q, ended, number):
    ignore()
    n = 0
    while not ended.is_set():
        q.put((number, n, bytes([n & 255]) * (n % 3000)))
        n += 1
    q.put((number, None, n))


def bump(lock, value, array, name, ended):
    """All add to the same counters under a lock, and to a block that is attached by its name."""
    ignore()
    block = shared_memory.SharedMemory(name)
    n = 0
    while not ended.is_set():
        with lock:
            value.value += 1
            i = value.value % SLOTS
            array[i] += 1
            struct.pack_into("QQ", block.buf, i * 16, value.value, value.value ^ 0x5555)
        n += 1
        if n % 100 == 0:
            time.sleep(0.001)
    block.close()


def relay(sem, there, back):
    ignore()
    while True:
        item = there.recv()
        if item is None:
            return
        with sem:
            back.send(item[::-1])


@guarded
def pooled(pool):
    n = 0
    while not stop.is_set():
        items = [(i, os.urandom(500)) for i in range(n, n + 40)]
        got = dict(pool.imap_unordered(digest, items, chunksize=3))
        if got != dict(map(digest, items)):
            fail("pool: other digests in round %d" % (n // 40))
        n += 40
        counts["pool"] = n


@guarded
def consumed(q, producers):
    want = [0] * producers
    left = producers
    while left:
        number, n, data = q.get(timeout=60)
        if n is None:
            if data != want[number]:
                fail("queue: producer %d put %d items, %d came" % (number, data, want[number]))
            left -= 1
            continue
        if n != want[number] or data != bytes([n & 255]) * (n % 3000):
            fail("queue: expected item %d of producer %d, got %d" % (want[number], number, n))
        want[number] += 1
        counts["queue"] = counts.get("queue", 0) + 1


@guarded
def managed(manager):
    shared, lock, line = manager.dict(), manager.Lock(), manager.list()
    n = 0
    while not stop.is_set():
        with lock:
            shared[n % 100] = n
            line.append(n)
            if len(line) > 50:
                del line[0]
        if shared[n % 100] != n or line[-1] != n:
            fail("manager: expected %d, got %r and %r" % (n, shared[n % 100], line[-1]))
        n += 1
        counts["manager"] = n


@guarded
def relayed(here, there_from):
    n = 0
    while not stop.is_set():
        data = os.urandom(1 + n * 97 % 100000)
        here.send(data)
        if not there_from.poll(60) or there_from.recv() != data[::-1]:
            fail("pipe: item %d came back wrong" % n)
        n += 1
        counts["pipe"] = n
    here.send(None)


def main():
    signal.signal(signal.SIGTERM, lambda *a: stop.set())
    spawn = mp.get_context("spawn")
    ended, lock = mp.Event(), mp.Lock()
    value, array = mp.Value("Q", 0, lock=False), mp.Array("Q", SLOTS, lock=False)
    block = shared_memory.SharedMemory(create=True, size=SLOTS * 16)
    q = mp.Queue(64)
    pool = mp.Pool(3, initializer=ignore)
    manager = mp.managers.SyncManager()
    manager.start(ignore)
    producers = [mp.Process(target=produce, args=(q, ended, i)) for i in range(2)]
    bumpers = [mp.Process(target=bump, args=(lock, value, array, block.name, ended)) for i in range(3)]
    a, b = spawn.Pipe()
    c, d = spawn.Pipe()
    sem = spawn.Semaphore(2)  # must live until the child has opened it by its name
    other = spawn.Process(target=relay, args=(sem, b, c))
    for p in producers + bumpers + [other]:
        p.start()
    threads = [threading.Thread(target=f, args=args) for f, args in (
        (pooled, (pool,)), (consumed, (q, len(producers))), (managed, (manager,)), (relayed, (a, d)))]
    for t in threads:
        t.start()
    print("ready", flush=True)
    while not stop.wait(0.2):
        for p in producers + bumpers + [other]:
            if not p.is_alive():
                fail("%s has ended with %s" % (p.name, p.exitcode))
    ended.set()
    for t in threads:
        t.join(60)
        if t.is_alive():
            fail("thread %s does not end" % t.name)
    for p in producers + bumpers + [other]:
        p.join(60)
        if p.exitcode != 0:
            fail("%s: expected status 0, got %s" % (p.name, p.exitcode))
    if sum(array) != value.value:
        fail("array: expected a sum of %d, got %d" % (value.value, sum(array)))
    for v in range(max(1, value.value - SLOTS + 1), value.value + 1):
        got = struct.unpack_from("QQ", block.buf, v % SLOTS * 16)
        if got != (v, v ^ 0x5555):
            fail("block: expected %d, got %r" % (v, got))
    block.close()
    block.unlink()
    pool.close()
    pool.join()
    manager.shutdown()
    counts["shared"] = value.value
    for what in ("pool", "queue", "manager", "pipe", "shared"):
        if counts.get(what, 0) < 20:
            fail("%s: did nothing" % what)
    print("%d rounds" % counts["pool"])
    print("ok", flush=True)


if __name__ == "__main__":
    import multiprocessing.managers  # noqa: F401
    sys.exit(main())
