#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`scenelog watch` in a minute: two clips over RTSP, a server that dies, a scenelog that is killed, sinks that fail."""
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

from harness import (CLIPS, Server, Watch, check, expect, explains, free_port, main, query, seconds_of, truth)


def no_secret(db, watch):
    expect("geheim" not in Path("/proc/%d/cmdline" % watch.process.pid).read_text(), "the title shows the password")
    expect(all("geheim" not in line for _, line in watch.said), "a message shows the password")
    for table, in sqlite3.connect(db).execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        rows = sqlite3.connect(db).execute('SELECT * FROM "%s"' % table).fetchall() if "event_fts" not in table else []
        expect("geheim" not in repr(rows), "table %s holds the password" % table)


def told_in_order(events):
    """Of every event first its start, at last its end, nothing twice."""
    turns = {}
    for _, e in events:
        turns.setdefault(e["id"], []).append((e["type"], e["revision"]))
    for event, told in turns.items():
        kinds = [kind for kind, _ in told]
        expect(kinds[0] == "start" and kinds.count("start") == 1 and kinds.count("end") <= 1 and
               ("end" not in kinds or kinds[-1] == "end") and sorted(told, key=lambda t: t[1]) == told,
               "event %d was told as %s" % (event, told))


def open_events(db):
    return {row[0] for row in sqlite3.connect(db).execute("SELECT id FROM event WHERE open")}


def minute(folder):
    db, hooked = folder / "index.db", folder / "hooked"
    server = Server(free_port(), {"one": CLIPS / "morning.mp4", "two": CLIPS / "evening.mp4"}).start()
    arguments = ["--name", "one", "--name", "two", "--name", "nobody", "--name", "wrong", "--timeout", "4",
                 "--on-event", "cat >> %s; echo >> %s; exit $(($(wc -l < %s) %% 2))" % (hooked, hooked, hooked),
                 server.url("one", "user:geheim@"), server.url("two"), "rtsp://127.0.0.1:%d/x" % free_port(),
                 server.url("wrong")]
    began = time.time()
    watch = Watch(db, *arguments).start()
    try:
        watch.wait_for("events of both", 30, lambda: {e["source"] for _, e in watch.events()} >= {"one", "two"})
        no_secret(db, watch)
        lag = max(watch.figure("lag_seconds", s) for s in ("one", "two"))
        expect(lag < 2, "a window's row came %.2f s after its end" % lag)
        server.kill()
        killed = time.time()
        watch.wait_for("lost", 8, lambda: watch.figure("connected", "one") == 0)
        time.sleep(4)
        done = watch.figure("windows_done_total", "one")
        server.start()
        restarted = time.time()
        watch.wait_for("connected again", 20, lambda: watch.figure("connected", "one") == 1)
        watch.wait_for("a window", 20, lambda: watch.figure("windows_done_total", "one") > done)
        told_in_order(watch.events())
        watch.wait_for("an open event", 40, lambda: open_events(db))
        watch.process.send_signal(signal.SIGKILL)
        watch.process.wait()
        cut, left_open = time.time(), open_events(db)
        time.sleep(2)
        watch = Watch(db, *arguments).start()
        watch.wait_for("a window", 25, lambda: watch.figure("windows_done_total", "one") >= 1)
        ended = time.time()  # what follows is finishing
        expect(watch.stop() == 0, "SIGTERM does not end it well: %s" % watch.said)
        told_in_order([(at, e) for at, e in watch.events() if e["id"] not in left_open])
        of_old = sorted((e["id"], e["type"]) for _, e in watch.events() if e["id"] in left_open)
        expect(of_old == [(i, "end") for i in sorted(left_open)], "open at the kill: %s; told after it: %s" %
               (left_open, of_old))
    finally:
        server.kill()
        if watch.process.poll() is None:
            watch.process.kill()
    report = check(db)
    expect(not report["faults"], "the index has faults: %s" % report["faults"])
    for name in ("one", "two", "nobody", "wrong"):
        explains(report, name, began, ended)
    found = explains(report, "one", began, ended)
    outage = seconds_of([s for s in found if killed - 2 < s[0] < cut], "outage")
    expect(restarted - killed - 1 <= outage <= restarted - killed + 8, "an outage of %.1f s is %.1f s long" %
           (restarted - killed, outage))
    expect(seconds_of(found, "outage", "not watching") >= 2, "the kill left no trace")
    expect(seconds_of(found, "seen") > 25, "too little was seen: %s" % found)
    said = {name: {t for _, _, t in truth(CLIPS / clip)} for name, clip in (("one", "morning.mp4"), ("two", "evening.mp4"))}
    for name in said:
        texts = [e["text"] for e in query(db, name)]
        right = sum(t in said[name] for t in texts)
        expect(right >= 3 and right >= 0.7 * len(texts), "%s: %d of %d events are of its clip" % (name, right, len(texts)))
    expect(hooked.stat().st_size > 0, "the command was not run")
    causes = {name: found[-1][3] for name in ("nobody", "wrong") for found in [explains(report, name, began, ended)]}
    expect("refused" in causes["nobody"] and "404" in causes["wrong"], "causes are told wrong: %s" % causes)


