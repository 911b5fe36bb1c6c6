#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Goldens of the text side, for the checkpoints of make_models.py: data/NAME/text/model.safetensors.

Each case is one prompt with several frame groups in the 4.57 layout (<t seconds>, vision_start, pads, vision_end) and
made-up visual features, so that the decoder is compared alone:
  ids [n], segments [k, 3] (tokens, rows, columns; rows 0 for text), positions [3, n] and rope_delta of get_rope_index,
  features [v, hidden], deepstack [taps, v, hidden];
  rows [r]: prompt rows whose logits are kept; logits [r, vocab] f32, logits_bf16 (the same model run in bf16);
  greedy [64], margins [64] (top-two distance), greedy_logits [vocab] of the last step;
  yarn_logits [r, vocab] with config_yarn.json and positions_yarn [3, n], far apart.
"""
import torch
from safetensors.torch import save_file

from make_models import CASES, DATA, FIRST_SPECIAL, ID, YARN_CASE, build_model

GROUPS = {"a": [(3, 5)] * 3, "b": [(4, 2)] * 4, "c": [(1, 6), (6, 1), (2, 3)], "d": [(7, 3)] * 2}
STEPS = 64


def prompt(groups, generator):
    """Segments of a chat turn: text ids, or (rows, columns) of a frame group."""
    def words(count):
        return torch.randint(0, FIRST_SPECIAL, (count,), generator=generator).tolist()
    segments = [[ID["<|im_start|>"]] + words(6)]
    for rows, columns in groups:
        segments[-1] += words(5) + [ID["<|vision_start|>"]]
        segments += [(rows, columns), [ID["<|vision_end|>"]]]
    segments[-1] += words(17) + [ID["<|im_end|>"], ID["<|im_start|>"]] + words(4)
    return segments


def flatten(merge, segments):
    ids, table, grids = [], [], []
    for segment in segments:
        if isinstance(segment, tuple):
            rows, columns = segment
            ids += [ID["<|video_pad|>"]] * (rows * columns)
            table.append((rows * columns, rows, columns))
            grids.append((1, rows * merge, columns * merge))
        else:
            ids += segment
            table.append((len(segment), 0, 0))
    return torch.tensor([ids]), torch.tensor(table), torch.tensor(grids)


def run(model, ids, positions, features, deepstack, dtype):
    """Logits of every prompt row, and the cache."""
    embeds = model.model.language_model.embed_tokens(ids)
    mask = ids == ID["<|video_pad|>"]
    embeds = embeds.masked_scatter(mask[..., None].expand_as(embeds), features.to(dtype))
    out = model.model.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=True,
                                     visual_pos_masks=mask, deepstack_visual_embeds=[d.to(dtype) for d in deepstack])
    return model.lm_head(out.last_hidden_state)[0].float(), out.past_key_values


def continue_greedily(model, logits, cache, start):
    tokens, margins = [], []
    for step in range(STEPS):
        top = logits.topk(2)
        tokens.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        if step + 1 < STEPS:
            positions = torch.full((3, 1, 1), start + step)
            out = model.model.language_model(input_ids=torch.tensor([[tokens[-1]]]), position_ids=positions,
                                             past_key_values=cache, use_cache=True)
            logits = model.lm_head(out.last_hidden_state)[0, -1].float()
    return tokens, margins, logits


@torch.no_grad()
def save(name, case, groups, build_model, more=lambda model: {}):
    """`more(model)` gives what else to keep; it may fill it while the prompt runs."""
    generator = torch.Generator().manual_seed(case["seed"])
    ids, table, grids = flatten(case["vision"]["spatial_merge_size"], prompt(groups, generator))
    count, hidden, taps = int(table[table[:, 1] > 0, 0].sum()), case["text"]["hidden_size"], \
        len(case["vision"]["deepstack_visual_indexes"])
    features = 0.4 * torch.randn(count, hidden, generator=generator)
    deepstack = 0.4 * torch.randn(taps, count, hidden, generator=generator)
    model = build_model(name)
    others = more(model)
    positions, delta = model.model.get_rope_index(
        ids, mm_token_type_ids=2 * (ids == ID["<|video_pad|>"]).int(), video_grid_thw=grids)
    rows = torch.tensor(sorted({*range(0, ids.shape[1], 3), *range(ids.shape[1] - 4, ids.shape[1])}))
    logits, cache = run(model, ids, positions, features, deepstack, torch.float32)
    out = dict(ids=ids[0], segments=table, positions=positions[:, 0], rope_delta=delta.flatten(), features=features,
               rows=rows, logits=logits[rows])
    if taps:
        out["deepstack"] = deepstack
    out.update(others)
    start = ids.shape[1] + int(delta)
    tokens, margins, last = continue_greedily(model, logits[-1], cache, start)
    out.update(greedy=torch.tensor(tokens), margins=torch.tensor(margins), greedy_logits=last)
    if name == YARN_CASE:
        stretched = positions * 53
        yarn = build_model(name, yarn=True)
        out["positions_yarn"] = stretched[:, 0]
        out["yarn_logits"] = run(yarn, ids, stretched, features, deepstack, torch.float32)[0][rows]
    half = build_model(name).to(torch.bfloat16)
    out["logits_bf16"] = run(half, ids, positions, features, deepstack, torch.bfloat16)[0][rows].to(torch.bfloat16)
    folder = DATA / name / "text"
    folder.mkdir(exist_ok=True)
    save_file({k: (v.int() if v.dtype == torch.int64 else v).contiguous() for k, v in out.items()},
              folder / "model.safetensors")
    error = (out["logits_bf16"].float() - out["logits"]).norm() / out["logits"].norm()
    print(name, "tokens", ids.shape[1], "delta", int(delta), "bf16 error", float(error), "least margin", min(margins),
          "distinct", len(set(tokens)))


if __name__ == "__main__":
    for case_name in CASES:
        save(case_name, CASES[case_name], GROUPS[case_name], build_model)
