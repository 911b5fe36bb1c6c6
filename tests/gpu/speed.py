#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times scenelog and transformers (bfloat16, SDPA, not compiled) on the same device, one after the other, on the shapes
of published models with random weights:

    speed.py --scenelog ./scenelog [--config FILE]... [--device cuda|cpu]

The vision tower alone over all pairs, a whole prefill with its tower, and decoding of one sequence. Prints one table a
model; a ratio above 1 means that scenelog is faster. scenelog's figures come from `scenelog bench --json`.
Needs torch, transformers, safetensors.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch

import qwen

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "samples/configs"
AROUND_PAIR = 8  # text tokens for each pair: time, vision start and end
REQUEST = 9


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenelog", help="the program [transformers alone]")
    parser.add_argument("--config", action="append", help="config.json of a shape [samples/configs: 2b, 8b]")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=qwen.size, default=(640, 352))
    parser.add_argument("--prompt-tokens", type=int, help="time a prompt of so many tokens without pictures, too")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--batches", default="1", help="of decoding, as 1,8,32")
    parser.add_argument("--steps", type=int, default=64, help="of decoding")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--bench-options", help="instead of those that this script gives to `scenelog bench`")
    return parser.parse_args()


def settle(device):
    if device != "cpu":
        torch.cuda.synchronize()