def file_at_its_own_pace(folder):
    """A file is played once, in its own time, and what is found is what `index` finds, windows alike."""
    db, other, clip = folder / "index.db", folder / "other.db", folder / "clip.mp4"
    if not shutil.which("ffmpeg"):
        clip.symlink_to(CLIPS / "morning.mp4")
    else:
        subprocess.run(["ffmpeg", "-v", "error", "-i", CLIPS / "morning.mp4", "-t", "22", "-c", "copy", clip], check=True)
    began = time.time()
    watch = Watch(db, "--name", "clip", "file:" + str(clip)).start()
    expect(watch.process.wait(timeout=100) == 0, "it ends with an error: %s" % watch.said)
    expect(21 < time.time() - began < 60, "it took %.1f s" % (time.time() - began))
    subprocess.run([watch.arguments[0], "index", "--progress=none", "-m", watch.arguments[3], "-d", other, "--window",
                    "10", clip], check=True)
    played, indexed = query(db, "clip"), query(other, "clip.mp4")
    a = {(e["text"], round(e["start_us"] / 5e5)) for e in played}
    b = {(e["text"], round(e["start_us"] / 5e5)) for e in indexed}
    expect(len(b) >= 3 and len(a & b) >= 0.8 * max(len(a), len(b)), "played and indexed differ: %s" % sorted(a ^ b))


def profile_and_service(folder):
    """Rules choose what is told; SIGHUP brings a new profile; the service manager hears of it all."""
    db, hooked, profile = folder / "index.db", folder / "hooked", folder / "cam.profile"
    profile.write_text("# one word alone\nwords = rain\nwindow = 5s\ncontext = the gate is on the left\n")
    heard = []
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(folder / "notify"))
    threading.Thread(target=lambda: [heard.append(manager.recv(4096).decode()) for _ in iter(int, 1)], daemon=True).start()
    os.environ["NOTIFY_SOCKET"] = str(folder / "notify")
    server = Server(free_port(), {"cam": CLIPS / "morning.mp4"}).start()
    began = time.time()
    try:
        watch = Watch(db, "--name", "cam", "--profile", profile, "--on-event", "cat >>%s; echo >>%s" % (hooked, hooked),
                      server.url("cam")).start()
        del os.environ["NOTIFY_SOCKET"]
        watch.wait_for("a told event", 30, hooked.exists)
        watch.wait_for("another event", 30, lambda: any("rain" not in e["text"] for _, e in watch.events()))
        profile.write_text("window = nonsense\n")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for("a complaint", 10, lambda: any("the old profile stays" in l for _, l in watch.said))
        profile.write_text("window = 4s\n")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for("the new profile", 30, lambda: any("goes on with the new profile" in l for _, l in watch.said))
        done = watch.figure("windows_done_total", "cam")
        watch.wait_for("a window", 30, lambda: watch.figure("windows_done_total", "cam") > done)
        expect(watch.stop() == 0, "SIGTERM does not end it well: %s" % watch.said)
    finally:
        server.kill()
        if watch.process.poll() is None:
            watch.process.kill()
    told = [json.loads(line) for line in hooked.read_text().splitlines()]
    first = [e for e in told if e["text"] == told[0]["text"]]
    expect("rain" in told[0]["text"] and first[0]["type"] == "start", "told: %s" % told)
    tasks = [json.loads(text) for text, in sqlite3.connect(db).execute("SELECT text FROM task ORDER BY id")]
    expect([t["window_us"] for t in tasks] == [5000000, 4000000], "tasks: %s" % tasks)
    expect("gate is on the left" in tasks[0]["prompt"] and "gate" not in tasks[1]["prompt"], "tasks: %s" % tasks)
    states = "\n".join(heard).split("\n")
    expect(states[0] == "READY=1" and "WATCHDOG=1" in states and "RELOADING=1" in states and states[-1] == "STOPPING=1",
           "the manager heard %s" % states)
    work = check(db)["works"]
    expect(len(work) == 2 and not check(db)["faults"], "works: %s" % work)


if __name__ == "__main__":
    main([minute, file_at_its_own_pace, profile_and_service])
