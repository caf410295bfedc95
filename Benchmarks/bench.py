#!/usr/bin/env python3
# Evergreen: runs the benchmarks and prints one table.
# SPDX-License-Identifier: MIT
#
# Scripts/bench builds what is measured and then runs this. The figure is CPU time of the server per operation, read
# by the load generator from the kernel's clock of that process at both ends of its window. (A server at the speed of
# C costs as much per operation as its load generator, so wall time would measure the latter.) Server and generator
# have a core each, the same for all peers; peers take turns in rounds (A B C, A B C, ...), so that what disturbs the
# machine for a while disturbs all of them; a ratio is the median over the rounds of the ratios within a round.
#
# Nothing fails in silence. What cannot be run is named with the reason; a server that dies, a wrong byte or a time
# limit is reported on stderr and under the table, its cell says FAILED, and the status is 1.

import argparse
import atexit
import contextlib
import ctypes
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = Path(os.environ.get("EVERGREEN_BENCH_BUILT", HERE.parent / ".build" / "bench"))
VENV_PYTHON = BUILT / "gevent-venv" / "bin" / "python"

SERVER_START_LIMIT = 20
QUIET_LOAD = 0.35  # load average per core above which the machine counts as busy
QUIET_WAIT = 0.03  # part of a window that a server may have to wait for its core, taken by others, to count as quiet


class BenchError(Exception):
    """A run that went wrong; the text says how."""


# --- Who takes part ---------------------------------------------------------------------------------------------------


class Peer:
    def __init__(self, name, title, server, micro=None):
        self.name, self.title, self.server, self.micro = name, title, server, micro

    def why_skipped(self):
        """None, or why this peer cannot run."""
        note = BUILT / f"{self.name}.skipped"
        if note.exists():
            return note.read_text().strip()
        for part in self.server:
            if not Path(part).exists():
                return f"{Path(part).name} has not been built (Scripts/bench does)"
        return None


def peers():
    def built(name):
        return [str(BUILT / name)]

    def script(name):
        return [str(VENV_PYTHON), str(HERE / "peers" / name)]

    return [
        Peer("libev", "C libev", built("libev-echo"), built("micro-libev")),
        Peer("evergreen", "Evergreen", built("evergreen-echo"), built("micro")),
        Peer("async", "Swift async", [], built("async-micro")),
        Peer("nio", "SwiftNIO", built("nio-echo")),
        Peer("go", "Go", built("go-echo"), built("go-micro")),
        Peer("gevent", "gevent", script("gevent-echo.py"), script("gevent-micro.py")),
    ]


# --- Processes: pinned, bounded, and gone when this ends --------------------------------------------------------------

living = set()
libc = ctypes.CDLL(None)


def end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    living.discard(process)


@atexit.register
def end_all():
    for process in list(living):
        process.kill()
        process.wait()


def start(command, core, **options):
    def before():
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not even a killed driver leaves children
        os.sched_setaffinity(0, core if isinstance(core, set) else {core})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    process = subprocess.Popen(command, preexec_fn=before, text=True, **options)
    living.add(process)
    return process


