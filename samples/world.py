# SPDX-License-Identifier: Apache-2.0
"""A small synthetic world: what happens in it (a seed gives the same world for ever), and how it looks.

A world is a handful of lanes. Each lane holds one thing after another, with gaps: a coloured shape, that may blink,
grow or turn another colour while it is there, or a sign with a number. The lights may go out and it may rain.
Every event has a start, an end and one plain sentence; all times are seconds.

Two painters share the geometry below: `Painter` (numpy, any size, one frame at a time; for clips) and `paint_torch`
with `weather_torch` (many frames at 192x128 on an accelerator; for training). Only numpy is needed here.
"""
import json
import math
import random

import numpy as np

COLOURS = {"red": (215, 35, 35), "orange": (245, 135, 25), "yellow": (245, 225, 50), "green": (40, 160, 60),
           "blue": (45, 80, 225), "purple": (145, 50, 185), "white": (250, 250, 250)}
SHAPES = ["circle", "square", "triangle", "star", "cross", "ring"]
NAMES = list(COLOURS)
DARK, RAIN = "The lights are out.", "It is raining."
WIDTH, HEIGHT = 192, 128  # the unit of all places and sizes; painters scale it
LANES, FIELDS = 4, 22     # fields: shape, x, y, size, r, g, b, alpha, 2 x 7 segments
SIGN = len(SHAPES)
SEGMENTS = ["1111110", "0110000", "1101101", "1111001", "0110011", "1011011", "1011111", "1110000", "1111111",
            "1111011"]
GAP = 4.0                 # the same sentence is not true again for so long
STEP = 0.5                # the sampling grid


def said(colour, shape, what):
    return "%s %s %s %s." % ("An" if colour[0] in "aeiou" else "A", colour, shape, what)


SENTENCES = ([said(c, s, w) for c in NAMES for s in SHAPES for w in ("is visible", "blinks", "grows")]
             + [said(c, s, "turns " + d) for c in NAMES for s in SHAPES for d in NAMES if c != d]
             + ["A sign shows %d." % n for n in range(10, 100)] + [DARK, RAIN])


# ---- what happens --------------------------------------------------------------------------------------------------

