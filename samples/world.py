# SPDX-License-Identifier: Apache-2.0
"""A small synthetic world: what happens in it (a seed gives the same world for ever), and how it looks.

A place with sky and ground, and a handful of lanes. Each lane holds one thing after another, with gaps: a thing that
stands there, and may blink, grow or turn another colour meanwhile; a thing that moves, across, up or down, and may
stop on its way, also beside another, which it then meets; or a sign with a number. Night may fall and it may rain.
Every event has a start, an end and one plain sentence; all times are seconds.

Nothing that a piece of an event does not show is in its sentence: where a window cuts an event in two, both halves say
the same. So the one on the left is named first where two meet, and a new colour comes up from below.

Two painters share the geometry below: `Painter` (numpy, any size, one frame at a time; for clips) and `paint_torch`
with `scenery` and `weather_torch` (many frames at 192x128 on an accelerator; for training). Only numpy is needed here.
"""
import json
import math
import random

import numpy as np

COLOURS = {"red": (215, 35, 35), "orange": (245, 135, 25), "yellow": (245, 225, 50), "green": (40, 160, 60),
           "blue": (45, 80, 225), "purple": (145, 50, 185), "white": (250, 250, 250)}
SHAPES = ["ball", "box", "cone", "star", "car", "kite"]
VERBS = ["rolls", "slides", "slides", "flies", "drives", "flies"]
RISING = [0, 3, 5]                          # what may go up and down
HALF = [0.9, 0.8, 0.95, 0.98, 1.15, 0.7]    # half the width, in sizes
NAMES = list(COLOURS)
WAYS = ["right", "left", "up", "down"]
NIGHT, RAIN = "It is night.", "It is raining."
WIDTH, HEIGHT = 192, 128  # the unit of all places and sizes; painters scale it
LANES, FIELDS = 4, 26     # fields: shape, x, y, size, r, g, b, alpha, 2 x 7 segments, the new r, g, b and its level
SIGN = len(SHAPES)
SEGMENTS = ["1111110", "0110000", "1101101", "1111001", "0110011", "1011011", "1011111", "1110000", "1111111",
            "1111011"]
GAP = 4.0                 # the same sentence is not true again for so long
STEP = 0.5                # the sampling grid
LEAST = {"blinks": 2, "turns": 2, "moves": 2, "grows": 3}  # samples without which the event cannot be told; else 1


def named(colour, shape):
    return "%s %s %s" % ("an" if colour[0] in "aeiou" else "a", colour, SHAPES[shape])


def stands(colour, shape):
    return "There is %s." % named(colour, shape)


def does(colour, shape, what):
    return "%s %s." % (named(colour, shape).capitalize(), what)


def moves(colour, shape, way):
    """way: an index of WAYS."""
    what = (VERBS[shape] + " from left to right", VERBS[shape] + " from right to left", "rises", "falls")
    return does(colour, shape, what[way])


def meets(left, right):
    """Two (colour, shape)."""
    return does(*left, "meets " + named(*right))


def shows(number):
    return "The sign shows %d." % number


THINGS = [(c, s) for c in NAMES for s in range(len(SHAPES))]
SENTENCES = ([f(*t) for t in THINGS for f in (stands, lambda c, s: does(c, s, "blinks"), lambda c, s: does(c, s, "grows"))]
             + [does(c, s, "turns " + d) for c, s in THINGS for d in NAMES if c != d]
             + [moves(c, s, w) for c, s in THINGS for w in range(4) if w < 2 or s in RISING]
             + [meets(a, b) for a in THINGS for b in THINGS if a != b]
             + [shows(n) for n in range(10, 100)] + [NIGHT, RAIN])


# ---- what happens --------------------------------------------------------------------------------------------------

