#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of the picture work: data/pixels/model.safetensors and data/sizes.txt. Needs torch, torchvision, transformers.

model.safetensors: `SWxSH.DWxDH` [DH, DW, 3] u8: torchvision's antialiased bicubic resize of picture(SW, SH);
`patches` [n, 3 * 2 * 16 * 16] f32: what transformers' video processor makes of two frames of 96x64, both
picture(96, 64), the second with every sample inverted.

sizes.txt: lines of `clip WIDTH HEIGHT FRAMES SHORTEST LONGEST CAP -> WIDTH HEIGHT`, the whole-clip rule of transformers
(CAP 1: with cap_pixels_per_frame), and `frame WIDTH HEIGHT MIN MAX -> WIDTH HEIGHT`, its rule for one image.
"""
import random
import types

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tvF
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as frame_size
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from make_models import DATA

RESIZES = [((160, 90), (64, 32)), ((160, 90), (96, 64)), ((160, 90), (224, 128)), ((160, 90), (160, 64)),
           ((160, 90), (32, 96)), ((640, 360), (352, 192)), ((640, 360), (96, 320)), ((35, 27), (96, 64)),
           ((5, 3), (32, 32))]


def picture(width, height):
    """[height, width, 3] u8: tiles of noise, ramps that wrap, a checkerboard and smooth shades; test_image.c makes the
    same."""
    y, x, c = (a.astype(np.uint32) for a in np.indices((height, width, 3)))
    h = x * np.uint32(73856093) ^ y * np.uint32(19349663) ^ c * np.uint32(83492791)
    h = (h ^ h >> 13) * np.uint32(0x5bd1e995)
    tiles = [(h ^ h >> 15) & 255, (x * 3 + y * 2 + c * 40) & 255, ((x + y) & 1) * 255, (x + y + c * 16) >> 1 & 255]
    return np.choose((x >> 4) + (y >> 4) & 3, tiles).astype(np.uint8)


def save_pixels():
    tensors = {}
    for (width, height), (to_width, to_height) in RESIZES:
        source = torch.from_numpy(picture(width, height)).permute(2, 0, 1).contiguous()
        out = tvF.resize(source, [to_height, to_width], interpolation=InterpolationMode.BICUBIC, antialias=True)
        tensors[f"{width}x{height}.{to_width}x{to_height}"] = out.permute(1, 2, 0).contiguous()
    first = picture(96, 64)
    video = torch.from_numpy(np.stack([first, 255 - first])).permute(0, 3, 1, 2).contiguous()
    processor = Qwen3VLVideoProcessor(image_mean=[0.5, 0.4, 0.6], image_std=[0.5, 0.3, 0.25])
    tensors["patches"] = processor(video, do_resize=False, do_sample_frames=False)["pixel_values_videos"].contiguous()
    (DATA / "pixels").mkdir(parents=True, exist_ok=True)
    save_file(tensors, DATA / "pixels" / "model.safetensors")


def clip_size(width, height, frames, shortest, longest, cap):
    """The size that the processor hands to its resize."""
    caught = []
    original = BaseVideoProcessor.resize
    BaseVideoProcessor.resize = lambda self, image, size, resample: caught.append((size.width, size.height))
    try:
        Qwen3VLVideoProcessor().resize(types.SimpleNamespace(shape=(1, frames, 3, height, width)),
                                       types.SimpleNamespace(shortest_edge=shortest, longest_edge=longest), None, 32,
                                       2, cap_pixels_per_frame=bool(cap))
    finally:
        BaseVideoProcessor.resize = original
    return caught[0]


def save_sizes():
    random.seed(20)
    shapes = [(1920, 1080), (1280, 720), (768, 432), (640, 360), (720, 576), (1080, 1920), (17, 1000), (33, 31), (528, 496),
              (3840, 2160)] + [(random.randint(8, 4000), random.randint(20, 1500)) for _ in range(40)]
    lines = []
    for width, height in shapes:
        for frames, shortest, longest, cap in [(20, 4096, 25165824, 0), (60, 4096, 25165824, 1), (7, 4096, 3000000, 0),
                                               (5, 131072, 458752000, 1), (768, 4096, 458752000, 0),
                                               (2048, 131072, 25165824, 1), (3, 20000000, 458752000, 0)]:
            size = clip_size(width, height, frames, shortest, longest, cap)
            lines.append(f"clip {width} {height} {frames} {shortest} {longest} {cap} -> {size[0]} {size[1]}")
        for low, high in [(65536, 16777216), (4096, 786432), (131072, 262144), (0, 100000)]:
            if min(width, height) >= 32:
                h, w = frame_size(height, width, factor=32, min_pixels=low, max_pixels=high)
                if min(h, w) > 0:
                    lines.append(f"frame {width} {height} {low} {high} -> {w} {h}")
    (DATA / "sizes.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    save_pixels()
    save_sizes()
