#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The long tests of `scenelog watch`: `make check-live`, or `make check-live LIVE="outage network"` for some.

LIVE_MINUTES [60]: how long the longest (soak, time_of_pictures) are; the others take what they need up to that.
"""
import functools
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer

from harness import (BUILD, CLIPS, JPEG, MODEL, SCENELOG, SRCDIR, Relay, Server, Watch, align, check, expect, explains,
                     free_port, main, matched, query, seconds_of, spans, truth, unix)

MINUTES = float(os.environ.get("LIVE_MINUTES", "60"))


def up_to(seconds):
    return min(seconds, MINUTES * 60)


def say(*words):
    print("   ", *words, flush=True)


def end(watch, server=None):
    if server:
        server.kill()
    if watch.process and watch.process.poll() is None:
        watch.process.kill()
        watch.process.wait()


# ---- Time

def read_samples(url, seconds, *more, share=0.9, env=None):
    done = subprocess.run([str(BUILD / "build/tests/tools/sl-live"), url, str(seconds), *more], capture_output=True,
                          text=True, timeout=seconds + 60, env=env)
    expect(done.returncode == 0, done.stderr)
    rows = [line.split() for line in done.stdout.splitlines()]
    read = [(int(w) / 1e6, (int(w) - int(b)) / 1e6, origin, int(segment), int(error) / 1e6)
            for w, b, origin, error, segment in rows if b != "-1"]
    expect(len(read) > seconds * 2 * share, "%d of %d samples could be read" % (len(read), len(rows)))
    return read


def worst(samples):
    return max(abs(s[1]) for s in samples)


def painted_clock(seconds, reports, results):
    """Reads two cameras at once, one of them slower than it says; with and without their sender reports."""
    server = Server(free_port(), {"good": "clock:25:25", "slow": "clock:25:21"}).start()
    relay = Relay(server.port, reports=reports)
    try:
        threads = [threading.Thread(target=lambda m=m: results.__setitem__(
            (reports, m), read_samples("rtsp://127.0.0.1:%d/%s" % (relay.port, m), seconds, "udp"))) for m in ("good", "slow")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        server.kill()
        relay.stopping = True


def time_of_pictures(_):
    """The wall time of sampled pictures against the clock that is painted into them."""
    seconds, results = up_to(3600), {}
    rounds = [threading.Thread(target=painted_clock, args=(seconds, reports, results)) for reports in (True, False)]
    for thread in rounds:
        thread.start()
    for thread in rounds:
        thread.join()
    expect(len(results) == 4, "a stream could not be read: of %s" % list(results))
    for reports, limit, origin in ((True, 0.1, "camera"), (False, 0.5, "arrival")):
        good, slow = results[reports, "good"], results[reports, "slow"]
        drift = abs(statistics.mean(s[1] for s in good[-20:]) - statistics.mean(s[1] for s in good[20:40]))
        say("%s, %.0f s: wall time within %.3f s of the painted one, drift %.4f s; at 21 instead of 25: %.3f s, "
            "after 20 s %.3f s" % (origin, seconds, worst(good), drift, worst(slow), worst(slow[40:])))
        expect(good[-1][2] == origin, "its clock is %s" % good[-1][2])
        expect(worst(good) < limit and drift < 0.1 and worst(slow) < 0.5 and
               worst(slow[40:]) < 0.1, "too far off")


def wrap_around(_):
    """RTP timestamps wrap around: nothing is seen of it."""
    server = Server(free_port(), {"cam": "clock:25:25:18"}).start()
    try:
        read = read_samples(server.url("cam"), 36)
    finally:
        server.kill()
    say("within %.3f s, %d segment" % (worst(read), read[-1][3]))
    expect(worst(read) < 0.1 and read[-1][2] == "camera" and read[-1][3] == 1, "wall time: %s" % read)


def make_clock_ahead(folder, ms):
    """An environment in which this machine's clock is set forward once `folder`/now exists; None without a compiler."""
    library = folder / "clock_ahead.so"
    make = ["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library, SRCDIR / "tests/tools/clock_ahead.c"]
    if not shutil.which("cc") or subprocess.run(make).returncode != 0:
        say("no C compiler: this machine's clock was not set")
        return None
    return {**os.environ, "LD_PRELOAD": str(library), "CLOCK_AHEAD": str(folder / "now"), "CLOCK_AHEAD_MS": str(ms)}


def bettered_segment(folder):
    """This machine's clock is set, a little, and then the camera's reports better the segment that began with it."""
    shim = make_clock_ahead(folder, 500)
    if not shim:
        return
    server = Server(free_port(), {"cam": "clock:25:25"}).start()
    relay, db = Relay(server.port, reports=False), folder / "index.db"
    watch = Watch(db, "--name", "cam", "--window", "5", "--rtsp-transport", "udp", "rtsp://127.0.0.1:%d/cam" % relay.port)
    began = time.time()
    watch.start(shim)
    try:
        watch.wait_for("two windows", 30, lambda: watch.figure("windows_done_total", "cam") >= 2)
        (folder / "now").touch()
        time.sleep(6)
        relay.reports = True
        time.sleep(16)
        expect(watch.stop() == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
        relay.stopping = True
    segments = sqlite3.connect(db).execute("SELECT clock FROM segment ORDER BY id").fetchall()
    expect(segments == [("arrival",), ("camera",)], "segments: %s" % segments)
    found = explains(check(db), "cam", began, time.time(), slack=0.7)
    say("%d spans, no two of them at the same time" % len(found))


def clock_step(folder):
    """The camera's clock is set 5 s forward, then 5 s back; this machine's is set 5 s forward."""
    shim = make_clock_ahead(folder, 5000)
    server = Server(free_port(), {"cam": "clock:25:25"}).start()
    db, seconds = folder / "index.db", 30
    watch = Watch(db, "--name", "cam", "--window", "5", server.url("cam")).start()
    began = time.time()
    try:
        # A report comes every 5 s or so: by 12 s the camera's word counts, by 12 s after the step the new one does.
        for step, ahead in ((signal.SIGUSR1, 5), (signal.SIGUSR2, 0)):
            threading.Timer(12, server.process.send_signal, [step]).start()
            read = read_samples(server.url("cam"), seconds)
            off = [s[1] for s in read]
            late = sum(abs(x) > 0.1 for x in off[24:])
            say("set by %+d s: at first %.3f s off, at last %.3f s, %d segments, %d samples of the old time" %
                (5 if ahead else -5, worst(read[16:22]), worst(read[-8:]), read[-1][3] - read[16][3] + 1, late))
            expect(worst(read[16:22]) < 0.1 and worst(read[-8:]) < 0.1, "wall time is off: %s" % off)
            expect(read[-1][3] == read[16][3] + 1 and late <= 14, "the step is not one segment more: %s" % read)
        if shim:
            threading.Timer(12, (folder / "now").touch).start()
            read = read_samples(server.url("cam"), seconds, env=shim)
            say("this machine's clock set by +5 s: at last %.3f s off, %d segments" % (worst(read[-8:]), read[-1][3]))
            expect(worst(read[10:]) < 0.1 and read[-1][2] == "camera", "the camera's word counts: %s" % read)
        expect(watch.stop() == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
    report = check(db)
    expect(not report["faults"], "the index has faults: %s" % report["faults"])
    found = spans(report, "cam")
    set_forward = seconds_of(found, "outage", "time leapt")
    again = sum(max(0, a[1] - b[0]) for a, b in zip(found, found[1:]))
    say("in the index: %.1f s that no clock showed, %.1f s shown twice" % (set_forward, again))
    # Of what is painted 5 s are skipped and 5 s come twice; so they are in the index, whose spans have no other hole.
    expect(abs(set_forward - 5) < 0.5 and abs(again - 5) < 0.5, "coverage: %s" % found)
    expect(all(b[0] - a[1] < 0.5 for a, b in zip(found, found[1:])) and found[0][0] < began + 2, "coverage: %s" % found)


class Playlists(SimpleHTTPRequestHandler):
    """A folder of HLS; below /undated/ the same without dates."""

    def translate_path(self, path):
        return super().translate_path(path.replace("/undated/", "/"))

    def send_head(self):
        if "/undated/" not in self.path or ".m3u8" not in self.path:
            return super().send_head()
        lines = open(self.translate_path(self.path), "rb").read().splitlines(True)
        text = b"".join(l for l in lines if not l.startswith(b"#EXT-X-PROGRAM-DATE-TIME"))
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        return io.BytesIO(text)

    def log_message(self, *_):
        pass


def make_segments(server, folder):
    return subprocess.Popen(
        ["ffmpeg", "-v", "error", "-probesize", "32", "-analyzeduration", "0", "-fflags", "nobuffer", "-i",
         server.url("cam"), "-r", "25", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "50",
         "-pix_fmt", "yuv420p", "-f", "hls", "-hls_time", "2", "-hls_list_size", "6", "-hls_flags",
         "program_date_time+delete_segments+temp_file+append_list+omit_endlist", folder / "live.m3u8"])


def hls(folder):
    """Segments with dates, in a list of variants and alone, and without: wall time is as right as the index says."""
    if not shutil.which("ffmpeg"):
        say("no ffmpeg to make segments with")
        return
    seconds = up_to(60)
    server = Server(free_port(), {"cam": "clock:25:25"}).start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Playlists, directory=str(folder)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    url = "http://127.0.0.1:%d/" % web.server_port
    (folder / "all.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=500000\nlive.m3u8\n")
    maker = make_segments(server, folder)
    try:
        time.sleep(14)
        for path, origin, limit in (("live.m3u8", "camera", 0.5), ("all.m3u8", "camera", 0.5), ("undated/live.m3u8", "arrival", 3)):
            read = read_samples(url + path, seconds)
            said = read[-1][4]
            say("%s: within %.3f s of the painted clock, the index says %.3f s" % (path, worst(read), said))
            expect(worst(read) <= min(said, limit) and said <= 3 and read[-1][2] == origin and read[-1][3] == 1,
                   "%s: %s" % (path, read[::10]))
        makers = [maker]
        threading.Timer(10, lambda: [maker.kill(), maker.wait(), makers.append(make_segments(server, folder))]).start()
        read = read_samples(url + "live.m3u8", 40, share=0.8)
        maker = makers[-1]
        say("its encoder restarted: within %.3f s, %d segments" % (worst(read), read[-1][3]))
        expect(worst(read) < 0.5 and read[-1][3] >= 2, "after a discontinuity: %s" % read)
    finally:
        maker.kill()
        maker.wait()
        server.kill()
        web.shutdown()


# ---- Outages

def outage(folder):
    """The server is gone for a while, and comes back with another codec and size."""
    for gone in (up_to(90), up_to(660)):
        port, db = free_port(), folder / ("index%d.db" % gone)
        server = Server(port, {"cam": CLIPS / "morning.mp4"}).start()
        watch = Watch(db, "--name", "cam", "--timeout", "5", server.url("cam")).start()
        began = time.time()
        try:
            watch.wait_for("a window", 30, lambda: watch.figure("windows_done_total", "cam") >= 1)
            server.kill()
            lost = time.time()
            time.sleep(gone)
            server = Server(port, {"cam": JPEG % ("ball", 640, 360, 15)}).start()
            back = time.time()
            watch.wait_for("it is back", 22, lambda: watch.figure("connected", "cam") == 1)
            resumed = time.time() - back
            watch.wait_for("a window", 30, lambda: watch.figure("windows_done_total", "cam") >= 3)
            expect(watch.stop() == 0, "SIGTERM does not end it well")
        finally:
            end(watch, server)
        found = explains(check(db), "cam", began, time.time())
        out = seconds_of([s for s in found if s[0] > lost - 2], "outage")
        say("gone for %.0f s: resumed %.1f s after its return, the outage in the index is %.1f s" % (gone, resumed, out))
        expect(resumed < 15 * 1.25 + 5 and abs(out - (back - lost) - resumed) < 3, "the outage is told wrong: %s" % found)
        codecs = [row[0] for row in sqlite3.connect(db).execute("SELECT codec FROM media ORDER BY id")]
        expect(len(codecs) == 2 and "h264 480x320" in codecs[0] and "mjpeg 640x360" in codecs[1], codecs)
        if gone == up_to(660):
            break


def ends_at_any_moment(folder):
    """Connections that end between samples: what was left of their last window is told, too."""
    db, names = folder / "index.db", ["cam%d" % i for i in range(12)]
    server = Server(free_port(), {"cam": JPEG % ("ball", 320, 240, 2)}).start()
    watch = Watch(db, "--window", "1", *[w for n in names for w in ("--name", n)], *[server.url("cam")] * 12).start()
    began, rng = time.time(), random.Random(3)
    try:
        for _ in range(6):
            time.sleep(rng.uniform(4, 6))
            server.kill()
            server.start()
        stopped = time.time()
        expect(watch.stop() == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
    report = check(db)
    expect(not report["faults"], "the index has faults: %s" % report["faults"])
    for name in names:
        explains(report, name, began, stopped)


# ---- Network

def network(folder):
    """Lost packets, delays, and silence, over TCP and over UDP."""
    seconds = up_to(180)
    server = Server(free_port(), {"cam": JPEG % ("ball", 320, 240, 25)}).start()
    for transport in ("tcp", "udp"):
        relay, db = Relay(server.port, drop=0.05, delay=0.2), folder / (transport + ".db")
        watch = Watch(db, "--name", "cam", "--timeout", "5", "--rtsp-transport", transport,
                      "rtsp://127.0.0.1:%d/cam" % relay.port).start()
        began = time.time()
        try:
            watch.wait_for("a window", 60, lambda: watch.figure("windows_done_total", "cam") >= 1)
            memory, files = watch.memory_kb(), watch.files()
            time.sleep(seconds / 2)
            done = watch.figure("windows_done_total", "cam")
            relay.black = True
            time.sleep(10)
            relay.black = False
            watch.wait_for("a window after the silence", 60, lambda: watch.figure("windows_done_total", "cam") > done + 1)
            time.sleep(seconds / 2)
            grown = watch.memory_kb() - memory
            damaged, decoded = watch.figure("frames_damaged_total", "cam"), watch.figure("frames_decoded_total", "cam")
            more_files = watch.files() - files
            expect(watch.stop() == 0, "SIGTERM does not end it well")
        finally:
            end(watch)
            relay.stopping = True
        found = explains(check(db), "cam", began, time.time())
        say("%s: %d pictures, %d damaged, memory +%d kB, files +%d, seen %.0f of %.0f s"
            % (transport, decoded, damaged, grown, more_files, seconds_of(found, "seen"), time.time() - began))
        expect(grown < 20000 and more_files <= 2, "memory or files grow")
        expect(seconds_of(found, "outage") >= 4, "the silence left no trace: %s" % found)
    server.kill()


# ---- Overload

def waits_of_windows(db):
    """Of each answered window: from its end on screen to its row, less the longer of the decodings it had to wait for."""
    rows = sqlite3.connect(db).execute(
        "SELECT segment.id, committed_us - wall_start_us - window.end_us + segment.start_us, elapsed_ms FROM window"
        " JOIN segment ON segment.id = segment WHERE state = 'done' ORDER BY segment.id, window.start_us").fetchall()
    waits, before = [], (None, 0, 0)
    for row in rows:
        waits.append(row[1] / 1e6 - max(row[2], before[2] if before[0] == row[0] else 0) / 1e3)
        before = row
    return waits


def overload(folder):
    """More than the machine can follow: drops are told, latency and memory are bounded, everyone gets a share."""
    seconds, streams, db = up_to(600), 12, folder / "index.db"
    server = Server(free_port(), {"cam": JPEG % ("ball", 384, 256, 30)}).start()
    names = ["cam%d" % i for i in range(streams)]
    watch = Watch(db, "--fps", "15", "--window", "4", "--threads", "1",
                  *[w for n in names for w in ("--name", n)], *[server.url("cam")] * streams).start()
    began = time.time()
    try:
        watch.wait_for("drops", 120, lambda: sum(watch.figure("windows_dropped_total", n) for n in names) > 10)
        memory, lags = None, []
        until = time.time() + seconds
        while time.time() < until:
            if memory is None and time.time() > until - seconds * 2 / 3:
                memory = watch.memory_kb()  # by now every camera has had all its buffers
            figures = watch.metrics()
            lags.append(max(figures['scenelog_source_lag_seconds{source="%s"}' % n] for n in names))
            time.sleep(2)
        grown = watch.memory_kb() - memory
        done = [watch.figure("windows_done_total", n) for n in names]
        dropped = [watch.figure("windows_dropped_total", n) for n in names]
        stopped = time.time()
        expect(watch.stop(seconds=60) == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
    say("%d streams: %.1f times what can be followed" % (streams, (sum(done) + sum(dropped)) / max(1, sum(done))))
    say("%d streams: %d windows done, %d dropped; of one stream %d to %d done; lag at most %.1f s; memory +%d kB"
        % (streams, sum(done), sum(dropped), min(done), max(done), max(lags), grown))
    report = check(db)
    for name in names:
        found = explains(report, name, began, stopped)
        expect(seconds_of(found, "dropped") > 0, "%s: no drops in the index" % name)
    expect(sum(dropped) > sum(done) * 0.3, "this is no overload")
    expect(min(done) >= 0.7 * max(done), "shares: %s" % done)
    expect(grown < 30000, "memory grows")
    expect(max(lags) < 2 * 4 + 4 + 4, "a row came %.1f s after its end" % max(lags))
    # Begun while at most two newer ones become full; then, however slow the machine is, there is its own decoding, or that
    # of the one before it, which is written first.
    waited = max(waits_of_windows(db))
    say("until the engine had it a window waited %.1f s at most, decoding apart" % waited)
    expect(waited < 2 * 4 + 2, "latency is not bounded")


# ---- Isolation

def make_clips(folder, count, seconds):
    """Clips of worlds of their own, and what is true of each; the demo clips where numpy is missing."""
    code = ("import sys; sys.path.insert(0, %r); import evaluate as E, json\n"
            "for i in range(%d):\n"
            " w = E.clip_world(99, i, %f); E.encode(w, %r + '/clip%%d.mp4' %% i)\n"
            " open(%r + '/clip%%d.jsonl' %% i, 'w').write(''.join(json.dumps({'start_us': int(e[0] * 1e6),"
            " 'end_us': int(e[1] * 1e6), 'text': e[2]}) + '\\n' for e in w.events))\n"
            % (str(SRCDIR / "samples"), count, seconds / 60, str(folder), str(folder)))
    for python in (os.environ.get("PYTHON", "python3"), "/usr/bin/python3"):
        if subprocess.run([python, "-c", "import numpy"], capture_output=True).returncode == 0:
            subprocess.run([python, "-c", code], check=True)
            return [folder / ("clip%d.mp4" % i) for i in range(count)]
    say("no numpy: the demo clips stand in for worlds of their own")
    return [sorted(CLIPS.glob("*.mp4"))[i % 3] for i in range(count)]


def f1(right, found, true):
    return 2 * right / max(1, found + true)


def isolation(folder):
    """Eight streams, each its own world: every event comes from the right one, as good as from files."""
    count, seconds = 8, up_to(240)
    clips = make_clips(folder, count, seconds)
    names = ["cam%d" % i for i in range(count)]
    server = Server(free_port(), dict(zip(names, clips))).start()
    db = folder / "live.db"
    watch = Watch(db, *[w for n in names for w in ("--name", n)], *map(server.url, names)).start()
    try:
        watch.wait_for("all connected", 30, lambda: all(watch.figure("connected", n) for n in names))
        until, lag = time.time() + seconds - 2, 0
        while time.time() < until:
            figures = watch.metrics()
            lag = max(lag, *(figures['scenelog_source_lag_seconds{source="%s"}' % n] for n in names))
            time.sleep(1)
        expect(watch.stop(seconds=60) == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
    live, files, foreign = [0, 0, 0], [0, 0, 0], 0
    for i, (name, clip) in enumerate(zip(names, clips)):
        true = truth(clip)
        got = [(e["wall_start_us"] / 1e6, e["wall_end_us"] / 1e6, e["text"]) if "wall_start_us" in e else
               (unix(e["wall_start"]), unix(e["wall_end"]), e["text"]) for e in query(db, name)]
        zero = align(got, true)
        # Watching ends a little before the clip does: what was going on then cannot be told rightly.
        got = [(s - zero, e - zero, t) for s, e, t in got if e - zero < seconds - 6]
        true_here = [t for t in true if t[1] < seconds - 6]
        right = matched(got, true_here)
        others = {t for j, c in enumerate(clips) if c != clip for _, _, t in truth(c)} - {t for _, _, t in true}
        foreign += sum(t in others for _, _, t in got) if len(set(clips)) == count else 0
        live = [a + b for a, b in zip(live, (right, len(got), len(true_here)))]
        one = folder / ("file%d.db" % i)
        subprocess.run([SCENELOG, "index", "--progress=none", "-m", MODEL, "-d", one, "--window", "10", clip], check=True)
        found = [(e["start_us"] / 1e6, e["end_us"] / 1e6, e["text"]) for e in query(one, clip.name)]
        found = [f for f in found if f[1] < seconds - 6]
        files = [a + b for a, b in zip(files, (matched(found, true_here), len(found), len(true_here)))]
    say("%d true events; F1 live %.3f, as files %.3f; %d events with a text of another stream alone; lag at most %.2f s"
        % (live[2], f1(*live), f1(*files), foreign, lag))
    expect(live[2] >= 200 or seconds < 240, "too few events to judge by")
    expect(abs(f1(*live) - f1(*files)) < 0.03 or f1(*live) > f1(*files), "F1 differs")
    expect(foreign <= 0.02 * live[1], "events of other streams")
    expect(lag < 2, "a window's row came %.1f s after its end" % lag)


# ---- Sinks

def broker():
    path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    return path if os.path.exists(path) and shutil.which("mosquitto_sub") else None


def dead_sinks(folder):
    """A URL that hangs, a command that crashes, a broker that goes and comes: nothing upstream notices."""
    port, hang = free_port(), socket.create_server(("127.0.0.1", 0))
    posted = []

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    taker = HTTPServer(("127.0.0.1", 0), Taker)
    threading.Thread(target=taker.serve_forever, daemon=True).start()
    server = Server(free_port(), {"cam": CLIPS / "evening.mp4"}).start()
    hooks = {"hanging": "http://127.0.0.1:%d/" % hang.getsockname()[1], "crashing": "kill -SEGV $$",
             "sleeping": "sleep 1000", "taking": "http://127.0.0.1:%d/events" % taker.server_port}
    rows = {}
    for name, hook in hooks.items():
        mqtt = ["--mqtt", "mqtt://127.0.0.1:%d/test" % port] if broker() else []
        watch = Watch(folder / (name + ".db"), "--name", "cam", "--on-event", hook, "--on-event-timeout", "2", *mqtt,
                      server.url("cam")).start()
        process = subscriber = None
        heard = []
        try:
            watch.wait_for("connected", 20, lambda: watch.figure("connected", "cam") == 1)
            if broker() and name == "taking":
                time.sleep(3)  # the broker comes later than whoever wants it
                process = subprocess.Popen([broker(), "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(0.5)
                subscriber = subprocess.Popen(["mosquitto_sub", "-p", str(port), "-v", "-t", "test/#"],
                                              stdout=subprocess.PIPE, text=True)
                threading.Thread(target=lambda: heard.extend(subscriber.stdout), daemon=True).start()
            watch.wait_for("windows", 60, lambda: watch.figure("windows_done_total", "cam") >= 2)
            lag = watch.figure("lag_seconds", "cam")
            time.sleep(8)
            expect(watch.stop() == 0, "SIGTERM does not end it well: %s" % watch.said)
            time.sleep(1)
        finally:
            end(watch)
            for p in (subscriber, process):
                if p:
                    p.kill()
        rows[name] = len(query(watch.db, "cam"))
        say("%s: %d events in the index, lag %.2f s; it said: %s" % (name, rows[name], lag, [
            l for _, l in watch.said if "--on-event" in l or "--mqtt" in l][:2]))
        expect(rows[name] >= 4 and lag < 2, "watching suffers")
        if name == "taking":
            expect(len(posted) >= 4 and {p["type"] for p in posted} >= {"start", "end"}, "posted: %s" % posted)
        if process:
            topics = {line.split(" ", 1)[0] for line in heard}
            expect({"test/cam/event", "test/cam/availability", "test/availability"} <= topics, topics)
            availability = [line.split()[1] for line in heard if line.startswith("test/cam/availability")]
            expect(availability[0] == "online" and availability[-1] == "offline", availability)
            say("broker: %d messages" % len(heard))
    server.kill()
    if not broker():
        say("no mosquitto here: MQTT was not tried")


def hopeless(folder):
    """What can never work is one clear line each, and goes on being tried."""
    with_login = Server(free_port(), {"cam": JPEG % ("ball", 320, 240, 25)}, "--user", "anna:right").start()
    sound = Server(free_port(), {"cam": "audiotestsrc is-live=true ! audioconvert ! audioresample ! mulawenc ! rtppcmupay name=pay0"}).start()
    film = Server(free_port(), {"cam": CLIPS / "morning.mp4"}).start()
    relay = Relay(film.port, rename=(b"H264/", b"H2XY/"))  # as long: the answer's length is told before it
    names = ("password", "host", "sound", "good", "device", "codec")
    watch = Watch(folder / "index.db", *[w for n in names for w in ("--name", n)],
                  with_login.url("cam", "anna:wrong@"), "rtsp://no-such-host.invalid/cam", sound.url("cam"),
                  with_login.url("cam", "anna:right@"), "v4l2:/dev/no-such-video",
                  "rtsp://127.0.0.1:%d/cam" % relay.port).start()
    try:
        watch.wait_for("attempts", 60, lambda: all(watch.figure("attempts_total", n) >= 3
                                                    for n in names if n != "good"))
        expect(watch.figure("connected", "good") == 1, "the right password is refused")
        expect(watch.stop() == 0, "SIGTERM does not end it well")
    finally:
        end(watch, with_login)
        sound.kill()
        film.kill()
        relay.stopping = True
    for name, word in (("password", "password"), ("host", "connect"), ("sound", "video"), ("codec", "codec|decode"),
                       ("device", "V4L2 devices|No such file")):
        lines = [l for _, l in watch.said if l.startswith("scenelog: %s:" % name)]
        say(*lines)
        expect(len(lines) == 1 and re.search(word, lines[0]) and "tries again" in lines[0], "%s: %s" % (name, lines))


# ---- Keeping

def retention(folder):
    """The file stays within its limit while windows come and go, and the index stays whole."""
    server = Server(free_port(), {"cam": CLIPS / "evening.mp4"}).start()
    db, limit = folder / "index.db", 300000
    names = ["cam%d" % i for i in range(8)]
    watch = Watch(db, "--window", "1", "--max-size", "300k", *[w for n in names for w in ("--name", n)],
                  *[server.url("cam")] * len(names)).start()
    sizes = []
    try:
        until = time.time() + up_to(300)
        while time.time() < until:
            time.sleep(5)
            sizes.append(db.stat().st_size)
        expect(watch.stop() == 0, "SIGTERM does not end it well")
    finally:
        end(watch, server)
    kept = sqlite3.connect(db).execute("SELECT count(*), min(id) FROM window").fetchone()
    say("limit %d: sizes from %d to %d, at the end %d; %d windows kept, %d forgotten"
        % (limit, min(sizes), max(sizes), sizes[-1], kept[0], kept[1] - 1))
    expect(not check(db)["faults"], "the index has faults")
    expect(max(sizes) < 1.6 * limit, "the file is not bounded")


# ---- Hours

def soak(folder):
    """Four streams, the server and scenelog killed at random: nothing grows, and every second is explained."""
    seconds, rng, port, db = MINUTES * 60, random.Random(5), free_port(), folder / "index.db"
    mounts = {"a": CLIPS / "morning.mp4", "b": CLIPS / "evening.mp4", "c": CLIPS / "afternoon.mp4",
              "d": JPEG % ("ball", 320, 240, 25)}
    arguments = [w for n in mounts for w in ("--name", n)] + ["--timeout", "5"]
    server = Server(port, mounts).start()
    arguments += [server.url(n) for n in mounts]
    began = time.time()
    watch = Watch(db, *arguments).start()
    memory, files, kills, server_kills = [], [], 0, 0
    try:
        while time.time() < began + seconds:
            time.sleep(rng.uniform(8, 30))
            if watch.process.poll() is not None:
                raise OSError("scenelog ended: %s" % watch.said[-3:])
            memory.append(watch.memory_kb())
            files.append(watch.files())
            if rng.random() < 0.4:
                server.kill()
                time.sleep(rng.uniform(0, 8))
                server.start()
                server_kills += 1
            if rng.random() < 0.3:
                watch.process.kill()
                watch.process.wait()
                kills += 1
                time.sleep(rng.uniform(0, 5))
                watch = Watch(db, *arguments).start()
        watch.wait_for("life", 30, watch.metrics)  # it may have been started a moment ago
        stopped = time.time()
        code = watch.stop(seconds=60)
        expect(code == 0, "SIGTERM does not end it well: %d, %s" % (code, watch.said[-3:]))
    finally:
        end(watch, server)
    report = check(db)
    expect(not report["faults"], "the index has faults: %s" % report["faults"][:3])
    for name in mounts:
        found = explains(report, name, began, stopped)
        say("%s: seen %.0f s, outage %.0f s, dropped %.0f s of %.0f s" % (
            name, seconds_of(found, "seen"), seconds_of(found, "outage"), seconds_of(found, "dropped"), stopped - began))
    say("%d kills, %d of the server; memory %d to %d kB, files %d to %d" % (
        kills, server_kills, min(memory), max(memory), min(files), max(files)))
    expect(max(memory) < 1.5 * statistics.median(memory) and max(files) <= statistics.median(files) + 8, "something grows")


if __name__ == "__main__":
    main([time_of_pictures, clock_step, wrap_around, bettered_segment, hls, outage, ends_at_any_moment, network, overload, isolation, dead_sinks, hopeless, retention, soak])