class World:
    """Things and events of `seconds` seconds. events: (start, end, text, kind, subject).

    quiet: an empty place. simple: one or two lanes, and much that moves; for the first lessons.
    """

    def __init__(self, seed, seconds, quiet=False, simple=False):
        self.rng = rng = random.Random(seed)
        self.seconds, self.tracks, self.events = seconds, [], []
        self.identities = []  # (colour, shape, from, to): no two things are alike at a time
        self.make_place()
        self.drift = (rng.uniform(0, 0.06), rng.uniform(8, 25), rng.uniform(0, 6.28))
        self.rainfall, self.darkness = [], []
        if quiet:
            return
        self.moving, self.meeting = ((0.5, 0.7), 0.9) if simple else ((0.25, 0.5), 0.8)  # in the first lane, in others
        gap = rng.choice([4, 6] if simple else [5, 8, 10, 20])
        for lane in range(rng.choice([1, 2, 2]) if simple else rng.choices([1, 2, 3, 4], [18, 38, 32, 12])[0]):
            self.fill_lane(lane, gap)
        for spans, text, low, high, kind in ((self.darkness, NIGHT, 5, 25, "night"),
                                             (self.rainfall, RAIN, 4, 30, "rain")):
            if rng.random() < 0.4:
                t = rng.expovariate(1 / 25)
                while t < seconds:
                    end = t + rng.uniform(low, high)
                    spans.append((t, end))
                    self.add(t, end, text, kind, None)
                    t = end + GAP + rng.expovariate(1 / 35)
        self.events = [(s, min(e, seconds), t, kind, *rest) for s, e, t, kind, *rest in self.events
                       if s < seconds - STEP * LEAST.get(kind, 1)]
        self.events.sort(key=lambda e: e[:3])

    def make_place(self):
        """place: horizon, hills (height, width, phase), sky above, sky below, ground, sun (x, y, radius)."""
        rng = self.rng
        about = lambda rgb, by: [c + rng.uniform(-by, by) for c in rgb]
        plain = rng.random() < 0.25
        tone = rng.uniform(92, 165)
        ground = about((tone,) * 3, 14) if plain else about(rng.choice(
            [(128, 152, 92), (146, 164, 108), (198, 180, 142), (152, 130, 108), (136, 138, 144)]), 10)
        horizon = -99.0 if plain else rng.uniform(18, 56)
        sky = about((138, 178, 218), 18)
        low = [c + rng.uniform(0.35, 0.75) * (232 - c) for c in sky]
        radius = rng.uniform(6, 9) if horizon > 30 and rng.random() < 0.8 else 0.0
        self.place = np.array([horizon, rng.uniform(0, 5), rng.uniform(14, 40), rng.uniform(0, 6.28), *sky, *low, *ground,
                               rng.uniform(16, 176), rng.uniform(11, 17), radius], np.float32)
        grid = np.random.default_rng(rng.getrandbits(32))
        rough = rng.uniform(2, 20) if plain else rng.uniform(1, 8)
        self.coarse = grid.uniform(-rough, rough, (1, 4, 5)).astype(np.float32)
        rough = rng.uniform(1, 8)
        self.fine = grid.uniform(-rough, rough, (16, 24)).astype(np.float32)

    def add(self, start, end, text, kind, subject):
        self.events.append((start, end, text, kind, subject))

    def free(self, start, end, text):
        return all(t != text or e + GAP < start or end + GAP < s for s, e, t, *_ in self.events)

    def unlike(self, colour, shape, start, end):
        return all((c, s) != (colour, shape) or e + GAP < start or end + GAP < b for c, s, b, e in self.identities)

    def new_thing(self, start, end, shapes=range(len(SHAPES))):
        for _ in range(30):
            colour, shape = self.rng.choice(NAMES), self.rng.choice(shapes)
            if self.unlike(colour, shape, start, end):
                return colour, shape
        return None

    def vacant(self, cells, start, end, but=None, shape=None):
        return not any(k is not but and k["cells"] & cells and shape in (None, k["shape"]) and k["on"] < end + 0.6 and start < k["off"] + 0.6
                       for k in self.tracks)

    def fill_lane(self, lane, gap):
        rng = self.rng
        t = rng.expovariate(1 / gap)
        while t < self.seconds:
            kind, track = rng.random(), None
            if lane and rng.random() < self.meeting:
                track = self.make_meeting(lane, t)
            if not track:
                track = self.make_mover(lane, t) if kind < self.moving[lane > 0] else \
                    self.make_still(lane, t, sign=kind > 0.85)
            if not track:
                t += rng.uniform(1, 3)
                continue
            self.tracks.append(track)
            t = track["off"] + 0.6 + rng.expovariate(1 / gap) + (rng.uniform(8, 25) if rng.random() < 0.1 else 0)

    def track(self, lane, cells, on, off, x, y, **more):
        return {"lane": lane, "cells": cells, "on": on, "off": off, "path": [(on, x, y)], "sway": (0.0, 5.0, 0.0),
                "still": False, "grow": None, "turns": [], "blinks": [], "numbers": [], **more}

    # ---- things that stand -------------------------------------------------------------------------------------------

    def make_still(self, lane, t, sign):
        rng = self.rng
        span = rng.choices([rng.uniform(2, 6), rng.uniform(6, 15), rng.uniform(15, 60)], [28, 44, 28])[0]
        if sign:
            span = min(span, 18.0)
            if not self.vacant(set(range(6)), t, t + span, shape=SIGN):
                return None
        elif self.tracks and rng.random() < 0.15:  # two things that begin or end in the same moment
            other = rng.choice(self.tracks)
            if 2 < other["off"] - t < 40 and other["lane"] != lane:
                span = other["off"] - t
            elif t < other["on"] < t + 8 and other["lane"] != lane and other["still"]:
                t = other["on"]
        cells = [c for c in range(6) if self.vacant({c}, t, t + span)]
        if not cells:
            return None
        cell = rng.choice(cells)
        track = self.track(lane, {cell}, t, t + span, 32 + 64 * (cell % 3) + rng.uniform(-4, 4),
                           32 + 64 * (cell // 3) + rng.uniform(-4, 4))
        return self.make_sign(track) if sign else self.make_shape(track)

    def make_sign(self, track):
        rng = self.rng
        track["size"], track["shape"] = rng.uniform(19, 22), SIGN
        t = track["on"]
        while t < track["off"]:
            end = t + rng.uniform(3, 12)
            if track["off"] - end < 2:
                end = track["off"]
            number = rng.choice([n for n in range(10, 100) if self.free(t, end, shows(n))])
            track["numbers"].append((t, number))
            self.add(t, end, shows(number), "sign", number)
            t = end
        return track

    def make_shape(self, track):
        rng = self.rng
        on, off = track["on"], track["off"]
        thing = self.new_thing(on, off)
        if not thing:
            return None
        colour, shape = thing
        track.update(size=rng.uniform(15, 20), shape=shape, colour=COLOURS[colour], still=True,
                     sway=(rng.uniform(0, 1.5), rng.uniform(3, 8), rng.uniform(0, 6.28)), names=[(on, colour)])
        since, t = on, on + rng.uniform(1.5, 4)
        while off - t > 4.5 and rng.random() < 0.55:
            what = rng.choice(["blinks", "grows", "turns"])
            span = rng.uniform(2, 4)
            subject = (NAMES.index(colour), shape)
            if what == "blinks" and self.free(t, t + 5, does(colour, shape, what)):
                t = math.floor(t / STEP) * STEP + rng.uniform(0.12, 0.38)
                span = STEP * rng.choice([5, 7, 9])
                if off - t - span < 1:
                    break
                track["blinks"].append((t, t + span))
                self.add(t, t + span, does(colour, shape, what), "blinks", subject)
            elif what == "grows" and not track["grow"]:
                track["grow"] = (t, t + span)
                track["size"] = rng.uniform(19, 21)
                self.add(t, t + span, does(colour, shape, what), "grows", subject)
            elif what == "turns" and t - since > 1.5:
                to = [c for c in NAMES if c != colour and self.unlike(c, shape, t, off)
                      and self.free(t, off, stands(c, shape)) and self.free(t, t + span, does(colour, shape, "turns " + c))]
                if to:
                    new = rng.choice(to)
                    self.add(t, t + span, does(colour, shape, "turns " + new), "turns",
                             (NAMES.index(colour), NAMES.index(new), shape))
                    self.add(since, t, stands(colour, shape), "stands", subject)
                    track["turns"].append((t, t + span, COLOURS[new]))
                    track["names"].append((t + span, new))
                    self.identities.append((colour, shape, since, t + span))
                    since, colour = t + span, new
            t += span + rng.uniform(1.5, 5)
        self.add(since, off, stands(colour, shape), "stands", (NAMES.index(colour), shape))
        self.identities.append((colour, shape, since - (4 if track["turns"] else 0), off))
        return track

    # ---- things that move --------------------------------------------------------------------------------------------

    def make_mover(self, lane, t):
        """Along a row or up and down a column; in from outside or there at once, out or gone at once, stops between."""
        rng = self.rng
        upright = rng.random() < 0.3
        thing = self.new_thing(t, t + 45, RISING if upright else range(len(SHAPES)))
        if not thing:
            return None
        size = rng.uniform(15, 20)
        reach, length, places = (size * 1.5, HEIGHT, [32, 96]) if upright else (size * HALF[thing[1]] + 2, WIDTH, [32, 96, 160])
        stops = rng.choices([0, 1, 2], [45, 40, 15])[0]
        enters, leaves = rng.choices([(1, 1), (1, 0), (0, 1), (0, 0)], [40, 25, 25, 10])[0]
        at = rng.sample([p + rng.uniform(-4, 4) for p in places], min(len(places), max(stops, (not enters) + (not leaves))))
        if not at or (enters and leaves and stops == 0):
            at, enters, leaves = [], 1, 1
        if not enters and not leaves and len(at) < 2:
            leaves = 1
        forth = rng.random() < 0.5  # from the left, from above
        ends = (-reach, length + reach)
        if enters:
            at = [ends[not forth]] + at
        if leaves:  # on its way on, mostly; back otherwise
            onward = at[-1] > at[-2] if len(at) > 1 else rng.random() < 0.5
            if len(at) > 1 and enters and len(at) == 2 and rng.random() < 0.3:
                onward = not onward
            at = at + [ends[onward] if not (enters and len(at) == 1) else ends[forth]]
        waits = [0.0 if (i == 0 and enters) or (i == len(at) - 1 and leaves) else rng.uniform(2, 9) for i in range(len(at))]
        shortest = min(abs(min(max(b, 0), length) - min(max(a, 0), length)) for a, b in zip(at, at[1:]))
        speed = min(rng.uniform(18, 45), shortest / 2.0)
        if speed < 14:
            return None
        # the same way again only after a while
        row = rng.randrange(3 if upright else 2)
        cells = {row, row + 3} if upright else {3 * row, 3 * row + 1, 3 * row + 2}
        cross = (32 + 64 * row) + rng.uniform(-4, 4)
        return self.go(lane, t, thing, size, at, waits, speed, upright, cross, cells, length)

    def go(self, lane, t, thing, size, at, waits, speed, upright, cross, cells, length, but=None):
        """The mover's track and events; None if it would be in something's way, or say the same too soon again."""
        colour, shape = thing
        subject = (NAMES.index(colour), shape)
        path, said = [], []
        now = t
        for i, p in enumerate(at):
            path.append((now, p))
            if waits[i]:
                said.append((now, now + waits[i], stands(colour, shape), "stands", subject))
                now += waits[i]
                path.append((now, p))
            if i + 1 < len(at):
                q = at[i + 1]
                end = now + abs(q - p) / speed
                inside = [now + (min(max(x, 0), length) - p) / (q - p) * (end - now) for x in (p, q)]
                way = (0 if q > p else 1) + (2 if upright else 0)
                way = {2: 3, 3: 2}.get(way, way)  # y grows downwards
                said.append((*inside, moves(colour, shape, way), "moves", (way, *subject)))
                now = end
        if not self.vacant(cells, t, now, but) or not self.unlike(colour, shape, t, now):
            return None
        for i, (s, e, text, *_) in enumerate(said):
            if not self.free(s, e, text) or any(x[2] == text and s < x[1] + GAP for x in said[:i]):
                return None
        self.events += said
        self.identities.append((colour, shape, t, now))
        track = self.track(lane, cells, t, now, 0, 0, size=size, shape=shape, colour=COLOURS[colour])
        track["path"] = [(s, cross, p) if upright else (s, p, cross) for s, p in path]
        return track

    def make_meeting(self, lane, t):
        """A mover that stops beside something that stands there."""
        rng = self.rng
        partners = [k for k in self.tracks if k["still"] and not k["grow"] and k["off"] > t + 5 and k["on"] < t + 20]
        rng.shuffle(partners)
        return next(filter(None, (self.meet(lane, t, k) for k in partners)), None)

    def meet(self, lane, t, k):
        rng = self.rng
        cell = min(k["cells"])
        row, column = cell // 3, cell % 3
        from_left = column == 2 or (column == 1 and rng.random() < 0.5)
        thing = self.new_thing(t, t + 45)
        if not thing:
            return None
        size = rng.uniform(15, 20)
        reach = size * HALF[thing[1]]
        px, py = k["path"][0][1:]
        apart = reach + k["size"] * HALF[k["shape"]] - 2
        stop = px - apart if from_left else px + apart
        outside = -reach - 2 if from_left else WIDTH + reach + 2
        inside = abs(stop - (0 if from_left else WIDTH))
        speed = min(rng.uniform(18, 45), inside / 2.0)
        if speed < 14:
            return None
        travel = abs(stop - outside) / speed
        start = max(t, k["on"] - travel + 1.5) + rng.uniform(0, 4)
        arrive = start + travel
        until = arrive + rng.uniform(2.5, 6)
        if start > t + 25 or arrive > k["off"] - 2.5:
            return None
        stay = until > k["off"]  # the other goes first, and the newcomer waits a little alone
        until = min(until, k["off"])
        if any(a < until + 0.7 and arrive - 0.7 < b for a, b, *_ in k["turns"] + k["blinks"]):
            return None
        other = [n for s, n in k["names"] if s <= arrive][-1], k["shape"]
        text = meets(thing, other) if from_left else meets(other, thing)
        back = not stay and rng.random() < 0.6
        wait = until - arrive + (rng.uniform(2, 4) if stay else 0)
        if other == thing or not self.free(arrive, until, text):
            return None
        at, waits = ([outside, stop, outside], [0, wait, 0]) if back else ([outside, stop], [0, wait])
        cells = {cell} | {c for c in range(3 * row, 3 * row + 3) if (c < cell if from_left else c > cell)}
        track = self.go(lane, start, thing, size, at, waits, speed, False, py + rng.uniform(-2, 2), cells, WIDTH, but=k)
        if track:
            k["sway"] = (0.0, 5.0, 0.0)
            pair = [(NAMES.index(c), s) for c, s in ((thing, other) if from_left else (other, thing))]
            self.add(arrive, until, text, "meets", tuple(pair))
        return track

    # ---- how things stand at given times -----------------------------------------------------------------------------

    def states(self, times):
        """Times [F] -> things [F, LANES, FIELDS] and the whole scene's [F, 4]: daylight, rain, brightness, time."""
        t = np.asarray(times, np.float64)
        out = np.zeros((len(t), LANES, FIELDS), np.float32)
        out[:, :, 0], out[:, :, 3], out[:, :, 25] = -1, 1, 9
        for k in self.tracks:
            here = (t >= k["on"]) & (t < k["off"])
            if not here.any():
                continue
            s = t[here]
            amp, period, phase = k["sway"]
            when, xs, ys = zip(*k["path"])
            row = np.zeros((len(s), FIELDS), np.float32)
            row[:, 0] = k["shape"]
            row[:, 1] = np.interp(s, when, xs) + amp * np.sin(s * 6.2832 / period + phase)
            row[:, 2] = np.interp(s, when, ys) + 0.5 * amp * np.cos(s * 6.2832 / period + 2 * phase)
            row[:, 3], row[:, 7], row[:, 25] = k["size"], 1, 9
            if k["grow"]:
                a, b = k["grow"]
                row[:, 3] *= 0.4 + 0.6 * np.clip((s - a) / (b - a), 0, 1)
            for a, b in k["blinks"]:
                row[:, 7] = np.where((s >= a) & (s < b) & (np.floor((s - a) / STEP) % 2 == 0), 0.12, row[:, 7])
            if k["shape"] == SIGN:
                for a, n in k["numbers"]:
                    row[s >= a, 8:22] = [int(c) for c in SEGMENTS[n // 10] + SEGMENTS[n % 10]]
            else:
                row[:, 4:7] = k["colour"]
                for a, b, to in k["turns"]:
                    row[(s >= a) & (s < b), 22:25] = to
                    part = (s - a) / (b - a)
                    row[:, 25] = np.where((s >= a) & (s < b), 0.9 - 1.8 * part, row[:, 25])
                    row[s >= b, 4:7] = to
            out[here, k["lane"]] = row
        inside = lambda spans, ramp: sum((np.clip((t - a) / ramp + 0.5, 0, 1) * np.clip((b - t) / ramp + 0.5, 0, 1)
                                          for a, b in spans), np.zeros(len(t)))
        depth, period, phase = self.drift
        scene = np.stack([1 - inside(self.darkness, 0.8), inside(self.rainfall, 0.01),
                          1 + depth * np.sin(t * 6.2832 / period + phase), t], 1)
        return out, scene.astype(np.float32)


def seen(events, frame_times, length):
    """The events as the sampled frames show them: (start, end, text, kind, subject, first, last), times on the grid.

    frame_times[k] is the moment that sample k shows; times count from the first sample. An event that begins before
    the window or ends after it is cut to it; a change needs a few samples to be told.
    """
    out = []
    t = np.asarray(frame_times)
    for s, e, text, kind, subject in events:
        where = np.flatnonzero((t >= s) & (t < e))
        if len(where) < LEAST.get(kind, 1):
            continue
        i, j = int(where[0]), int(where[-1])
        out.append((i * STEP, min((j + 1) * STEP, length), text, kind, subject, i, j))
    out.sort(key=lambda e: e[:3])
    return out


def kind_of(text):
    """What kind of event a sentence tells."""
    for word, kind in (("There", "stands"), ("sign", "sign"), ("night", "night"), ("raining", "rain"), ("meets", "meets"),
                       ("blinks", "blinks"), ("grows", "grows"), ("turns", "turns"), ("from left", "to the right"),
                       ("from right", "to the left"), ("rises", "up"), ("falls", "down")):
        if word in text:
            return kind
    return "other"


def clock(t):
    h = round(t * 100)
    return "%02d:%02d.%02d" % (h // 6000, h // 100 % 60, h % 100)


def answer(events):
    """The answer that is asked for: one line, one object; equal keys are legal."""
    return "{" + ", ".join("%s: %s" % (json.dumps(clock(e[0]) + " - " + clock(e[1])), json.dumps(e[2]))
                           for e in events) + "}"


# ---- how it looks --------------------------------------------------------------------------------------------------
# Signed distances in units of the thing's size (negative inside), written for numpy and for torch alike (xp). Each shape
# gives its outline, what is dark in it and what is bright in it.

def ball(xp, u, v):
    return circle(xp, u, v, 0.9), None, circle(xp, u + 0.3, v + 0.35, 0.2)


def circle(xp, u, v, radius):
    return xp.sqrt(u * u + v * v + 1e-6) - radius


def oblong(xp, u, v, w, h):
    return xp.maximum(abs(u) - w, abs(v) - h)


def box(xp, u, v):
    return oblong(xp, u, v, 0.8, 0.8), oblong(xp, u, v + 0.3, 0.8, 0.07), None


def cone(xp, u, v):
    body = xp.maximum((1.6 * abs(u) - 0.7 * (v + 0.95)) / 1.746, v - 0.62)
    return xp.minimum(body, oblong(xp, u, v - 0.68, 0.95, 0.14)), oblong(xp, u, v - 0.47, 0.75, 0.07), None


def star(xp, u, v):
    return star_distance(xp, u, v), None, None


def car(xp, u, v):
    wheels = circle(xp, abs(u) - 0.62, v - 0.5, 0.28)
    body = oblong(xp, u, v - 0.15, 1.15, 0.36)
    cabin = xp.maximum((abs(u) - 0.45 - 0.5 * (v + 0.75)) / 1.118, abs(v + 0.4) - 0.35)
    return xp.minimum(xp.minimum(body, cabin), wheels), wheels, oblong(xp, abs(u) - 0.27, v + 0.4, 0.19, 0.18)


def kite(xp, u, v):
    body = (abs(u) / 0.7 + abs(v + 0.2) / 0.85 - 1) * 0.54
    tail = oblong(xp, u - 0.12 * xp.sin(v * 9), v - 0.95, 0.07, 0.4)
    return xp.minimum(body, tail), xp.maximum(xp.minimum(abs(u), abs(v + 0.2)) - 0.05, body), None


def board(xp, u, v):
    return oblong(xp, u, v, 1.35, 1.0)


def star_distance(xp, u, v):
    u, v = abs(u), -v
    for x, y in ((0.809017, -0.587785), (-0.809017, -0.587785)):  # fold the five points onto the upper one
        over = 2 * xp.clip(u * x + v * y, 0, 9)
        u, v = u - over * x, v - over * y
    return (v - 1.05) * 0.363 + abs(u) * 0.932


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


SHAPE_FUNCTIONS = [ball, box, cone, star, car, kite]
BOARD, INK, RAINDROP = (25, 30, 70), (255, 235, 150), (205, 215, 240)
SUN, NIGHTLIGHT = (255, 246, 205), (0.36, 0.40, 0.52)
RIM, EDGE, DARK, BRIGHT = 1.8, 0.35, 0.3, (225, 238, 245)  # the outline's width; shades


def scenery(xp, x, y, place):
    """Sky, ground and sun at points x, y: three channels. place: World.place, its last axis taken apart."""
    horizon, hill, wide, phase, *rest = place
    sky, low, ground, (sun_x, sun_y, radius) = rest[:3], rest[3:6], rest[6:9], rest[9:]
    line = horizon + hill * xp.sin(x / wide + phase)
    below = xp.clip(y - line + 0.5, 0, 1)
    up = xp.clip(y / (abs(horizon) + 1), 0, 1)
    near = xp.clip((y - line) / 110, 0, 1)
    sun = xp.clip(radius - xp.sqrt((x - sun_x) * (x - sun_x) + (y - sun_y) * (y - sun_y) + 1e-6) + 0.5, 0, 1)
    out = []
    for c in range(3):
        above = sky[c] + up * (low[c] - sky[c])
        above = above + sun * (SUN[c] - above)
        out.append(above + below * (ground[c] * (1.06 - 0.16 * near) - above))
    return out


def daylight(channel, light):
    """What a channel is multiplied with, at that much daylight."""
    return NIGHTLIGHT[channel] + (1 - NIGHTLIGHT[channel]) * light


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


def points(width, height):
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    scale = width / WIDTH
    return (xx + 0.5) / scale, (yy + 0.5) / scale


def background(world, w, h):
    back = np.stack(scenery(np, *points(w, h), [float(p) for p in world.place]))
    return back + upsample(world.coarse, h, w) + upsample(world.fine[None], h, w)


class Painter:
    """Paints frames of one world with numpy."""

    def __init__(self, world, width=384, height=256, noise=1.5):
        self.world, self.w, self.h, self.noise = world, width, height, noise
        self.back = background(world, width, height)
        self.rng = np.random.default_rng(5)
        self.grain = self.rng.normal(0, noise, (8, 1, height, width)).astype(np.float32)

    def frames(self, times):
        """Yields uint8 [height, width, 3]."""
        scale = self.w / WIDTH
        xx, yy = points(self.w, self.h)
        for n, (things, scene) in enumerate(zip(*self.world.states(times))):
            img = self.back * scene[2]
            for row in things:
                if row[0] >= 0:
                    self.thing(img, xx, yy, row, scale)
            if scene[1]:
                img += rain(np, xx, yy, scene[3]) * 0.6 * (np.array(RAINDROP, np.float32)[:, None, None] - img)
            img *= np.array([daylight(c, scene[0]) for c in range(3)], np.float32)[:, None, None]
            img += self.grain[n % 8]
            yield np.clip(np.rint(img), 0, 255).astype(np.uint8).transpose(1, 2, 0)

    def thing(self, img, xx, yy, row, scale):
        kind, x, y, size = int(row[0]), row[1], row[2], row[3]
        reach = size * 1.6
        ys = slice(max(0, int((y - reach) * scale)), max(0, int((y + reach) * scale) + 1))
        xs = slice(max(0, int((x - reach) * scale)), max(0, int((x + reach) * scale) + 1))
        part = img[:, ys, xs]
        if not part.size:
            return
        u, v = (xx[ys, xs] - x) / size, (yy[ys, xs] - y) / size
        cover = lambda d: np.clip(0.5 - d * size * scale, 0, 1)
        flat = lambda rgb: np.array(rgb, np.float32).reshape(3, 1, 1)
        if kind == SIGN:
            part += cover(board(np, u, v)) * row[7] * (flat(BOARD) - part)
            part += cover(digits(np, u, v, row[8:22])) * (flat(INK) - part)
            return
        d, dark, bright = SHAPE_FUNCTIONS[kind](np, u, v)
        new = cover(row[25] - v)
        rgb = row[4:7, None, None] + new * (row[22:25, None, None] - row[4:7, None, None])
        rgb = rgb * (1 - (1 - EDGE) * cover(-d - RIM / size))
        if dark is not None:
            rgb = rgb * (1 - (1 - DARK) * cover(dark))
        if bright is not None:
            rgb = rgb + 0.7 * cover(bright) * (flat(BRIGHT) - rgb)
        part += cover(d) * row[7] * (rgb - part)


def grid_torch(like):
    import torch
    return ((torch.arange(WIDTH, device=like.device).float() + 0.5)[None],
            (torch.arange(HEIGHT, device=like.device).float() + 0.5)[:, None])


def scenery_torch(place):
    """The empty places [N, 3, 128, 192], given [N, 16]."""
    import torch
    xx, yy = grid_torch(place)
    return torch.stack(scenery(torch, xx, yy, [p[:, None, None] for p in place.unbind(1)]), 1)


def paint_torch(img, row):
    """One lane of things [N, FIELDS] over img [N, 3, 128, 192]."""
    import torch

    at = lambda x: x[..., None, None]
    xx, yy = grid_torch(row)
    size, kind = at(row[:, 3]), at(row[:, 0])
    u, v = (xx - at(row[:, 1])) / size, (yy - at(row[:, 2])) / size
    d, dark, bright = (torch.full_like(u, 9.0) for _ in range(3))
    for i, f in enumerate(SHAPE_FUNCTIONS):
        outline, shade, light = f(torch, u, v)
        d = torch.where(kind == i, outline, d)
        dark = dark if shade is None else torch.where(kind == i, shade, dark)
        bright = bright if light is None else torch.where(kind == i, light, bright)
    is_sign = kind == SIGN
    d = torch.where(is_sign, board(torch, u, v), d)
    ink = digits(torch, u, v, [at(row[:, 8 + i]) for i in range(14)])
    inside = lambda d: torch.clip(0.5 - d * size, 0, 1)
    cover, ink, new = inside(d) * at(row[:, 7]), inside(ink) * is_sign, inside(at(row[:, 25]) - v)
    shade = (1 - (1 - EDGE) * inside(-d - RIM / size)) * (1 - (1 - DARK) * inside(dark))
    bright = 0.7 * inside(bright)
    out = []
    for c in range(3):
        body = (at(row[:, 4 + c]) + new * at(row[:, 22 + c] - row[:, 4 + c])) * shade
        body = torch.where(is_sign, float(BOARD[c]), body + bright * (BRIGHT[c] - body))
        p = img[:, c] + cover * (body - img[:, c])
        out.append((p + ink * (INK[c] - p)).to(img.dtype))
    return torch.stack(out, 1)


def weather_torch(img, scene):
    """Rain and darkness over img [N, 3, 128, 192], given scene [N, 4]."""
    import torch

    at = lambda x: x[..., None, None]
    xx, yy = grid_torch(scene)
    wet = rain(torch, xx, yy, at(scene[:, 3])) * 0.6 * at(scene[:, 1])
    light = at(scene[:, 0])
    return [(p + wet * (RAINDROP[c] - p)) * daylight(c, light) for c, p in enumerate(img.unbind(1))]
