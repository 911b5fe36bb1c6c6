# SPDX-License-Identifier: Apache-2.0
"""What the tests of `scenelog watch` share: an RTSP server, scenelog itself, a relay, and judging what came of it.

Standard library only. Environment: BUILD (folder of ./scenelog), SRCDIR.
"""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "samples"))
from matching import matched  # for the tests, which import it from here

BUILD, SRCDIR = Path(os.environ.get("BUILD", ".")), Path(os.environ.get("SRCDIR", "."))
SCENELOG = str(BUILD / "scenelog")
MODEL = str(SRCDIR / "samples" / "demo-model")
CLIPS = SRCDIR / "samples" / "clips"
JPEG = ("videotestsrc is-live=true pattern=%s ! video/x-raw,format=I420,width=%d,height=%d,framerate=%d/1"
        " ! jpegenc ! rtpjpegpay name=pay0")


class Failure(Exception):
    pass


def skip(why):
    print(why)
    sys.exit(77)


def expect(condition, what):
    if not condition:
        raise Failure(what)


def free_port():
    """One that the system gives to nobody who connects, so that a server that is killed gets it again."""
    while True:
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", random.randrange(20000, 30000)))
                return s.getsockname()[1]
            except OSError:
                pass


def unix(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()


class Server:
    """GStreamer's RTSP server, in a process of its own."""

    def __init__(self, port, mounts, *options):
        self.port, self.mounts, self.options, self.process = port, mounts, options, None

    def start(self):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(SRCDIR / "tests/tools/rtsp_server.py"), *self.options, str(self.port),
             *["%s=%s" % m for m in self.mounts.items()]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            why = self.process.stderr.read()
            if self.process.wait() == 77:
                skip(why.strip() or "no RTSP server here")
            raise Failure("the RTSP server does not start: " + why)
        return self

    def url(self, mount, login=""):
        return "rtsp://%s127.0.0.1:%d/%s" % (login, self.port, mount)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process.stderr.close()
            self.process = None


class Watch:
    """scenelog watch; its lines are collected as they come, each with the time it came."""

    def __init__(self, db, *arguments):
        self.db, self.metrics_port = db, free_port()
        self.arguments = [SCENELOG, "watch", "-m", MODEL, "-d", str(db), "--jsonl", "--metrics",
                          "127.0.0.1:%d" % self.metrics_port, *map(str, arguments)]
        self.lines, self.said, self.process = [], [], None

    def start(self, env=None):
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for stream, into in ((self.process.stdout, self.lines), (self.process.stderr, self.said)):
            threading.Thread(target=self.collect, args=(stream, into), daemon=True).start()
        return self

    @staticmethod
    def collect(stream, into):
        for line in stream:
            into.append((time.time(), line.rstrip("\n")))

    def events(self):
        return [(at, json.loads(line)) for at, line in list(self.lines)]

    def metrics(self):
        text = urllib.request.urlopen("http://127.0.0.1:%d/metrics" % self.metrics_port, timeout=5).read().decode()
        return {m[1]: float(m[2]) for m in re.finditer(r"^(scenelog_\S+) (\S+)$", text, re.M)}

    def figure(self, name, source):
        return self.metrics()['scenelog_source_%s{source="%s"}' % (name, source)]

    def wait_for(self, what, seconds, condition):
        until = time.time() + seconds
        while time.time() < until:
            try:
                if condition():
                    return
            except OSError:
                pass
            expect(self.process.poll() is None, "scenelog ended: %s" % self.said[-3:])
            time.sleep(0.2)
        raise Failure("not within %g s: %s; it said %s" % (seconds, what, self.said[-5:]))

    def memory_kb(self):
        status = Path("/proc/%d/status" % self.process.pid).read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def files(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def stop(self, how=signal.SIGTERM, seconds=30):
        self.process.send_signal(how)
        return self.process.wait(timeout=seconds)


def check(db):
    """What `scenelog check --json` says."""
    done = subprocess.run([SCENELOG, "check", "--json", str(db)], capture_output=True, text=True)
    expect(done.returncode in (0, 1), "check: %s" % done.stderr)
    return json.loads(done.stdout)


def spans(report, source):
    """[(start, end, state, cause)] in Unix seconds, in the order of time."""
    out = []
    for work in report["works"]:
        if work["source"] == source:
            for s in work["coverage"]:
                expect(s["wall_start"] is not None, "%s: a span without wall time" % source)
                at = unix(s["wall_start"])
                out.append((at, at + (s["end_us"] - s["start_us"]) / 1e6, s["state"], s["cause"]))
    return sorted(out)


def explains(report, source, begin, end, slack=0.5):
    """Every moment of [begin, end] lies in one span, and in one only."""
    found = spans(report, source)
    expect(found, "%s: nothing is covered" % source)
    last = max(s[1] for s in found)
    expect(found[0][0] <= begin + 2 and last >= end - 2,
           "%s: covered from %.1f to %.1f of 0 to %.1f; at last %s" %
           (source, found[0][0] - begin, last - begin, end - begin, found[-3:]))
    for before, after in zip(found, found[1:]):
        gap = after[0] - before[1]
        expect(abs(gap) <= slack, "%s: %.3f s are covered by %s at %.1f" %
               (source, abs(gap), "nothing" if gap > 0 else "two spans", before[1] - begin))
    expect(all(s[2] != "never" for s in found), "%s: a span was never looked at: %s" % (source, found))
    return found


def seconds_of(found, state, cause=""):
    return sum(end - start for start, end, s, c in found if s == state and cause in (c or ""))


def query(db, source):
    done = subprocess.run([SCENELOG, "query", "-d", str(db), "--source", source, "--limit", "0", "--format", "jsonl"],
                          capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def truth(clip):
    lines = Path(str(clip).replace(".mp4", ".jsonl")).read_text().splitlines()
    return [(e["start_us"] / 1e6, e["end_us"] / 1e6, e["text"]) for e in map(json.loads, lines)]


def align(found, true):
    """The wall time of the clip's beginning: the one under which most is right."""
    offsets = [f[0] - t[0] for f in found for t in true if f[2] == t[2]]
    best = max(offsets, default=0, key=lambda o: sum(abs(o - x) < 0.5 for x in offsets))
    near = sorted(x for x in offsets if abs(best - x) < 0.5)
    return near[len(near) // 2] if near else 0


class Relay:
    """Stands between scenelog and an RTSP server: TCP, and the UDP that is agreed on in it.

    drop: part of the UDP packets that are lost, and of the TCP chunks that come half a second late (TCP itself sends
    them again); delay: the most that one waits; black: nothing passes while it is set; rename: what the server's answers
    say, and what comes of it.
    """

    def __init__(self, server_port, drop=0.0, delay=0.0, reports=True, rename=(b"", b"")):
        self.random, self.server_port, self.drop, self.delay, self.black = random.Random(1), server_port, drop, delay, False
        self.reports, self.rename = reports, rename
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.stopping = self.listener.getsockname()[1], False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while not self.stopping:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.server_port))
            except OSError:
                continue
            threading.Thread(target=self.carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.carry, args=(server, client, False), daemon=True).start()

    def lag(self):
        time.sleep(self.random.uniform(0, self.delay))
        while self.black:
            time.sleep(0.05)

    def carry(self, source, to, is_request):
        try:
            while chunk := source.recv(65536):
                self.lag()
                if self.random.random() < self.drop:
                    time.sleep(0.5)
                if is_request and b"client_port=" in chunk:
                    chunk = re.sub(rb"client_port=(\d+)-(\d+)", self.agree, chunk)
                to.sendall(chunk if is_request or not self.rename[0] else chunk.replace(*self.rename))
        except OSError:
            pass
        for s in (source, to):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def agree(self, ports):
        """Two UDP ports of our own instead of the client's."""
        while True:
            first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            first.bind(("127.0.0.1", 0))
            second = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
                if first.getsockname()[1] % 2 == 0:
                    break
            except OSError:
                pass
            first.close()
            second.close()
        for own, to, is_report in ((first, ports[1], False), (second, ports[2], True)):
            threading.Thread(target=self.carry_packets, args=(own, int(to), is_report), daemon=True).start()
        return b"client_port=%d-%d" % (first.getsockname()[1], second.getsockname()[1])

    def carry_packets(self, own, to, is_report):
        own.settimeout(30)
        try:
            while True:
                packet = own.recv(65536)
                if self.black or self.random.random() < self.drop or (is_report and not self.reports):
                    continue
                if self.delay:
                    threading.Timer(self.random.uniform(0, self.delay), own.sendto, (packet, ("127.0.0.1", to))).start()
                else:
                    own.sendto(packet, ("127.0.0.1", to))
        except OSError:
            own.close()


def main(tests):
    """Runs the tests named in the arguments, else all; each gets a folder of its own."""
    names = sys.argv[1:] or [t.__name__ for t in tests]
    failed = 0
    for test in tests:
        if test.__name__ not in names:
            continue
        began, folder = time.time(), tempfile.mkdtemp()
        try:
            test(Path(folder))
            print("PASS %s (%.0f s)" % (test.__name__, time.time() - began), flush=True)
            shutil.rmtree(folder)
        except (Failure, OSError, subprocess.SubprocessError) as failure:
            print("FAIL %s (%.0f s): %s\nwhat it made is in %s" % (test.__name__, time.time() - began, failure, folder),
                  flush=True)
            failed += 1
    sys.exit(failed != 0)
