# Evergreen: small work in gevent, the peer of `micro`.
# SPDX-License-Identifier: MIT
#
# usage: gevent-micro.py TEST N, and one line of JSON, per operation; status 2 for a test it does not have.

import json
import os
import sys
import time

import gevent
import gevent.lock
import gevent.queue
import gevent.socket
import greenlet

BATCH = 1000
LIVE = 1_000_000


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Measurement:
    def __init__(self):
        self.memory = resident()
        self.cpu = time.process_time_ns()
        self.wall = time.monotonic_ns()

    def end(self, n, wall=None, memory=None):
        wall = time.monotonic_ns() - self.wall if wall is None else wall
        cpu = time.process_time_ns() - self.cpu
        memory = resident() - self.memory if memory is None else memory
        print(json.dumps({"n": n, "ns": round(wall / n, 2), "cpu_ns": round(cpu / n, 2),
                          "rss_bytes": round(memory / n, 2)}, separators=(",", ":")))


def nothing():
    pass


def spawn_join(n):
    gevent.joinall([gevent.spawn(nothing) for _ in range(BATCH)])
    m = Measurement()
    for done in range(0, n, BATCH):
        for g in [gevent.spawn(nothing) for _ in range(min(BATCH, n - done))]:
            g.join()
    m.end(n)


def spawn_join_seq(n):
    m = Measurement()
    for _ in range(n):
        gevent.spawn(nothing).join()
    m.end(n)


def switch_yield(n):
    each = -(-n // BATCH)

    def work():
        for _ in range(each):
            gevent.sleep(0)

    m = Measurement()
    gevent.joinall([gevent.spawn(work) for _ in range(BATCH)])
    m.end(each * BATCH)


def switch_raw(n):
    main = greenlet.getcurrent()

    def work():
        while True:
            main.switch()

    other = greenlet.greenlet(work)
    other.switch()
    m = Measurement()
    for _ in range(n // 2 + 1):
        other.switch()
    m.end(2 * (n // 2 + 1))


def sleepers(n):
    m = Measurement()
    deadline = m.wall + 1_000_000_000 + n * 50_000
    asleep = 0

    def work():
        nonlocal asleep
        asleep += 1
        gevent.sleep((deadline - time.monotonic_ns()) / 1e9)

    all = [gevent.spawn(work) for _ in range(n)]
    while asleep < n:
        gevent.sleep(0)
    made, memory = time.monotonic_ns() - m.wall, resident() - m.memory
    if time.monotonic_ns() > deadline:
        sys.exit("gevent-micro: creating took longer than the sleep")
    for g in all:
        g.join()
    m.end(n, made + time.monotonic_ns() - deadline, memory)


def timers(n):
    m = Measurement()
    for _ in range(n):
        with gevent.Timeout(5):
            pass
    m.end(n)


def timers_churn(n):
    """A million live timers of one hour, one begun 100 ns after the other; an operation cancels the oldest and starts
    a new one."""
    live = [gevent.Timeout.start_new(3600 + i * 1e-7) for i in range(LIVE)]
    m = Measurement()
    for i in range(n):
        live[i % LIVE].close()
        live[i % LIVE] = gevent.Timeout.start_new(3600 + (LIVE + i) * 1e-7)
    m.end(n)
    sys.stdout.flush()
    os._exit(0)  # closing a million timers is not measured, and takes its time


def getaddrinfo(n):
    m = Measurement()
    for g in [gevent.spawn(gevent.socket.getaddrinfo, "localhost", 80) for _ in range(n)]:
        g.get()
    m.end(n)


def passing(n, queue):
    def put():
        for i in range(n):
            queue.put(i)
        queue.put(StopIteration)

    m = Measurement()
    gevent.spawn(put)
    for _ in queue:
        pass
    m.end(n)


def channel(n):
    passing(n, gevent.queue.Channel())


def queue(n):
    passing(n, gevent.queue.Queue(1024))


def semaphore(n):
    permits = gevent.lock.Semaphore(1)
    m = Measurement()
    for _ in range(n):
        permits.acquire()
        permits.release()
    m.end(n)


TESTS = {"spawn_join": spawn_join, "spawn_join_seq": spawn_join_seq, "switch_yield": switch_yield,
         "switch_raw": switch_raw, "sleepers": sleepers, "sleepers_1m": lambda _: sleepers(1_000_000),
         "timers": timers, "timers_churn": timers_churn, "getaddrinfo": getaddrinfo,
         "channel": channel, "queue": queue, "semaphore": semaphore}

if len(sys.argv) != 3 or sys.argv[1] not in TESTS or not sys.argv[2].isdigit() or int(sys.argv[2]) < 1:
    print(f"usage: gevent-micro.py TEST N, where TEST is one of {', '.join(TESTS)}", file=sys.stderr)
    sys.exit(2)
TESTS[sys.argv[1]](int(sys.argv[2]))
