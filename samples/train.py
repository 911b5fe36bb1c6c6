#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train the demo model on the synthetic world, on one accelerator, for a stated number of minutes.

    train.py --out DIR --minutes 9 [--from DIR [--new-words]] [--experts 4] [--seed 1] [--rate 0.02]

Windows are made up on the processor's cores, painted on the accelerator, and seen once. Beside the answer itself the
model learns through helper heads what stands, moves and meets in each frame, and what begins or ends there; the heads
are not shipped (helpers.pt lets a next run go on with them). --from carries weights on; the optimiser begins anew.
--new-words learns the words anew too: a known word keeps its row of the embedding, a new one begins as the mean of the
known pieces that it is made of. --experts splits the MLP of every second layer into experts, two of them for a token.
The folder DIR/demo-model is written every two minutes and at the end.
"""
import argparse
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import demo_model as dm
import world as W
from evaluate import Score, parse

LENGTHS = [30, 10, 20, 5, 15.5, 8.5, 25, 3, 30.5, 10.5, 12, 27]
CHANCES = {"easy": [0, 15, 0, 85, 0, 0, 0, 0, 0, 0, 0, 0], "medium": [15, 50, 10, 15, 0, 10, 0, 0, 0, 0, 0, 0],
           "all": [50, 26, 4, 3, 2, 3, 2, 2, 2, 2, 2, 2]}
SIZES = [(128, 192), (128, 160), (96, 192)]  # what 3:2, 4:3 and 16:9 pictures become
SIZE_CHANCES = [54, 28, 18]
MOST_EVENTS = 14
THINGS = len(W.THINGS)
# stands, blinks, grows, turns from, turns to, moves in four ways, is on the left of a meeting, on the right; tens and ones
# of a sign; night, rain; something moves in each of four ways, some two meet
CLASSES = 11 * THINGS + 20 + 2 + 5
TAP = 3                    # the decoder layer that the pair head reads


def classes(kind, subject):
    base = 11 * THINGS
    thing = lambda group, colour, shape: group * THINGS + colour * len(W.SHAPES) + shape
    if kind == "sign":
        return [base + subject // 10, base + 10 + subject % 10]
    if kind in ("night", "rain"):
        return [base + 20 + (kind == "rain")]
    if kind == "turns":
        a, b, shape = subject
        return [thing(3, a, shape), thing(4, b, shape)]
    if kind == "moves":
        way, colour, shape = subject
        return [thing(5 + way, colour, shape), base + 22 + way]
    if kind == "meets":
        left, right = subject
        return [thing(9, *left), thing(10, *right), base + 26]
    return [thing(("stands", "blinks", "grows").index(kind), *subject)]


def make_window(rng, length, simple):
    """One window cut out of a longer world, as its frames show it."""
    while True:
        offset = 0.0 if rng.random() < 0.2 else float(rng.choice([10, 20, 30] if length > 9 else [5, 8, 15]))
        world = W.World(rng.getrandbits(48), offset + length, quiet=rng.random() < 0.03, simple=simple)
        n = int(length / W.STEP)
        most = rng.uniform(0.05, 0.25) if rng.random() < 0.15 else rng.uniform(0, 0.09)
        jitter = np.random.default_rng(rng.getrandbits(32)).uniform(0, most, n)
        times = np.maximum(np.arange(n) * W.STEP - jitter, 0) + offset
        events = W.seen([(s - offset, e - offset, *rest) for s, e, *rest in world.events], times - offset, length)
        if len(events) <= MOST_EVENTS:
            return world, times, events


class Windows(torch.utils.data.IterableDataset):
    """Endless batches, each of one length; the lengths grow with the step."""

    def __init__(self, tok_json, seed, frames, easy, medium):
        self.tok_json, self.seed, self.frames, self.easy, self.medium = tok_json, seed, frames, easy, medium

    def __iter__(self):
        from tokenizers import Tokenizer
        info = torch.utils.data.get_worker_info()
        step, stride = (info.id, info.num_workers) if info else (0, 1)
        torch.set_num_threads(1)
        tok = Tokenizer.from_str(self.tok_json)
        while True:
            rng = random.Random(self.seed * 1_000_003 + step)
            stage = "easy" if step < self.easy else "medium" if step < self.medium else "all"
            length = rng.choices(LENGTHS, CHANCES[stage])[0]
            size = rng.choices(SIZES, SIZE_CHANCES)[0] if stage == "all" else SIZES[0]
            yield make_batch(tok, rng, length, max(1, int(self.frames / (length / W.STEP))), size, stage == "easy")
            step += stride


def make_batch(tok, rng, length, count, size=SIZES[0], simple=False):
    stop, pad = tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")
    things, scene, place, coarse, fine, answers, marks = [], [], [], [], [], [], []
    for b in range(min(count, 384)):
        world, times, events = make_window(rng, length, simple)
        t, s = world.states(times)
        things.append(t)
        scene.append(s)
        place.append(world.place)
        coarse.append(world.coarse)
        fine.append(world.fine[None])
        answers.append(tok.encode(W.answer(events)).ids + [stop])
        marks += [(b, c, e[5], e[6]) for e in events for c in classes(e[3], e[4])]
    longest = (max(map(len, answers)) + 63) // 64 * 64 + 1  # few different lengths: kernels are chosen for each
    stack = lambda arrays: torch.from_numpy(np.stack(arrays))
    return {"length": length, "size": size, "things": stack(things), "scene": stack(scene), "place": stack(place),
            "coarse": stack(coarse), "fine": stack(fine),
            "answers": torch.tensor([a + [pad] * (longest - len(a)) for a in answers]),
            "marks": torch.tensor(marks, dtype=torch.long).view(-1, 4)}


# ---- what a codec and a resize do ----------------------------------------------------------------------------------

def dct_matrix():
    k = torch.arange(8).float()
    d = torch.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16) * 0.5
    d[0] *= 0.5 ** 0.5
    return torch.kron(d, d)


def shift(x, dim):
    """The neighbours on both sides, edges repeated."""
    n = x.shape[dim]
    return (torch.cat((x.narrow(dim, 0, 1), x.narrow(dim, 0, n - 1)), dim),
            torch.cat((x.narrow(dim, 1, n - 1), x.narrow(dim, n - 1, 1)), dim))


def smooth(x, w):
    for dim in (-1, -2):
        a, b = shift(x, dim)
        x = x + w * (a + b - 2 * x)
    return x


def film(img, scene, style, noise):
    """Weather, exposure, blur, and limited-range YUV with coarse chroma, of [N, 3, 128, 192]."""
    s = style[:, :, None, None]
    r, g, b = (torch.clip(p * s[:, c] + s[:, 3], 0, 255) for c, p in enumerate(W.weather_torch(img.float(), scene)))
    y = 16 + 0.2568 * r + 0.5041 * g + 0.0979 * b
    cb, cr = -0.1482 * r - 0.291 * g + 0.4392 * b, 0.4392 * r - 0.3678 * g - 0.0714 * b
    y = smooth(y, s[:, 4]) + noise * s[:, 5]
    return torch.round(y), torch.round(smooth(cb, s[:, 6])), torch.round(smooth(cr, s[:, 6]))


def develop(y, cb, cr):
    y = 1.1644 * (torch.clip(y, 16, 235) - 16)
    img = torch.stack((y + 1.596 * cr, y - 0.3918 * cb - 0.813 * cr, y + 2.0172 * cb), 1)
    return (torch.round(torch.clip(img, 0, 255)) / 127.5 - 1).to(torch.bfloat16)


class Camera:
    """Turns a batch's states into frames like those of a decoded clip."""

    def __init__(self, dev, compiled):
        self.paint, self.film, self.develop = (dm.many(f, compiled) for f in (W.paint_torch, film, develop))
        self.dct = dct_matrix().to(dev)
        k = torch.arange(8, device=dev)
        self.weight = (1 + 0.25 * (k[:, None] + k[None]).flatten().float())

    @torch.no_grad()
    def __call__(self, batch):
        b, f = batch["things"].shape[:2]
        things, scene = batch["things"].flatten(0, 1), batch["scene"].flatten(0, 1)
        wide = lambda x: F.interpolate(x, (W.HEIGHT, W.WIDTH), mode="bilinear", align_corners=True)
        back = (W.scenery_torch(batch["place"]) + wide(batch["coarse"]) + wide(batch["fine"])).half()
        img = (back[:, None] * batch["scene"][..., 2, None, None, None].half()).flatten(0, 1)
        for lane in range(W.LANES):
            img = self.paint(img, things[:, lane].contiguous())
        u = torch.rand(b, 10, device=things.device)
        style = torch.cat([1 + 0.08 * (u[:, :3] - 0.5) + 0.1 * (u[:, 3:4] - 0.5), 8 * (u[:, 4:5] - 0.5),
                           0.3 * u[:, 5:6] ** 2 - 0.06, 3 * u[:, 6:7] ** 2, 0.12 + 0.2 * u[:, 7:8]], 1)
        noise = torch.randn(b * f, W.HEIGHT, W.WIDTH, device=things.device, dtype=torch.float16)
        y, cb, cr = self.film(img, scene, style.repeat_interleave(f, 0), noise)
        coarse = torch.where(u[:, 8] < 0.3, 0.5, 14 * u[:, 9] ** 1.5 + 0.5)
        out = self.develop(self.quantise(y, coarse.repeat_interleave(f)), cb, cr).view(b, f, 3, W.HEIGHT, W.WIDTH)
        h, w = batch["size"]
        if (h, w) != (W.HEIGHT, W.WIDTH):
            out = F.interpolate(out.flatten(0, 1).float(), (h, w), mode="bicubic", antialias=True)
            out = out.clamp(-1, 1).to(torch.bfloat16).view(b, f, 3, h, w)
        if f % 2:
            out = torch.cat((out, out[:, -1:]), 1)
        return out.view(b, -1, 2, 3, h, w)

    def quantise(self, y, q):
        n, h, w = y.shape
        x = y.view(n, h // 8, 8, w // 8, 8).transpose(2, 3).reshape(n, -1, 64)
        step = q[:, None, None] * self.weight
        x = (torch.round((x @ self.dct.T) / step) * step) @ self.dct
        return x.view(n, h // 8, w // 8, 8, 8).transpose(2, 3).reshape(n, h, w)


# ---- optimiser -----------------------------------------------------------------------------------------------------

class Muon:
    """Momentum, then the nearest orthogonal matrix as the update; matrices of one shape together."""

    def __init__(self, params):
        self.groups = {}
        for p in params:
            parts = 3 if p.shape[0] == 3 * p.shape[1] and p.shape[1] == 192 else 1  # q, k and v of the vision blocks
            self.groups.setdefault((p.shape[0] // parts, p.shape[1]), []).append((p, parts))
        self.momentum = {}

    @torch.no_grad()
    def step(self, rate, beta=0.95):
        for (rows, cols), members in self.groups.items():
            g = torch.cat([p.grad.view(parts, rows, cols) for p, parts in members])
            m = self.momentum.setdefault((rows, cols), torch.zeros_like(g))
            m.lerp_(g, 1 - beta)
            u = orthogonal(g.lerp(m, beta)) * (max(1, rows / cols) ** 0.5 * rate)
            u = u.float().split([parts for _, parts in members])
            torch._foreach_sub_([p for p, _ in members], [x.reshape(p.shape) for x, (p, _) in zip(u, members)])


def orthogonal(g):
    """Newton-Schulz, five steps with tuned coefficients (Jordan et al., 2024)."""
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        s = x @ x.mT
        x = 3.4445 * x + (-4.775 * s + 2.0315 * s @ s) @ x
    return x.mT if tall else x


# ---- helper heads --------------------------------------------------------------------------------------------------

class Helpers(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.eye = torch.nn.Linear(2 * hidden, 2 * CLASSES)   # from a pair's visual tokens: what is there
        self.pair = torch.nn.Linear(hidden, 6 * CLASSES)      # from <|vision_end|>: is there, begins, ends
        for head in (self.eye, self.pair):
            torch.nn.init.normal_(head.weight, std=0.01)
            torch.nn.init.constant_(head.bias, -5.0)


def targets(batch, frames):
    """[B, F, 3, CLASSES]: is there, begins, ends; F is even."""
    b = batch["things"].shape[0]
    w, c, i, j = batch["marks"].unbind(1)
    flags = torch.zeros(b, frames + 2, 3, CLASSES, device=w.device)
    one = torch.ones(len(w), device=w.device)
    flags.index_put_((w, i, torch.ones_like(w), c), one)
    flags.index_put_((w, j + 1, torch.full_like(w, 2), c), one)
    delta = torch.zeros(b, frames + 2, CLASSES, device=w.device)
    delta.index_put_((w, i, c), one, accumulate=True)
    delta.index_put_((w, j + 1, c), -one, accumulate=True)
    flags[:, :, 0] = delta.cumsum(1).clamp(max=1)
    return flags[:, :frames]


# ---- scoring -------------------------------------------------------------------------------------------------------

def score(net, tok, camera, length, count, size=SIZES[0], seed=999):
    rng, out = random.Random(seed), Score()
    net.eval()
    samples = [k * W.STEP for k in range(int(length / W.STEP))]
    for _ in range(0, count, 128):  # at most 128 at once
        batch = to_device(make_batch(tok, rng, length, min(128, count), size))
        texts = dm.generate(net, tok, camera(batch), samples)
        stop = tok.token_to_id("<|im_end|>")
        for got, ids in zip(texts, batch["answers"].tolist()):
            out.add(parse(got), parse(tok.decode(ids[:ids.index(stop)])))
    net.train()
    return out


# ---- the run -------------------------------------------------------------------------------------------------------

def to_device(batch):
    return {k: v.to(DEVICE, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}


def log(line):
    print(line, flush=True)
    with open(OUT / "training.log", "a") as f:
        f.write(line + "\n")


def losses(net, heads, tok, batch, camera, layouts):
    key = batch["length"], tuple(batch["size"])  # the loader makes lists of tuples
    if key not in layouts:
        ids, pos, p = dm.prefix(tok, [k * W.STEP for k in range(int(key[0] / W.STEP))], key[1])
        ids = torch.tensor(ids, device=DEVICE)
        spots = (ids == tok.token_to_id("<|video_pad|>")).nonzero()[:, 0]
        ends = (ids == tok.token_to_id("<|vision_end|>")).nonzero()[:, 0]
        layouts[key] = ids, torch.tensor(pos, device=DEVICE), p, spots, ends
    ids, pos, p, spots, ends = layouts[key]
    frames = camera(batch).to(net.dtype)
    b, pairs = frames.shape[:2]
    seen = net.see(frames.flatten(0, 1))
    t = targets(batch, 2 * pairs).view(b, pairs, 2, 3, CLASSES)
    tokens = seen[0]
    eye = F.linear(torch.cat((tokens.mean(1), tokens.amax(1)), -1).float(), heads.eye.weight, heads.eye.bias)
    eye_loss = F.binary_cross_entropy_with_logits(eye.view(b, pairs, 2, CLASSES), t[:, :, :, 0],
                                                  reduction="sum") / (b * pairs)
    a = batch["answers"]
    row = torch.cat((ids.expand(b, -1), a[:, :-1]), 1)
    extra = p + torch.arange(a.shape[1] - 1, device=DEVICE)[:, None].expand(-1, 3)
    h, tapped, uneven = net.read(row, torch.cat((pos, extra)), [s.reshape(b, len(spots), -1) for s in seen], spots, tap=TAP)
    pair = F.linear(tapped[:, ends].float(), heads.pair.weight, heads.pair.bias)
    pair_loss = F.binary_cross_entropy_with_logits(pair.view_as(t), t, reduction="sum") / (b * pairs)
    logits = net.logits(h[:, len(ids) - 1:]).float()
    good = a != tok.token_to_id("<|endoftext|>")
    ce = F.cross_entropy(logits.flatten(0, 1), a.masked_fill(~good, -100).flatten())
    acc = ((logits.argmax(-1) == a) & good).sum() / good.sum()
    return ce, acc, eye_loss, pair_loss, uneven


def main():
    global DEVICE, OUT
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--from", dest="start", type=Path)
    ap.add_argument("--new-words", action="store_true", help="learn the tokenizer anew")
    ap.add_argument("--experts", type=int, default=0, help="how many in every second layer, if the start has none")
    ap.add_argument("--balance", type=float, default=0.02, help="weight of an even use of the experts")
    ap.add_argument("--minutes", type=float, default=9)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--rate", type=float, default=0.02, help="of the matrices; the rest learns at a tenth of it")
    ap.add_argument("--helper", type=float, default=0.03, help="weight of the helper heads")
    ap.add_argument("--frames", type=int, default=3840, help="frames in a batch")
    ap.add_argument("--easy", type=int, default=300, help="steps of short windows at first")
    ap.add_argument("--medium", type=int, default=900)
    ap.add_argument("--hold", type=float, default=0.35, help="share of the run before the rate falls")
    ap.add_argument("--last", type=float, default=0.02, help="the rate's last share")
    ap.add_argument("--workers", type=int, default=14)
    ap.add_argument("--steps", type=int, default=10**9)
    ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--score", type=int, default=256, help="windows in a score")
    args = ap.parse_args()
    begun = time.time()
    OUT, DEVICE = args.out, "cuda" if torch.cuda.is_available() else "cpu"
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # gave NaN for frames of 64 patches, and plans anew for every shape
    tok = dm.build_tokenizer() if args.new_words or not args.start else dm.load_tokenizer(args.start)
    loader = iter(torch.utils.data.DataLoader(
        Windows(tok.to_str(), args.seed, args.frames, args.easy, args.medium), batch_size=None,
        num_workers=args.workers, prefetch_factor=4 if args.workers else None, pin_memory=DEVICE == "cuda"))
    hf = dm.build_model(tok, args.experts)
    heads = Helpers(hf.config.text_config.hidden_size)
    if args.start:
        dm.load_weights(hf, args.start, tok)
        if (args.start.parent / "helpers.pt").exists():
            heads.load_state_dict(torch.load(args.start.parent / "helpers.pt", map_location="cpu"))
    net, heads = dm.Net(hf, tok, not args.no_compile).to(DEVICE), heads.to(DEVICE)
    net.dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    camera, plain = Camera(DEVICE, not args.no_compile), dm.Net(hf, tok).to(DEVICE)
    plain.dtype = net.dtype
    matrices = [p for n, p in hf.named_parameters() if p.dim() == 2 and "embed" not in n and "router" not in n]
    rest = [p for n, p in hf.named_parameters() if p.dim() != 2 or "embed" in n or "router" in n] + list(heads.parameters())
    muon, adam = Muon(matrices), torch.optim.AdamW(rest, lr=args.rate / 10, betas=(0.9, 0.98), weight_decay=0.0,
                                                      fused=DEVICE == "cuda")
    log(f"parameters {sum(p.numel() for p in hf.parameters()) / 1e6:.2f} M, seed {args.seed}, rate {args.rate}, "
        f"from {args.start.name if args.start else 'nothing'}, torch {torch.__version__}")
    sums, saved, layouts, windows = torch.zeros(5, device=DEVICE), time.time(), {}, 0
    mark, step = begun, -1
    while step + 1 < args.steps:
        step += 1
        done = (time.time() - begun) / (60 * args.minutes)
        if done >= 1:
            break
        batch = to_device(next(loader))
        ce, acc, eye, pair, uneven = losses(net, heads, tok, batch, camera, layouts)
        (ce + args.helper * (eye + pair) + args.balance * uneven).backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        scale = min(1, (step + 1) / 60) * min(1, max(args.last, (1 - done) / (1 - args.hold)))
        for g in adam.param_groups:
            g["lr"] = args.rate / 10 * scale
        adam.step()
        muon.step(args.rate * scale)
        for p in matrices + rest:
            p.grad = None
        sums += torch.stack((ce, acc, eye, pair, uneven)).detach()
        windows += len(batch["answers"])
        if step == 0:
            log(f"first step after {time.time() - begun:.0f} s")
            mark = time.time()
        if step % 100 == 99 or step == args.steps - 1:
            m = (sums / 100).tolist()
            now = time.time()
            log(f"step {step + 1} {now - begun:.0f} s, {(now - mark) * 10:.0f} ms a step, rate {scale:.2f}, loss "
                f"{m[0]:.4f}, accuracy {m[1]:.4f}, eye {m[2]:.3f}, pair {m[3]:.3f}" + (f", uneven {m[4]:.3f}" if hf.experts else ""))
            sums.zero_()
            mark = now
            if not np.isfinite(m[0]):
                log("not finite: stopped")
                return
        if time.time() - saved > 120:
            dm.save_folder(hf, tok, OUT / "demo-model")
            torch.save(heads.state_dict(), OUT / "helpers.pt")
            f = score(plain, tok, camera, 10, min(128, args.score))
            log(f"  saved; 10 s windows: {f}\n    {f.kinds()}")
            saved = mark = time.time()
    dm.save_folder(hf, tok, OUT / "demo-model")
    torch.save(heads.state_dict(), OUT / "helpers.pt")
    log(f"end: {step} steps, {windows} windows, {time.time() - begun:.0f} s")
    for length, size in ((30, SIZES[0]), (10, SIZES[0]), (30, SIZES[1]), (30, SIZES[2])):
        if time.time() - begun > 60 * args.minutes + 30:
            break
        f = score(plain, tok, camera, length, args.score, size)
        log(f"{length} s windows of {size[1]}x{size[0]}: {f}\n    {f.kinds()}")
    if DEVICE == "cuda":
        log(f"memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB, {time.time() - begun:.0f} s")


if __name__ == "__main__":
    main()
