#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds sl-trace against transformers, end to end, on any checkpoint and video:

    compare_trace.py --trace build/tests/tools/sl-trace --model DIR --video FILE [--compute bf16] [-- sl-trace options]

transformers gets the pictures and times that scenelog sampled, and does everything else itself, in float32: patches by
its video processor, ids by the tokenizers library, positions by get_rope_index, tower, decoder, greedy continuation.
Prints one table; exit status 1 when ids or positions differ, a stage is off by more than 1e-4 (float32), or the
continuation parts from the reference where that was sure: a top-two margin of 10 times the logit error or more.
Needs torch, torchvision, transformers, tokenizers, safetensors.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForImageTextToText, Qwen3VLVideoProcessor

PROMPT = "What happens in this video?"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--trace", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--video", required=True)
    parser.add_argument("--compute", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("rest", nargs="*")
    return parser.parse_args()


def trace(args):
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "trace.safetensors"
        subprocess.run([args.trace, "-m", args.model, "-o", str(out), "--prompt", PROMPT, "--compute", args.compute,
                        *args.rest, args.video], check=True)
        return load_file(out)


def reference_patches(args, pixels):
    processor = Qwen3VLVideoProcessor.from_pretrained(args.model)
    frames = pixels.permute(0, 3, 1, 2)
    out = processor(videos=[frames], do_resize=False, do_sample_frames=False, return_tensors="pt")
    return out["pixel_values_videos"], out["video_grid_thw"]


def reference_ids(args, sample_us, grid, merge):
    text = "<|im_start|>user\n"
    times = sample_us.tolist()
    times += times[-1:] * (len(times) % 2)
    pads = "<|video_pad|>" * int(grid[0, 1] * grid[0, 2] // merge**2)
    for first, second in zip(times[::2], times[1::2]):
        text += f"<{(first / 1e6 + second / 1e6) / 2:.1f} seconds><|vision_start|>{pads}<|vision_end|>"
    text += PROMPT + "<|im_end|>\n<|im_start|>assistant\n"
    return torch.tensor([Tokenizer.from_file(f"{args.model}/tokenizer.json").encode(text).ids])


def reference_positions(model, ids, grid):
    pad = model.config.video_token_id
    frames = grid.repeat_interleave(int(grid[0, 0]), 0)
    frames[:, 0] = 1
    positions, delta = model.model.get_rope_index(ids, mm_token_type_ids=2 * (ids == pad).int(), video_grid_thw=frames)
    return positions, int(delta)


def forward(model, ids, positions, features, deepstack):
    embeds = model.model.language_model.embed_tokens(ids)
    mask = ids == model.config.video_token_id
    embeds = embeds.masked_scatter(mask[..., None].expand_as(embeds), features)
    out = model.model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=True,
                                     visual_pos_masks=mask, deepstack_visual_embeds=deepstack)
    return model.lm_head(out.last_hidden_state)[0, -1].float(), out.past_key_values


def greedy(model, logits, cache, start, steps):
    tokens, margins = [], []
    for step in range(steps):
        top = logits.topk(2)
        tokens.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        out = model.model.language_model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True,
                                         position_ids=torch.full((3, 1, 1), start + step))
        logits = model.lm_head(out.last_hidden_state)[0, -1].float()
    return tokens, margins


def error(ours, theirs):
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


@torch.no_grad()
def main():
    args = arguments()
    ours = trace(args)
    model = AutoModelForImageTextToText.from_pretrained(args.model, dtype=torch.float32).eval()
    patches, grid = reference_patches(args, ours["pixels"])
    ids = reference_ids(args, ours["sample_us"], grid, model.config.vision_config.spatial_merge_size)
    positions, delta = reference_positions(model, ids, grid)
    vision = model.model.visual(patches, grid_thw=grid)
    features, deepstack = vision.pooler_output, vision.deepstack_features
    logits, cache = forward(model, ids, positions, features, deepstack)
    steps = len(ours["continuation"])
    tokens, margins = greedy(model, logits, cache, ids.shape[1] + delta, steps)

    same_ids = ours["token_ids"].tolist() == ids[0].tolist()
    same_positions = torch.equal(ours["position_ids"].long(), positions[:, 0])
    errors = {"patches": error(ours["patches"], patches), "vision": error(ours["vision"], features)}
    errors |= {f"deepstack {k}": error(ours[f"deepstack_{k}"], d) for k, d in enumerate(deepstack)}
    errors["logits"] = error(ours["logits"], logits)
    parts_at = next((i for i, (a, b) in enumerate(zip(ours["continuation"].tolist(), tokens)) if a != b), steps)
    off = float((ours["logits"] - logits).abs().max())
    sure = parts_at < steps and margins[parts_at] >= 10 * off

    print(f"frames {len(ours['sample_us'])}, grid {grid[0].tolist()}, prompt tokens {ids.shape[1]}, {args.compute}")
    print(f"token ids equal      {same_ids}\npositions equal      {same_positions}")
    for name, value in errors.items():
        print(f"{name:<20} {value:.2e} relative")
    print(f"greedy continuation  {parts_at} of {steps} tokens equal" +
          (f", margin there {margins[parts_at]:.2e}, largest logit error {off:.2e}" if parts_at < steps else ""))
    bad = not same_ids or not same_positions or sure or \
        (args.compute == "f32" and max(errors.values()) > args.tolerance)
    sys.exit(bad)


if __name__ == "__main__":
    main()