class World:
    """Things and events of `seconds` seconds. events: (start, end, text, kind, subject)."""

    def __init__(self, seed, seconds, quiet=False):
        self.rng = rng = random.Random(seed)
        self.seconds, self.tracks, self.events = seconds, [], []
        tone, tint = rng.uniform(75, 165), [rng.uniform(-14, 14) for _ in range(3)]
        grid = np.random.default_rng(rng.getrandbits(32))
        coarse = tone + np.array(tint)[:, None, None] + grid.uniform(-20, 20, (3, 1, 1)) * 0.3 \
            + grid.uniform(-22, 22, (1, 4, 5))
        self.coarse, self.fine = coarse.astype(np.float32), grid.uniform(-9, 9, (16, 24)).astype(np.float32)
        self.drift = (rng.uniform(0, 0.06), rng.uniform(8, 25), rng.uniform(0, 6.28))
        self.rainfall, self.darkness = [], []
        if quiet:
            return
        gap = rng.choice([6, 10, 10, 20])
        for lane in range(rng.choices([1, 2, 3, 4], [30, 38, 24, 8])[0]):
            self.fill_lane(lane, gap)
        for spans, text, low, high, kind in ((self.darkness, DARK, 3, 12, "dark"),
                                             (self.rainfall, RAIN, 4, 30, "rain")):
            if rng.random() < 0.4:
                t = rng.expovariate(1 / 25)
                while t < seconds:
                    end = t + rng.uniform(low, high)
                    spans.append((t, end))
                    self.add(t, end, text, kind, None)
                    t = end + GAP + rng.expovariate(1 / 35)
        self.events = [(s, min(e, seconds), *rest) for s, e, *rest in self.events if s < seconds - STEP]
        self.events.sort(key=lambda e: e[:3])

    def add(self, start, end, text, kind, subject):
        self.events.append((start, end, text, kind, subject))

    def free(self, start, end, text):
        return all(t != text or e + GAP < start or end + GAP < s for s, e, t, *_ in self.events)

    def fill_lane(self, lane, gap):
        rng = self.rng
        t = rng.expovariate(1 / gap)
        while t < self.seconds:
            span = rng.choices([rng.uniform(2, 6), rng.uniform(6, 15), rng.uniform(15, 60)], [45, 38, 17])[0]
            if self.tracks and rng.random() < 0.15:  # two things that begin or end in the same moment
                other = rng.choice(self.tracks)
                if 2 < other["off"] - t < 40 and other["lane"] != lane:
                    span = other["off"] - t
                elif t < other["on"] < t + 8 and other["lane"] != lane:
                    t = other["on"]
            taken = [k["cell"] for k in self.tracks if k["on"] < t + span + 0.6 and t < k["off"] + 0.6]
            cells = [c for c in range(6) if c not in taken]
            if not cells:
                t += 2
                continue
            cell = rng.choice(cells)
            track = {"lane": lane, "cell": cell, "on": t, "off": t + span,
                     "x": 32 + 64 * (cell % 3) + rng.uniform(-6, 6), "y": 32 + 64 * (cell // 3) + rng.uniform(-8, 8),
                     "sway": (rng.uniform(0, 5), rng.uniform(3, 8), rng.uniform(0, 6.28)),
                     "grow": None, "turns": [], "blinks": [], "numbers": []}
            if rng.random() < 0.22:
                span = min(span, 18.0)
                track["off"] = t + span
                self.make_sign(track)
            else:
                self.make_shape(track)
            t += span + 0.6 + rng.expovariate(1 / gap) + (rng.uniform(8, 25) if rng.random() < 0.1 else 0)

    def make_sign(self, track):
        rng = self.rng
        track["size"], track["shape"] = rng.uniform(19, 22), SIGN
        t = track["on"]
        while t < track["off"]:
            end = t + rng.uniform(3, 12)
            if track["off"] - end < 2:
                end = track["off"]
            number = rng.choice([n for n in range(10, 100) if self.free(t, end, "A sign shows %d." % n)])
            track["numbers"].append((t, number))
            self.add(t, end, "A sign shows %d." % number, "sign", number)
            t = end
        self.tracks.append(track)

    def make_shape(self, track):
        rng = self.rng
        on, off = track["on"], track["off"]
        for _ in range(50):
            colour, shape = rng.choice(NAMES), rng.randrange(len(SHAPES))
            if self.free(on, off, said(colour, SHAPES[shape], "is visible")):
                break
        else:
            return
        track["size"], track["shape"], track["colour"] = rng.uniform(16, 25), shape, COLOURS[colour]
        since, t = on, on + rng.uniform(1.5, 4)
        last_blink = -99.0
        while off - t > 4.5 and rng.random() < 0.6:
            what = rng.choice(["blinks", "grows", "turns"])
            span = rng.uniform(2, 4)
            if what == "blinks" and t > last_blink + GAP:
                t = math.floor(t / STEP) * STEP + rng.uniform(0.12, 0.38)
                span = STEP * rng.choice([5, 7, 9])
                if off - t - span < 1:
                    break
                track["blinks"].append((t, t + span))
                last_blink = t + span
                self.add(t, t + span, said(colour, SHAPES[shape], what), "blinks", (NAMES.index(colour), shape))
            elif what == "grows" and not track["grow"]:
                track["grow"] = (t, t + span)
                track["size"] = rng.uniform(23, 26)
                self.add(t, t + span, said(colour, SHAPES[shape], what), "grows", (NAMES.index(colour), shape))
            elif what == "turns":
                to = [c for c in NAMES if c != colour and self.free(t, off, said(c, SHAPES[shape], "is visible"))
                      and self.free(t, t + span, said(colour, SHAPES[shape], "turns " + c))]
                if to and t - since > 1.5:
                    new = rng.choice(to)
                    self.add(t, t + span, said(colour, SHAPES[shape], "turns " + new), "turns",
                             (NAMES.index(colour), NAMES.index(new), shape))
                    self.add(since, t, said(colour, SHAPES[shape], "is visible"), "visible",
                             (NAMES.index(colour), shape))
                    track["turns"].append((t, t + span, COLOURS[new]))
                    since, colour, last_blink = t + span, new, -99.0
            t += span + rng.uniform(1.5, 5)
        self.add(since, off, said(colour, SHAPES[shape], "is visible"), "visible", (NAMES.index(colour), shape))
        self.tracks.append(track)

    # ---- how things stand at given times -----------------------------------------------------------------------------

    def states(self, times):
        """Times [F] -> things [F, LANES, FIELDS] and the whole scene's [F, 4]: light, rain, brightness, time."""
        t = np.asarray(times, np.float64)
        out = np.zeros((len(t), LANES, FIELDS), np.float32)
        out[:, :, 0], out[:, :, 3] = -1, 1
        for k in self.tracks:
            here = (t >= k["on"]) & (t < k["off"])
            if not here.any():
                continue
            s = t[here]
            amp, period, phase = k["sway"]
            row = np.zeros((len(s), FIELDS), np.float32)
            row[:, 0] = k["shape"]
            row[:, 1] = k["x"] + amp * np.sin(s * 6.2832 / period + phase)
            row[:, 2] = k["y"] + 0.5 * amp * np.cos(s * 6.2832 / period + 2 * phase)
            row[:, 3], row[:, 7] = k["size"], 1
            if k["grow"]:
                a, b = k["grow"]
                row[:, 3] *= 0.4 + 0.6 * np.clip((s - a) / (b - a), 0, 1)
            for a, b in k["blinks"]:
                row[:, 7] = np.where((s >= a) & (s < b) & (np.floor((s - a) / STEP) % 2 == 0), 0.12, row[:, 7])
            if k["shape"] == SIGN:
                for a, n in k["numbers"]:
                    row[s >= a, 8:] = [int(c) for c in SEGMENTS[n // 10] + SEGMENTS[n % 10]]
            else:
                rgb = np.repeat(np.array(k["colour"], np.float32)[None], len(s), 0)
                for a, b, to in k["turns"]:
                    rgb += np.clip((s - a) / (b - a), 0, 1)[:, None] * (np.array(to, np.float32) - rgb)
                row[:, 4:7] = rgb
            out[here, k["lane"]] = row
        inside = lambda spans: sum((((t >= a) & (t < b)) for a, b in spans), np.zeros(len(t), bool))
        depth, period, phase = self.drift
        scene = np.stack([np.where(inside(self.darkness), 0.3, 1.0), inside(self.rainfall).astype(float),
                          1 + depth * np.sin(t * 6.2832 / period + phase), t], 1)
        return out, scene.astype(np.float32)


def seen(events, frame_times, length):
    """The events as the sampled frames show them: (start, end, text, kind, subject, first, last), times on the grid.

    frame_times[k] is the moment that sample k shows; times count from the first sample. An event that begins before
    the window or ends after it is cut to it; a change needs three samples to be told from a still.
    """
    out = []
    t = np.asarray(frame_times)
    for s, e, text, kind, subject in events:
        where = np.flatnonzero((t >= s) & (t < e))
        if len(where) < (3 if kind in ("blinks", "grows", "turns") else 1):
            continue
        i, j = int(where[0]), int(where[-1])
        out.append((i * STEP, min((j + 1) * STEP, length), text, kind, subject, i, j))
    out.sort(key=lambda e: e[:3])
    return out


def clock(t):
    h = round(t * 100)
    return "%02d:%02d.%02d" % (h // 6000, h // 100 % 60, h % 100)


def answer(events):
    """The answer that is asked for: one line, one object; equal keys are legal."""
    return "{" + ", ".join("%s: %s" % (json.dumps(clock(e[0]) + " - " + clock(e[1])), json.dumps(e[2]))
                           for e in events) + "}"


# ---- how it looks --------------------------------------------------------------------------------------------------
# Signed distances in units of the thing's size (negative inside), written for numpy and for torch alike (xp).

def circle(xp, u, v):
    return xp.sqrt(u * u + v * v + 1e-6) - 0.9


def square(xp, u, v):
    return xp.maximum(abs(u), abs(v)) - 0.8


def triangle(xp, u, v):
    return xp.maximum((1.6 * abs(u) - 0.95 * (v + 0.9)) / 1.861, v - 0.7)


def star(xp, u, v):
    u, v = abs(u), -v
    for x, y in ((0.809017, -0.587785), (-0.809017, -0.587785)):  # fold the five points onto the upper one
        over = 2 * xp.clip(u * x + v * y, 0, 9)
        u, v = u - over * x, v - over * y
    return (v - 1.05) * 0.363 + abs(u) * 0.932


def cross(xp, u, v):
    return xp.maximum(xp.minimum(abs(u), abs(v)) - 0.3, xp.maximum(abs(u), abs(v)) - 0.92)


def ring(xp, u, v):
    return abs(xp.sqrt(u * u + v * v + 1e-6) - 0.7) - 0.22


def board(xp, u, v):
    return xp.maximum(abs(u) - 1.35, abs(v) - 1.0)


def digits(xp, u, v, bits):
    """Two seven-segment digits; bits[i] is 1 where segment i of the fourteen is lit."""
    right = u > 0
    u = u - xp.where(right, 0.62, -0.62)
    best = None
    for i, (x, y, w, h) in enumerate([(0, -0.66, 0.3, 0.1), (0.34, -0.34, 0.1, 0.26), (0.34, 0.34, 0.1, 0.26),
                                      (0, 0.66, 0.3, 0.1), (-0.34, 0.34, 0.1, 0.26), (-0.34, -0.34, 0.1, 0.26),
                                      (0, 0, 0.3, 0.1)]):
        d = xp.maximum(abs(u - x) - w, abs(v - y) - h) + (1 - xp.where(right, bits[7 + i], bits[i])) * 9
        best = d if best is None else xp.minimum(best, d)
    return best


SHAPE_FUNCTIONS = [circle, square, triangle, star, cross, ring]
BOARD, INK, RAINDROP = (25, 30, 70), (255, 235, 150), (205, 215, 240)


def rain(xp, x, y, t):
    """How much of a rain streak covers each point, 0..1; x and y in canvas units."""
    lane = (x + 0.3 * y) / 7
    col = xp.floor(lane)
    noise = xp.sin(col * 12.9898) * 437.585
    fall = y / 45 - t * 2.3 + (noise - xp.floor(noise)) * 7
    return xp.clip(1.3 - 5 * abs(lane - col - 0.5), 0, 1) * xp.clip((0.3 - (fall - xp.floor(fall))) * 12, 0, 1)


def upsample(grid, h, w):
    """Bilinear, corners on corners; the last two axes."""
    for axis, n in ((-2, h), (-1, w)):
        size = grid.shape[axis]
        at = np.linspace(0, size - 1, n, dtype=np.float32)
        low = np.minimum(at.astype(int), size - 2)
        part = (at - low)[:, None] if axis == -2 else at - low
        grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, low + 1, axis) * part
    return grid


def background(world, h, w):
    return upsample(world.coarse, h, w) + upsample(world.fine[None], h, w)


class Painter:
    """Paints frames of one world with numpy."""

    def __init__(self, world, width=384, height=256, noise=1.5):
        self.world, self.w, self.h, self.noise = world, width, height, noise
        self.back = background(world, height, width)
        self.rng = np.random.default_rng(5)
        self.grain = self.rng.normal(0, noise, (8, 1, height, width)).astype(np.float32)

    def frames(self, times):
        """Yields uint8 [height, width, 3]."""
        scale = self.w / WIDTH
        yy, xx = np.mgrid[0:self.h, 0:self.w].astype(np.float32)
        xx, yy = (xx + 0.5) / scale, (yy + 0.5) / scale
        for n, (things, scene) in enumerate(zip(*self.world.states(times))):
            img = self.back * scene[2]
            for row in things:
                if row[0] >= 0:
                    self.thing(img, xx, yy, row, scale)
            if scene[1]:
                img += rain(np, xx, yy, scene[3]) * 0.6 * (np.array(RAINDROP, np.float32)[:, None, None] - img)
            img = img * scene[0] + self.grain[n % 8]
            yield np.clip(np.rint(img), 0, 255).astype(np.uint8).transpose(1, 2, 0)

    def thing(self, img, xx, yy, row, scale):
        kind, x, y, size = int(row[0]), row[1], row[2], row[3]
        reach = size * 1.5
        ys = slice(max(0, int((y - reach) * scale)), int((y + reach) * scale) + 1)
        xs = slice(max(0, int((x - reach) * scale)), int((x + reach) * scale) + 1)
        u, v = (xx[ys, xs] - x) / size, (yy[ys, xs] - y) / size
        cover = lambda d: np.clip(0.5 - d * size * scale, 0, 1)
        part = img[:, ys, xs]
        layers = [(SHAPE_FUNCTIONS[kind](np, u, v), row[4:7])] if kind != SIGN else \
            [(board(np, u, v), BOARD), (digits(np, u, v, row[8:]), INK)]
        for d, rgb in layers:
            part += cover(d) * row[7] * (np.array(rgb, np.float32)[:, None, None] - part)


def grid_torch(like):
    import torch
    return ((torch.arange(WIDTH, device=like.device).float() + 0.5)[None],
            (torch.arange(HEIGHT, device=like.device).float() + 0.5)[:, None])


def paint_torch(img, row):
    """One lane of things [N, FIELDS] over img [N, 3, 128, 192]."""
    import torch

    at = lambda x: x[..., None, None]
    xx, yy = grid_torch(row)
    size, kind = at(row[:, 3]), at(row[:, 0])
    u, v = (xx - at(row[:, 1])) / size, (yy - at(row[:, 2])) / size
    d = torch.full_like(u, 9.0)
    for i, f in enumerate(SHAPE_FUNCTIONS):
        d = torch.where(kind == i, f(torch, u, v), d)
    is_sign = kind == SIGN
    d = torch.where(is_sign, board(torch, u, v), d)
    ink = digits(torch, u, v, [at(row[:, 8 + i]) for i in range(14)])
    cover = torch.clip(0.5 - d * size, 0, 1) * at(row[:, 7])
    ink = torch.clip(0.5 - ink * size, 0, 1) * is_sign
    out = []
    for c in range(3):
        body = torch.where(is_sign, float(BOARD[c]), at(row[:, 4 + c]))
        p = img[:, c] + cover * (body - img[:, c])
        out.append((p + ink * (INK[c] - p)).to(img.dtype))
    return torch.stack(out, 1)


def weather_torch(img, scene):
    """Rain and darkness over img [N, 3, 128, 192], given scene [N, 4]."""
    import torch

    at = lambda x: x[..., None, None]
    xx, yy = grid_torch(scene)
    wet = rain(torch, xx, yy, at(scene[:, 3])) * 0.6 * at(scene[:, 1])
    return [(p + wet * (RAINDROP[c] - p)) * at(scene[:, 0]) for c, p in enumerate(img.unbind(1))]