def median_seconds(args, work):
    """Once to warm up, then --repeat times."""
    taken = []
    for _ in range(args.repeat + 1):
        settle(args.device)
        start = time.perf_counter()
        work()
        settle(args.device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def random_weights(model):
    for name, parameter in model.named_parameters():
        parameter.fill_(1) if "norm" in name and name.endswith("weight") else parameter.normal_(0, 0.02)


def video_inputs(args, model):
    """A prompt of all pairs: some text before each pair's visual tokens, the question at the end."""
    vision = model.config.vision_config
    width, height = args.size
    grid = torch.tensor([[args.pairs, height // vision.patch_size, width // vision.patch_size]], device=args.device)
    rows = int(grid[0].prod())
    patches = torch.randn(rows, 3 * 2 * vision.patch_size**2, device=args.device)
    tokens = rows // args.pairs // vision.spatial_merge_size**2
    pair = [1] * AROUND_PAIR + [model.config.video_token_id] * tokens
    ids = torch.tensor([pair * args.pairs + [1] * REQUEST], device=args.device)
    positions = torch.arange(ids.shape[1], device=args.device).expand(3, 1, -1)
    return patches, grid, ids, positions


def decode_rate(args, model, batch):
    """Tokens a second of all sequences; the next token is chosen on the device, nothing waits for the host."""
    cache = qwen.new_cache(model)
    ids = torch.randint(0, 400, (1, args.context), device=args.device)
    positions = torch.arange(args.context, device=args.device).expand(3, 1, -1)
    qwen.decode(model, cache, positions, ids=ids)
    cache.batch_repeat_interleave(batch)
    token = torch.ones(batch, 1, dtype=torch.long, device=args.device)
    position = torch.full((3, batch, 1), args.context, device=args.device)

    def steps(count):
        nonlocal token, position
        for _ in range(count):
            token = qwen.decode(model, cache, position, ids=token).argmax(-1, keepdim=True)
            position = position + 1

    steps(4)
    settle(args.device)
    start = time.perf_counter()
    steps(args.steps)
    settle(args.device)
    return batch * args.steps / (time.perf_counter() - start)


@torch.no_grad()
def time_transformers(args, config):
    model = qwen.create_model(config, args.device, torch.bfloat16)
    random_weights(model)
    patches, grid, ids, positions = video_inputs(args, model)

    def whole_prefill():
        features, deepstack = qwen.tower(model, patches, grid)
        return qwen.prefill(model, ids, positions, features, deepstack, qwen.new_cache(model))

    figures = {"vision_ms": 1e3 * median_seconds(args, lambda: qwen.tower(model, patches, grid))}
    figures["prefill_ms"] = 1e3 * median_seconds(args, whole_prefill)
    figures["prefill_tokens"] = ids.shape[1]
    if args.prompt_tokens:
        text = torch.randint(0, 400, (1, args.prompt_tokens), device=args.device)
        places = torch.arange(args.prompt_tokens, device=args.device).expand(3, 1, -1)
        figures["text_prefill_ms"] = 1e3 * median_seconds(
            args, lambda: qwen.decode(model, qwen.new_cache(model), places, ids=text))
    for batch in batches(args):
        figures[f"decode_{batch}"] = decode_rate(args, model, batch)
    return figures


def batches(args):
    return [int(batch) for batch in args.batches.split(",")]


def decode_figures(bench):
    """tok/s of each batch: a list of objects, or one object with the batches as keys."""
    found = bench.get("decode") or bench.get("decode_tok_per_s") or []
    if isinstance(found, dict):
        return {int(batch): rate for batch, rate in found.items()}
    if isinstance(found, (int, float)):
        return {1: found}
    return {int(each["batch"]): each.get("tok_per_s", each.get("decode_tok_per_s")) for each in found}


def time_scenelog(args, path):
    options = ["--device", args.device, "--pairs", str(args.pairs), "--size", f"{args.size[0]}x{args.size[1]}",
               "--context", str(args.context), "--batch", args.batches, "--only", "vision,prefill,decode"]
    if args.prompt_tokens:
        options += ["--prompt-tokens", str(args.prompt_tokens)]
    if args.bench_options is not None:
        options = args.bench_options.split()
    command = [args.scenelog, "bench", "--config", path, "--random", "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"speed.py: {' '.join(map(str, command))}: exit status {done.returncode}")
    bench = json.loads(done.stdout)
    figures = {key: bench.get(key) for key in ["vision_ms", "prefill_ms", "prefill_tokens", "text_prefill_ms"]}
    figures |= {f"decode_{batch}": rate for batch, rate in decode_figures(bench).items()}
    return figures


def row(name, ours, theirs, higher_is_better):
    def cell(value):
        return f"{value:12.1f}" if value else f"{'-':>12}"

    ratio = "-"
    if ours and theirs:
        ratio = f"{ours / theirs if higher_is_better else theirs / ours:.2f}"
    print(f"{name:<34}{cell(ours)}{cell(theirs)}{ratio:>8}")


def report(args, name, ours, theirs):
    width, height = args.size
    print(f"\n{name:<34}{'scenelog':>12}{'transformers':>12}{'faster':>8}")
    row(f"vision, {args.pairs} pairs {width}x{height}, ms", ours.get("vision_ms"), theirs["vision_ms"], False)
    # Prompts differ by some tokens of text, so times for each token are compared.
    for label, figures in [("scenelog", ours), ("transformers", theirs)]:
        if figures.get("prefill_ms") and figures.get("prefill_tokens"):
            figures["prefill_rate"] = 1e3 * figures["prefill_tokens"] / figures["prefill_ms"]
            print(f"{'  prompt of ' + label:<34}{figures['prefill_tokens']:>12.0f} tokens in "
                  f"{figures['prefill_ms']:.1f} ms")
    row("prefill with vision, tok/s", ours.get("prefill_rate"), theirs.get("prefill_rate"), True)
    if args.prompt_tokens:
        row(f"prefill, {args.prompt_tokens} tokens of text, ms", ours.get("text_prefill_ms"), theirs["text_prefill_ms"], False)
    for batch in batches(args):
        key = f"decode_{batch}"
        row(f"decode, batch {batch}, {args.context} cached, tok/s", ours.get(key), theirs[key], True)


def main():
    args = arguments()
    name = torch.cuda.get_device_name() if args.device != "cpu" else "CPU"
    print(f"{name}; torch {torch.__version__}, bfloat16, SDPA")
    for path in args.config or [CONFIGS / f"{shape}.json" for shape in ["2b", "8b"]]:
        start = time.monotonic()
        theirs = time_transformers(args, qwen.read_config(path))
        qwen.give_memory_back(args.device)
        ours = time_scenelog(args, path) if args.scenelog else {}
        report(args, pathlib.Path(path).stem, ours, theirs)
        print(f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