def run_json(command, core, limit):
    """Runs a program that prints one line of JSON."""
    process = start(command, core, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{Path(command[0]).name} {' '.join(command[1:3])}: not done after {limit:.0f} s") from None
    finally:
        end(process)
    if process.returncode != 0:
        raise BenchError(f"{Path(command[0]).name} ended with status {process.returncode}: {err.strip()[-600:]}")
    try:
        return json.loads(out)
    except ValueError:
        raise BenchError(f"{Path(command[0]).name} printed no JSON but {out[:200]!r}") from None


class Server:
    """An echo server, from start to stop: `with Server(command, core) as server`."""

    def __init__(self, command, core, traced_to=None):
        self.command, self.core, self.traced_to = command, core, traced_to
        self.name = Path(command[-1]).name

    def __enter__(self):
        self.errors = tempfile.TemporaryFile("w+")
        command = self.command
        if self.traced_to:
            command = ["strace", "-f", "-c", "-o", self.traced_to, "--", *command]
        self.process = start(command, self.core, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        try:
            self.port = self.wait_for_port()
        except BaseException:
            self.stop()
            raise
        return self

    def wait_for_port(self):
        text, deadline = "", time.monotonic() + SERVER_START_LIMIT
        while "\n" not in text:
            ready, _, _ = select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise BenchError(f"{self.name} did not say where it listens within {SERVER_START_LIMIT} s")
            some = os.read(self.process.stdout.fileno(), 4096).decode()
            if not some:
                raise BenchError(f"{self.name} ended before it listened: {self.said()}")
            text += some
        found = re.match(r"listening on 127\.0\.0\.1:(\d+)\s", text)
        if not found:
            raise BenchError(f"{self.name} said {text!r} instead of \"listening on 127.0.0.1:PORT\"")
        return int(found[1])

    @property
    def pid(self):
        if not self.traced_to:
            return self.process.pid
        for entry in Path("/proc").iterdir():  # the child of strace
            with contextlib.suppress(OSError, ValueError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    return int(entry.name)
        raise BenchError(f"cannot find {self.name} under strace")

    def said(self):
        self.errors.seek(0)
        return self.errors.read().strip()[-600:] or "(nothing on stderr)"

    def resident(self):
        """Bytes; from smaps_rollup, because statm lags behind by some pages per core."""
        try:
            rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
            return int(re.search(r"^Rss:\s+(\d+) kB", rollup, re.M)[1]) * 1024
        except (OSError, TypeError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * resource.getpagesize()

    def stop(self):
        if self.traced_to and self.process.poll() is None:
            # strace writes its summary when what it traces ends
            with contextlib.suppress(BenchError, ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        end(self.process)
        self.process.stdout.close()

    def __exit__(self, kind, error, trace):
        died = self.process.poll()
        self.stop()
        said = self.said()
        self.errors.close()
        if isinstance(error, BenchError):
            how = f"the server ended with status {died}" if died is not None else "the server lived"
            raise BenchError(f"{error}; {how}; its stderr: {said}") from None
        if error is None and died is not None:
            raise BenchError(f"{self.name} ended with status {died} on its own; its stderr: {said}")
        if error is None and said != "(nothing on stderr)":
            warn(f"{self.name} wrote to stderr: {said}")


def warn(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


# --- The tests --------------------------------------------------------------------------------------------------------


class Settings:
    """How long and how often, and on which cores."""

    def __init__(self, options):
        quick = options.quick
        self.rounds = options.rounds or (1 if quick else 5)
        self.seconds = .3 if quick else 2
        self.warmup = .15 if quick else .4
        self.quick = quick
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.load_core = options.cores or (cores[0], cores[-1])
        rest = set(cores) - {self.server_core, self.load_core}
        if rest:
            os.sched_setaffinity(0, rest)

    def load(self, server, mode, *arguments, limit=60):
        command = [str(BUILT / "load"), mode, "--port", str(server.port), "--limit", str(limit), *map(str, arguments)]
        return run_json(command, self.load_core, limit + 5)

    def measure(self, peer, mode, *arguments, longer=1):
        with Server(peer.server, self.server_core) as server:
            return self.load(server, mode, "--pid", server.pid, "--seconds", self.seconds * longer,
                             "--warmup", self.warmup * longer, *arguments)


class Row:
    """A line of the table: a figure of the samples of one test.

    `ratio`: compare with the baseline. `baselines`: the peers to compare with, the first that has the figure.
    """

    def __init__(self, title, figure, unit, ratio=True, baselines=("libev",)):
        self.title, self.figure, self.unit, self.ratio, self.baselines = title, figure, unit, ratio, baselines


class Test:
    def __init__(self, name, group, run, rows, only=None, rounds=None, why_skipped=None):
        self.name, self.group, self.run, self.rows = name, group, run, rows
        self.only, self.rounds, self.why_skipped = only, rounds, why_skipped or (lambda: None)

    def takes(self, peer):
        return peer.name in self.only if self.only else bool(peer.server)


def cpu(sample):
    return sample["cpu_ns"] / sample["ops"]


def figure(key):
    return lambda sample: sample[key]


def echo_test(settings, connections):
    # A round trip of 10,000 takes a quarter of a second where the server is slow. The window has to hold many of
    # them, or the echoes that are under way at its ends count.
    longer = 1 if connections < 10000 else 4 if settings.quick else 2

    def run(peer):
        return settings.measure(peer, "echo", "--connections", connections, longer=longer)

    def why_skipped():
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < connections + 100:
            return f"a process may have {most} descriptors here (ulimit -Hn)"
        return None

    many = f"{connections:,} connection{'s' if connections > 1 else ''}"
    return Test(f"echo_{connections}", "echo", run, [
        Row(f"echo, {many}: CPU per echo", cpu, "time"),
        Row(f"echo, {many}: p50", figure("p50_ns"), "time"),
        Row(f"echo, {many}: p99", figure("p99_ns"), "time"),
    ], why_skipped=why_skipped)


def churn_test(settings):
    return Test("churn", "churn", lambda peer: settings.measure(peer, "churn", "--connections", 50), [
        Row("connect, one echo, close: CPU", cpu, "time"),
        Row("connect, one echo, close: p99", figure("p99_ns"), "time"),
    ])


def bulk_test(settings):
    return Test("bulk", "bulk", lambda peer: settings.measure(peer, "bulk", "--connections", 10), [
        Row("64 KiB there and back, 10 connections: CPU", cpu, "time"),
        Row("64 KiB there and back, 10 connections: p99", figure("p99_ns"), "time"),
    ])


def fairness_test(settings):
    def run(peer):
        return settings.measure(peer, "fairness", "--connections", 8, "--cold", 10, "--interval", 5)

    return Test("fairness", "fairness", run, [
        Row("8 hot connections, 64 KiB pipelined: p99 of 10 cold ones", figure("cold_p99_ns"), "time"),
        Row("the same of the cold one that was worst off", figure("coldest_p99_ns"), "time"),
        Row("p99 of the hot ones", figure("p99_ns"), "time"),
        Row("p99 of the cold ones / of the hot ones", lambda s: s["cold_p99_ns"] / s["p99_ns"], "times", ratio=False),
    ])


def syscalls_test(settings):
    few, many = (200, 4200) if settings.quick else (1000, 21000)

    def calls(peer, count):
        with tempfile.NamedTemporaryFile("r") as summary:
            with Server(peer.server, settings.server_core, traced_to=summary.name) as server:
                ops = settings.load(server, "echo", "--connections", 50, "--count", count,
                                    "--lockstep")["ops"]
            lines = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*?(\S+)$", summary.read(), re.M)
        rows = [int(number) for number, name in lines if name != "total"]
        if not rows:
            raise BenchError("strace wrote no summary")
        return sum(rows), ops

    def run(peer):
        # The difference of two runs: start-up, the connections and their ends are in both. In lockstep, so that
        # being slowed down by strace spares nobody the EAGAIN that it meets at full speed (see load.c).
        (less, fewer), (more, ops) = calls(peer, few), calls(peer, many)
        return {"calls": (more - less) / (ops - fewer)}

    return Test("syscalls", "syscalls", run, [
        Row("system calls per echo, 50 connections", figure("calls"), "calls")
    ], rounds=1, why_skipped=lambda: None if shutil.which("strace") else "strace is not installed")


def memory_test(settings):
    first, more = (500, 2000) if settings.quick else (1000, 9000)

    def run(peer):
        with Server(peer.server, settings.server_core) as server, contextlib.ExitStack() as stack:
            def hold(connections):
                load = start([str(BUILT / "load"), "idle", "--port", str(server.port), "--connections",
                              str(connections)], settings.load_core, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
                stack.callback(end, load)
                stack.callback(load.stdin.close)
                if not select.select([load.stdout], [], [], 40)[0] or not load.stdout.readline():
                    end(load)
                    why = load.stderr.read().strip() or "not within 40 s"
                    raise BenchError(f"{connections} idle connections: {why}")
                time.sleep(.3 if settings.quick else 1)
                return server.resident()

            before = hold(first)
            return {"bytes": (hold(more) - before) / more}

    def why_skipped():
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < first + more + 100:
            return f"a process may have {most} descriptors here (ulimit -Hn)"
        return None

    return Test("memory", "memory", run, [
        Row(f"memory per idle connection, {first + more:,} of them", figure("bytes"), "bytes", ratio=False)
    ], rounds=1, why_skipped=why_skipped)


def available_memory():
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def micro_tests(settings):
    def micro(name, n, title, with_memory=False, slow=None, only=None, rounds=None, why_skipped=None, limit=90,
              on_both=False):
        def run(peer):
            operations = slow if peer.name == "gevent" and slow else n
            if settings.quick and name != "sleepers_1m":
                operations = max(operations // 10, 1)
            # What goes from thread to thread has two cores, and its figure is the time that it takes.
            cores = {settings.server_core, settings.load_core} if on_both else settings.server_core
            return run_json([*peer.micro, name, str(operations)], cores, limit)

        base = ("libev", "go")
        rows = [Row(title, figure("ns" if on_both else "cpu_ns"), "time", baselines=base)]
        if with_memory:
            rows.append(Row(f"{title.partition(':')[0]}: memory of each", figure("rss_bytes"), "bytes",
                            baselines=base))
        only = only or {"evergreen", "go", "gevent"}
        return Test(name, "micro", run, rows, only=only, rounds=rounds, why_skipped=why_skipped)

    def too_much():
        if settings.quick:
            return "not in a quick run"
        if available_memory() < 8 << 30:
            return "it needs 8 GiB of memory"
        return None

    with_c = {"libev", "evergreen", "go", "gevent"}
    return [
        micro("spawn_join", 3_000_000, "spawn + join, batches of 1,000", slow=60_000),
        micro("spawn_join_seq", 2_000_000, "spawn + join, one at a time", slow=60_000),
        micro("switch_yield", 10_000_000, "yield among 1,000", slow=300_000),
        micro("switch_raw", 20_000_000, "raw switch", slow=3_000_000, only={"evergreen", "gevent"}),
        micro("sleepers", 100_000, "100,000 sleepers: create and wake" if not settings.quick
              else "10,000 sleepers: create and wake", with_memory=True, rounds=1),
        micro("sleepers_1m", 1, "1,000,000 sleepers: create and wake", with_memory=True, rounds=1,
              only={"evergreen", "go"}, why_skipped=too_much),
        micro("timers", 5_000_000, "timeout around nothing", slow=200_000, only=with_c),
        micro("timers_churn", 2_000_000, "timer start + cancel, a million live", slow=100_000, only=with_c),
        micro("channel", 5_000_000, "channel rendezvous, per item", slow=100_000),
        micro("queue", 20_000_000, "queue of 1,024, per item", slow=300_000,
              only={"evergreen", "go", "gevent", "async"}),
        micro("select", 2_000_000, "select over two channels, per item", only={"evergreen", "go"}),
        micro("semaphore", 50_000_000, "semaphore: acquire + release", slow=3_000_000),
        micro("getaddrinfo", 1_000, "1,000 getaddrinfo of localhost at once, each", only=with_c),
        micro("hub_await", 50_000, "greenlet awaits a task, two cores", only={"evergreen"}, on_both=True),
        micro("hub_await_here", 200_000, "greenlet awaits a task on its own hub", only={"evergreen"}),
        micro("hub_call", 50_000, "call of another hub and back, two cores", only={"evergreen"}, on_both=True),
        micro("hub_ping", 50_000, "message to another hub and back, two cores", only={"evergreen"}, on_both=True),
        micro("hub_stream", 2_000_000, "messages to another hub, each, two cores", only={"evergreen"}, on_both=True),
    ]


def all_tests(settings):
    return [
        *(echo_test(settings, connections) for connections in (1, 50, 1000, 10000)),
        churn_test(settings), bulk_test(settings), fairness_test(settings), syscalls_test(settings),
        *micro_tests(settings), memory_test(settings),
    ]


# --- The table --------------------------------------------------------------------------------------------------------


def three_digits(value):
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shown(value, unit):
    if unit == "time":
        for name, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1)):
            if value >= size:
                return f"{three_digits(value / size)} {name}"
        return f"{value:.2f} ns"
    if unit == "bytes":
        return f"{value:,.0f} B"
    return f"{value:.2f}"


class Results:
    def __init__(self):
        self.samples = {}   # (test, peer) -> one per round; None where it failed
        self.failures = []  # sentences
        self.skipped = []

    def add(self, test, peer, sample):
        self.samples.setdefault((test.name, peer.name), []).append(sample)

    def figures(self, test, row, peer_name):
        return [None if sample is None else row.figure(sample)
                for sample in self.samples.get((test.name, peer_name), [])]

    def baseline(self, test, row, names):
        for name in row.baselines:
            if name in names and any(value is not None for value in self.figures(test, row, name)):
                return name
        return None

    def cell(self, test, row, peer, names):
        values = self.figures(test, row, peer.name)
        good = [value for value in values if value is not None]
        if not values:
            return "–"
        if not good:
            return "FAILED"
        text = shown(statistics.median(good), row.unit)
        base = self.baseline(test, row, names) if row.ratio else None
        if base and base != peer.name:
            pairs = zip(values, self.figures(test, row, base))
            ratios = [value / other for value, other in pairs if value is not None and other]
            if ratios:
                text += f" ({statistics.median(ratios):.2f} ×)"
        return text if len(good) == len(values) else f"{text}, {len(values) - len(good)} FAILED"

    def unsteady(self, tests, names):
        """Where the rounds of one peer differ by more than a tenth of their median, in what is compared."""
        found = []
        for test in tests:
            row = test.rows[0]
            for name in names:
                good = [value for value in self.figures(test, row, name) if value is not None]
                if len(good) > 1 and max(good) - min(good) > .1 * statistics.median(good):
                    least, most = shown(min(good), row.unit), shown(max(good), row.unit)
                    found.append(f"{test.name} of {name} ({least} to {most})")
        return found

    def disturbed(self):
        """How many windows there were, and in how many other programs took the server's core for a while."""
        windows = [sample for samples in self.samples.values() for sample in samples if sample and "wait_ns" in sample]
        return len(windows), sum(sample["wait_ns"] > QUIET_WAIT * sample["wall_ns"] for sample in windows)

    def table(self, tests, taking_part):
        names = [peer.name for peer in taking_part]
        lines = ["| | " + " | ".join(peer.title for peer in taking_part) + " |",
                 "|---|" + "---:|" * len(taking_part)]
        for test in tests:
            if not any((test.name, name) in self.samples for name in names):
                continue
            for row in test.rows:
                title = row.title
                base = self.baseline(test, row, names)
                if row.ratio and base not in (None, "libev"):
                    title += f" (× {next(peer.title for peer in taking_part if peer.name == base)})"
                cells = [self.cell(test, row, peer, names) for peer in taking_part]
                lines.append(f"| {title} | {' | '.join(cells)} |")
        return "\n".join(lines)


def first_line(command):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        if done.returncode == 0:
            return (done.stdout or done.stderr).strip().splitlines()[0]
    return None


def machine(settings):
    model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    parts = [
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores "
        f"(server on {settings.server_core}, load on {settings.load_core})",
        f"Linux {platform.release()}",
        first_line(["swift", "--version"]),
        first_line(["cc", "--version"]),
        first_line(["go", "version"]),
        first_line([str(VENV_PYTHON), "-c", "import gevent, platform as p; "
                    "print('gevent', gevent.__version__, 'on Python', p.python_version())"]),
    ]
    with contextlib.suppress(OSError, ValueError, KeyError, StopIteration):
        pins = json.loads((HERE / "Package.resolved").read_text())["pins"]
        parts.append("SwiftNIO " + next(p["state"]["version"] for p in pins if p["identity"] == "swift-nio"))
    return "; ".join(part for part in parts if part)


# --- Main -------------------------------------------------------------------------------------------------------------


def chosen(text, known, what):
    """Names, by comma, that must be known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        sys.exit_usage(f"no {what} \"{', '.join(unknown) or text}\"; there are {', '.join(known)}")
    return names


def parse():
    parser = argparse.ArgumentParser(
        prog="Scripts/bench", description="Measures Evergreen against C libev, SwiftNIO, Go and gevent, and prints one "
        "table. Peers that are not installed are skipped by name.")
    parser.add_argument("--quick", action="store_true", help="one short round of everything: within a minute, noisy")
    parser.add_argument("--only", metavar="TESTS", help="by comma: echo, churn, bulk, fairness, syscalls, micro, "
                        "memory, or single ones such as echo_50 and spawn_join")
    parser.add_argument("--peers", metavar="PEERS", help="by comma: libev, evergreen, nio, go, gevent; libev always "
                        "takes part, the others are compared with it")
    parser.add_argument("--rounds", type=int, help="how often each peer has its turn; 5, in a quick run 1")
    parser.add_argument("--cores", metavar="A,B", help="the server's core and the load generator's; the first and the "
                        "last that are allowed")
    parser.add_argument("--time-limit", type=float, default=2400, metavar="S",
                        help="print what there is, as a failure, after so long; 2400")
    options = parser.parse_args()
    sys.exit_usage = parser.error
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.cores:
        try:
            options.cores = tuple(int(core) for core in options.cores.split(","))
            if len(options.cores) != 2 or not set(options.cores) <= os.sched_getaffinity(0):
                raise ValueError
        except ValueError:
            parser.error(f"--cores: wanted two of {sorted(os.sched_getaffinity(0))}, by comma")
    return options


class TimeIsUp(Exception):
    pass


def interrupted(number, frame):
    raise TimeIsUp if number == signal.SIGALRM else SystemExit(128 + number)


def main():
    options = parse()
    settings = Settings(options)
    tests = all_tests(settings)
    if options.only:
        known = list(dict.fromkeys([test.group for test in tests] + [test.name for test in tests]))
        names = chosen(options.only, known, "test")
        tests = [test for test in tests if test.name in names or test.group in names]
    taking_part = peers()
    if options.peers:
        names = chosen(options.peers, [peer.name for peer in taking_part], "peer")
        taking_part = [peer for peer in taking_part if peer.name in names or peer.name == "libev"]

    results = Results()
    for peer in list(taking_part):
        why = peer.why_skipped()
        if why:
            results.skipped.append(f"{peer.title}: {why}")
            taking_part.remove(peer)
    if not (BUILT / "load").exists():
        sys.exit(f"bench: {BUILT / 'load'} has not been built; Scripts/bench does that")
    if not taking_part:
        sys.exit("bench: no peer can run: " + "; ".join(results.skipped))
    load_before = os.getloadavg()[0]
    notes = []
    if settings.server_core == settings.load_core:
        notes.append("server and load generator share the one core there is")
    if load_before > QUIET_LOAD * os.cpu_count():
        notes.append(f"the machine was busy with other things at the start (load average {load_before:.1f})")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, interrupted)
    signal.setitimer(signal.ITIMER_REAL, options.time_limit)
    began = time.monotonic()
    try:
        for test in tests:
            why = test.why_skipped()
            if why:
                results.skipped.append(f"{test.name}: {why}")
                continue
            for number in range(test.rounds or settings.rounds):
                for peer in taking_part:
                    if not test.takes(peer):
                        continue
                    try:
                        sample = test.run(peer)
                        head = shown(test.rows[0].figure(sample), test.rows[0].unit)
                    except (BenchError, OSError, KeyError, ZeroDivisionError) as error:
                        sample, head = None, f"FAILED: {error if isinstance(error, BenchError) else repr(error)}"
                        results.failures.append(f"{test.name} of {peer.name}, round {number + 1}: {head[8:]}")
                    results.add(test, peer, sample)
                    print(f"{test.name:16} round {number + 1}  {peer.name:10} {head}", file=sys.stderr, flush=True)
    except TimeIsUp:
        results.failures.append(f"not done after {options.time_limit:.0f} s: the table is incomplete")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

    unsteady = results.unsteady(tests, [peer.name for peer in taking_part])
    if unsteady:
        notes.append("rounds that differ by more than 10 %: " + ", ".join(unsteady))
    windows, disturbed = results.disturbed()
    if disturbed:
        notes.append(f"in {disturbed} of {windows} windows the server had to wait for its core for more than "
                     f"{QUIET_WAIT:.0%} of the time, because others ran there: these figures are noisy")
    print(results.table(tests, taking_part))
    print()
    print(f"{machine(settings)}. CPU is the server's; (×) is against C libev in the same round, median of "
          f"{settings.rounds} round{'s' if settings.rounds > 1 else ''}. {time.monotonic() - began:.0f} s.")
    for name in results.skipped:
        print(f"\nSkipped: {name}.")
    for note in notes:
        print(f"\nNote: {note}.")
    for failure in results.failures:
        print(f"\nFAILED: {failure}")
    with contextlib.suppress(OSError):
        (BUILT / "results.json").write_text(json.dumps(
            {f"{test} {peer}": samples for (test, peer), samples in results.samples.items()}, indent=1))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
