#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well does scenelog, with a model, tell what happened in clips it has never seen?

    evaluate.py --scenelog ./scenelog --model samples/demo-model --clips 20 --seed 7 --minutes 2 [--window 30]

Makes clips of the synthetic world (world.py) from a seed, encodes them with ffmpeg, indexes them, and compares the
events found with the true ones: same text, both ends within one second, each used once. Needs numpy, ffmpeg and
scenelog. --reference runs the clips through transformers' parameters in Python instead (torch, torchvision, PyAV).
"""
import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import world as W
from matching import matched

ROUGH = "-vf scale=640:480,fps=12.5,mpdecimate=max=5 -fps_mode vfr -b:v 120k"


def parse(text):
    return [(int(a) * 60 + float(b), int(c) * 60 + float(d), t) for a, b, c, d, t in
            re.findall(r'"(\d\d):(\d\d\.\d\d) - (\d\d):(\d\d\.\d\d)": "([^"]*)"', text)]


class Score:
    """Found against true events, in all and for each kind of event."""

    def __init__(self):
        self.n = self.same_text = 0
        self.found, self.true, self.right = Counter(), Counter(), Counter()

    def add(self, found, true):
        self.n += matched(found, true)
        self.same_text += matched(found, true, 1e9)
        self.found.update(W.kind_of(t) for _, _, t in found)
        self.true.update(W.kind_of(t) for _, _, t in true)
        for kind in {W.kind_of(t) for _, _, t in true}:
            ours = lambda events: [e for e in events if W.kind_of(e[2]) == kind]
            self.right[kind] += matched(ours(found), ours(true))

    def f1(self, n):
        return 2 * n / max(1, sum(self.found.values()) + sum(self.true.values()))

    def __str__(self):
        return "F1 %.3f (texts alone %.3f), precision %.3f, recall %.3f" % (
            self.f1(self.n), self.f1(self.same_text), self.n / max(1, sum(self.found.values())),
            self.n / max(1, sum(self.true.values())))

    def kinds(self):
        """For each kind of event: how many of the true ones are right, and how many were found."""
        return ", ".join("%s %d of %d (%d found)" % (k, self.right[k], n, self.found[k])
                         for k, n in self.true.most_common())


def clip_world(seed, index, minutes, quiet=False):
    return W.World(f"clip {seed} {index} {quiet}", minutes * 60, quiet)


class Still:
    """A moment of a world in which things stand, for as long as the world lasts."""

    def __init__(self, world):
        self.world = world
        self.seconds, self.place, self.coarse, self.fine = world.seconds, world.place, world.coarse, world.fine
        for at in range(10, int(world.seconds)):
            there = [e for e in world.events if e[0] - 1 < at < e[1] + 1]
            if there and all(e[3] in ("stands", "sign", "night", "rain") and e[0] + 1 < at < e[1] - 1 for e in there):
                break
        else:
            at, there = 0, []
        self.at, self.events = at, [(0.0, world.seconds, *e[2:]) for e in there]

    def states(self, times):
        return self.world.states([self.at] * len(times))


def encode(world, path, size=(384, 256), fps=25, options="-crf 23"):
    """Paint a world and write it as an MP4 file."""
    cmd = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "%dx%d" % size, "-r", str(fps),
           "-i", "-", "-c:v", "libx264", "-preset", "fast", "-pix_fmt", "yuv420p", "-threads", "2",
           *shlex.split(options), str(path)]
    pipe = subprocess.Popen(cmd, stdin=subprocess.PIPE)
    for frame in W.Painter(world, *size).frames([k / fps for k in range(int(world.seconds * fps))]):
        pipe.stdin.write(frame.tobytes())
    pipe.stdin.close()
    if pipe.wait():
        sys.exit("ffmpeg failed on " + str(path))


def index_with_scenelog(program, model, window, clips, folder):
    """{clip name: [(start, end, text)]}, found by scenelog."""
    db = str(folder / "found.db")
    subprocess.run([program, "index", "-m", model, "-d", db, "--window", str(window), *map(str, clips)], check=True)
    out = subprocess.run([program, "query", "-d", db, "--limit", "0", "--format", "jsonl"], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    found = {c.name: [] for c in clips}
    for line in filter(str.strip, out.splitlines()):
        row = json.loads(line)
        found[Path(row["source"]).name].append((row["start_us"] / 1e6, row["end_us"] / 1e6, row["text"]))
    return found


def join(pieces, window, near=1.0):
    """Pieces of neighbouring windows that touch their common edge and say the same are one event."""
    pieces, out = sorted(pieces), []
    for s, e, t in pieces:
        edge = round(s / window) * window
        before = next((o for o in out if o[2] == t and edge and s - edge <= near and s >= edge
                       and edge - near <= o[1] <= edge), None)
        if before:
            before[1] = e
        else:
            out.append([s, e, t])
    return [tuple(o) for o in out]


class Reference:
    """The same walk in Python: PyAV, torchvision, and the demo model's parameters in transformers."""

    def __init__(self, folder):
        import torch

        import demo_model as dm
        self.torch, self.dm = torch, dm
        self.tok = dm.load_tokenizer(folder)
        model = dm.build_model(self.tok, dm.experts_of(folder))
        dm.load_weights(model, folder, self.tok)
        self.net = dm.Net(model.eval(), self.tok)

    def sampled(self, path):
        """Frames at 0, 0.5, 1 ...: the last one whose time is not later."""
        import av
        from torchvision.transforms.v2 import InterpolationMode, functional

        out, last, k = [], None, 0
        shrink = lambda a: functional.resize(self.torch.from_numpy(a).permute(2, 0, 1), self.dm.canvas(*a.shape[:2]),
                                             InterpolationMode.BICUBIC, antialias=True)
        with av.open(str(path)) as box:
            for frame in box.decode(video=0):
                while last is not None and k * W.STEP < float(frame.time) - 1e-6:
                    out.append(shrink(last.to_ndarray(format="rgb24")))
                    k += 1
                last = frame
            end = float(last.time) + 1 / float(box.streams.video[0].average_rate)
            while k * W.STEP < end - 1e-6:
                out.append(shrink(last.to_ndarray(format="rgb24")))
                k += 1
        return self.torch.stack(out), end

    def events(self, path, window):
        torch = self.torch
        frames, end = self.sampled(path)
        per = int(window / W.STEP)
        parts = list(frames.split(per))
        by_length = {}
        for i, p in enumerate(parts):
            by_length.setdefault(len(p), []).append(i)
        pieces = []
        for n, which in by_length.items():
            x = torch.stack([parts[i] for i in which]).float() / 127.5 - 1
            if n % 2:
                x = torch.cat((x, x[:, -1:]), 1)
            x = x.unflatten(1, (-1, 2))
            texts = self.dm.generate(self.net, self.tok, x, [k * W.STEP for k in range(n)])
            for i, text in zip(which, texts):
                pieces += [(s + i * window, min(e + i * window, end), t) for s, e, t in parse(text)]
        return join(pieces, window)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scenelog", default="./scenelog", help="the program")
    ap.add_argument("--model", default=str(Path(__file__).parent / "demo-model"))
    ap.add_argument("--clips", type=int, default=20)
    ap.add_argument("--empty", type=int, default=2, help="clips in which nothing happens, counted apart")
    ap.add_argument("--still", type=int, default=0, help="clips of one moment, counted apart")
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--minutes", type=float, default=2)
    ap.add_argument("--window", type=int, nargs="+", default=[30], help="one or more window lengths, seconds")
    ap.add_argument("--size", default="384x256")
    ap.add_argument("--fps", default="25")
    ap.add_argument("--encode", default="-crf 23", help="more options for ffmpeg's output")
    ap.add_argument("--rough", dest="encode", action="store_const", const=ROUGH,
                    help="stretched to 640x480, at 12.5 frames a second with variable rate and 120 kbit/s")
    ap.add_argument("--keep", type=Path, help="keep (and reuse) the clips in this folder")
    ap.add_argument("--reference", action="store_true", help="transformers in Python instead of scenelog")
    ap.add_argument("--show", action="store_true", help="print what was missed and what was made up")
    args = ap.parse_args()
    size = tuple(map(int, args.size.split("x")))
    with tempfile.TemporaryDirectory() as tmp:
        folder = args.keep or Path(tmp)
        folder.mkdir(parents=True, exist_ok=True)
        truth, began = {}, time.time()
        kinds = ["clip"] * args.clips + ["empty"] * args.empty + ["still"] * args.still
        for i, kind in enumerate(kinds):
            world = clip_world(args.seed, i, args.minutes, kind == "empty")
            world = Still(world) if kind == "still" else world
            path = folder / f"{kind}-{args.seed}-{i:02d}.mp4"
            truth[path] = [e[:3] for e in world.events]
            if not path.exists():
                encode(world, path, size, float(args.fps), args.encode)
        print(f"{len(truth)} clips made, {time.time() - began:.0f} s", flush=True)
        reference = Reference(args.model) if args.reference else None
        for window in args.window:
            began = time.time()
            if reference:
                found = {p.name: reference.events(p, window) for p in truth}
            else:
                found = index_with_scenelog(args.scenelog, args.model, window, list(truth), Path(tmp))
                (Path(tmp) / "found.db").unlink()
            report(truth, found, window, args.show)
            print(f"indexing took {time.time() - began:.0f} s")


def report(truth, found, window, show):
    total, false, quiet = Score(), 0, 0
    for path, true in truth.items():
        got, one = found[path.name], Score()
        one.add(got, true)
        if path.name.startswith(("empty", "still")):
            quiet += 1
            false += sum(t not in [x[2] for x in true] for _, _, t in got)
        else:
            total.add(got, true)
        print("%s: %d true, %d found, %d right, F1 %.3f" % (path.name, len(true), len(got), one.n, one.f1(one.n)))
        if show:
            for s, e, t in got:
                if not matched([(s, e, t)], true):
                    print("    found  %7.2f %7.2f  %s" % (s, e, t))
            for s, e, t in true:
                if not matched([(s, e, t)], got):
                    print("    missed %7.2f %7.2f  %s" % (s, e, t))
    print("windows of %g s: %s (%d right, %d found, %d true); false events in %d empty or still clips: %d\n    %s" %
          (window, total, total.n, sum(total.found.values()), sum(total.true.values()), quiet, false, total.kinds()))


if __name__ == "__main__":
    main()
