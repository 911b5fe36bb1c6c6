#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of the vision tower, for the checkpoints of make_models.py: data/NAME/vision/model.safetensors.

For each grid G = 0, 1, ... of a case:
  G.grid [3] groups, rows, columns of patches; G.pixels [n, channels * temporal * patch^2] u8, the patches in merge
  order before (u8 - 127.5) / 127.5; G.position [n, 2] row and column; G.embedding [n, hidden], the interpolated
  position embedding; G.features [tokens, out] and G.deepstack.K [tokens, out], float32;
  G.bf16_error [1 + taps]: relative error (norms) of the same model run in bfloat16, for features and each tap.
"""
import torch
from safetensors.torch import save_file
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from make_models import CASES, DATA, build_model

# Not square, not the table's size, smaller and larger than it; odd and single rows where nothing is merged.
GRIDS = {"a": [(3, 6, 10), (1, 2, 4)], "b": [(2, 6, 4), (1, 2, 8)], "c": [(3, 5, 7), (2, 1, 6)],
         "d": [(2, 3, 8), (3, 4, 1)]}


def stages(visual, patches, grid):
    out = visual(patches, grid_thw=grid)
    return [out.pooler_output.float()] + [d.float() for d in out.deepstack_features]


def position_embedding(visual, grid):
    index, weight = get_vision_interpolation_indices_and_weights(
        grid, num_grid_per_side=visual.num_grid_per_side, mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners, spatial_merge_size=visual.config.spatial_merge_size)
    return (visual.pos_embed(index) * weight[:, :, None]).sum(1)


@torch.no_grad()
def save(name):
    config = CASES[name]["vision"]
    columns = 3 * config["temporal_patch_size"] * config["patch_size"] ** 2
    visual, half = build_model(name).model.visual, build_model(name).model.visual.to(torch.bfloat16)
    tensors = {}
    for g, grid in enumerate(GRIDS[name]):
        generator = torch.Generator().manual_seed(CASES[name]["seed"] + g)
        thw, n = torch.tensor([grid]), grid[0] * grid[1] * grid[2]
        pixels = torch.randint(0, 256, (n, columns), generator=generator, dtype=torch.uint8)
        patches = (pixels.float() - 127.5) / 127.5
        exact = stages(visual, patches, thw)
        rough = stages(half, patches.to(torch.bfloat16), thw)
        tensors |= {f"{g}.grid": torch.tensor(grid, dtype=torch.int32), f"{g}.pixels": pixels,
                    f"{g}.position": get_vision_position_ids(thw, config["spatial_merge_size"]).to(torch.int32),
                    f"{g}.embedding": position_embedding(visual, thw), f"{g}.features": exact[0],
                    f"{g}.bf16_error": torch.stack([(r - e).norm() / e.norm() for r, e in zip(rough, exact)])}
        tensors |= {f"{g}.deepstack.{k}": d for k, d in enumerate(exact[1:])}
    folder = DATA / name / "vision"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    print(name, {k: (tuple(v.shape), v.tolist() if "error" in k else "") for k, v in tensors.items()})


if __name__ == "__main__":
    for case_name in CASES:
        save(case_name)
