#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds scenelog in bfloat16 against transformers in bfloat16, both against transformers in float32, on the shapes of
published models with random weights:

    parity.py --trace build/tests/tools/sl-trace [--config FILE]... [--device cuda|cpu] [--work DIR]

A checkpoint is made in --work (as large as the model: 17 GB for 8B), run by sl-trace on random smooth pictures, and by
transformers from the same pictures, ids and positions; each does everything from patches to logits. Errors are pooled
over --trials. Exit status 1 when one of ours is more than --limit times that of transformers' bfloat16, or when the
greedy continuation parts from float32's where that was sure: a top-two margin of 10 times the logit error or more.
Needs torch, transformers, safetensors.

Of a mixture of experts take 24 trials or more: logits are those of the last token, and where rounding decides which
expert it is sent to, on either side, its error is some ten times that of the others.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file

import qwen

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "samples/configs"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trace", required=True)
    parser.add_argument("--config", action="append", help="config.json of a shape [samples/configs: 2b, 4b, 8b]")
    parser.add_argument("--layers", type=int, help="of the decoder, the first so many [all]; for what is too large")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--size", type=qwen.size, default=(640, 352))
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--limit", type=float, default=1.2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", help="folder for the checkpoints [/dev/shm, or where there is room]")
    return parser.parse_args()


def work_folder(args, needed_bytes):
    for parent in [args.work] if args.work else ["/dev/shm", tempfile.gettempdir()]:
        if shutil.disk_usage(parent).free > needed_bytes + (1 << 30):
            return pathlib.Path(tempfile.mkdtemp(prefix="parity-", dir=parent))
    sys.exit(f"parity.py: no room for {needed_bytes / 1e9:.1f} GB; name a folder by --work")


def smooth_pictures(args, trial):
    """Soft noise that moves on from picture to picture, and a little grain."""
    width, height = args.size
    generator = torch.Generator().manual_seed(1000 * args.seed + trial)
    coarse = torch.randn(1, 3, args.pairs + 2, 6, 10, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (2 * args.pairs, height, width), mode="trilinear")
    fine = 128 + 70 * fine + 4 * torch.randn(fine.shape, generator=generator)
    return fine[0].permute(1, 2, 3, 0).clamp(0, 255).round().to(torch.uint8).contiguous()


def run_trace(args, folder, trial, pixels):
    frames, out = folder / f"frames-{trial}", folder / f"trace-{trial}.safetensors"
    frames.mkdir()
    times = torch.arange(len(pixels), dtype=torch.int32) * 500000
    save_file({"pixels": pixels, "sample_us": times}, frames / "model.safetensors")
    subprocess.run([args.trace, "-m", folder, "-o", out, "--device", args.device, "--compute", "bf16",
                    "--new-tokens", str(args.new_tokens), "--frames", frames], check=True)
    return load_file(out)


def run_reference(model, ours, steps):
    """Every stage from the pictures on; ids and positions are those of the trace."""
    device, vision = next(model.parameters()).device, model.config.vision_config
    patches = qwen.patches_of(ours["pixels"].to(device), vision.patch_size, vision.spatial_merge_size)
    grid = ours["grid_thw"].long()[None].to(device)
    ids, positions = ours["token_ids"].long()[None].to(device), ours["position_ids"].long()[:, None].to(device)
    features, deepstack = qwen.tower(model, patches, grid)
    cache = qwen.new_cache(model)
    logits = qwen.prefill(model, ids, positions, features, deepstack, cache)
    stages = {"patches": patches, "vision": features, "logits": logits[0]}
    stages |= {f"deepstack {k}": d for k, d in enumerate(deepstack)}
    stages = {name: value.float().cpu() for name, value in stages.items()}
    tokens, margins = [], []
    for step in range(steps):
        top = logits[0].float().topk(2)
        tokens.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        position = torch.full((3, 1, 1), int(positions.max()) + 1 + step, device=device)
        logits = qwen.decode(model, cache, position, ids=torch.tensor([[tokens[-1]]], device=device))
    return stages, tokens, margins


class Errors:
    """|a - b| / |b| over several trials together."""

    def __init__(self):
        self.sums = {}

    def add(self, name, value, reference):
        pair = self.sums.setdefault(name, [0.0, 0.0])
        pair[0] += float((value.double() - reference.double()).square().sum())
        pair[1] += float(reference.double().square().sum())

    def of(self, name):
        return (self.sums[name][0] / self.sums[name][1]) ** 0.5


def our_stage(ours, name):
    return ours[name.replace(" ", "_")]


def continuation(ours, reference):
    """(steps that were sure, of these how many ours agreed in)"""
    stages, tokens, margins = reference
    off = float((ours["logits"] - stages["logits"]).abs().max())
    sure = next((i for i, margin in enumerate(margins) if margin < 10 * off), len(margins))
    equal = next((i for i in range(sure) if int(ours["continuation"][i]) != tokens[i]), sure)
    return sure, equal


def report(args, name, ours_errors, their_errors, sure, equal):
    print(f"\n{name}{f', {args.layers} layers' if args.layers else ''}: {args.pairs} pairs of {args.size[0]}x{args.size[1]}, {args.trials} trials; errors against float32")
    print(f"{'':<14}{'scenelog':>12}{'transformers':>14}{'ratio':>8}")
    good = sure == equal
    for stage in their_errors.sums:
        ours, theirs = ours_errors.of(stage), their_errors.of(stage)
        # Patches alone are exact but for their rounding, on either side.
        within = ours < 4e-3 if stage == "patches" else ours <= args.limit * theirs
        good = good and within
        ratio = f"{ours / theirs:8.3f}" if theirs > 0 else f"{'':>8}"
        print(f"{stage:<14}{ours:>12.3e}{theirs:>14.3e}{ratio}{'' if within else '  TOO MUCH'}")
    print(f"greedy continuation: {equal} of {sure} sure steps equal{'' if equal == sure else '  PARTED'}", flush=True)
    return good


@torch.no_grad()
def check(args, path):
    start = time.monotonic()
    config = qwen.read_config(path, args.layers)
    model = qwen.create_model(config, args.device, torch.float32)
    qwen.randomise(model, args.seed)
    folder = work_folder(args, 2 * sum(p.numel() for p in model.parameters()))
    try:
        qwen.write_checkpoint(model, config, folder)
        qwen.give_memory_back(args.device)
        ours = [run_trace(args, folder, trial, smooth_pictures(args, trial)) for trial in range(args.trials)]
    finally:
        shutil.rmtree(folder)
    exact = [run_reference(model, each, args.new_tokens) for each in ours]
    qwen.cast_parameters(model, torch.bfloat16)
    rounded = [run_reference(model, each, 0) for each in ours]
    ours_errors, their_errors, sure, equal = Errors(), Errors(), 0, 0
    for mine, reference, theirs in zip(ours, exact, rounded):
        for stage, value in reference[0].items():
            ours_errors.add(stage, our_stage(mine, stage), value)
            their_errors.add(stage, theirs[0][stage], value)
        steps = continuation(mine, reference)
        sure, equal = sure + steps[0], equal + steps[1]
    good = report(args, pathlib.Path(path).stem, ours_errors, their_errors, sure, equal)
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    return good


def main():
    args = arguments()
    qwen.exact_float32()
    good = True
    for path in args.config or [CONFIGS / f"{name}.json" for name in ["2b", "4b", "8b"]]:
        good = check(args, path) and good
        qwen.give_memory_back(args.device)
    sys.exit(not good)


if __name__ == "__main__":
    main()
