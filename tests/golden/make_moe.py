#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small mixture-of-experts and FP8 checkpoints with random weights, and their text goldens: tests/golden/data/NAME.

  moe-published  experts as the published files have them, [E, in, out]; 2 x expert size = hidden size, so that
                 gate_up_proj alone does not tell the layout
  moe-turned     config and experts as transformers 5 writes them, [E, out, in]; expert size = hidden size, so that
                 down_proj alone does not tell; some layers dense
  moe-separate   experts.N.gate_proj.weight and so on; norm_topk_prob false, which transformers' class does not know: the
                 reference's routers are replaced
  fp8            dense, linear weights in blocks of 128 x 128, scales bf16
  fp8-moe        published experts in blocks, scales f32
transformers computes FP8 on GPUs only. Here the blocks are taken back to float32 in this script, and the reference
gets those weights. The tower and the weights besides are bf16, as in the published FP8 files.
Text goldens are those of make_text.py, and of the first sparse layer's router: router_logits [n, E] of the prompt's
rows, router_expert [n, k], router_weight [n, k].
"""
import shutil
import types

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLMoeConfig,
                          Qwen3VLMoeForConditionalGeneration)

import make_text
from make_models import DATA, ID, fill, write_json

BLOCK = 128
VISION = dict(depth=1, hidden_size=32, num_heads=1, intermediate_size=24, patch_size=4, temporal_patch_size=2,
              spatial_merge_size=2, num_position_embeddings=16, deepstack_visual_indexes=[0])


def case(seed, style, layout, hidden, section, theta=1e6, fp8=None, **text):
    return dict(seed=seed, style=style, layout=layout, fp8=fp8, theta=theta, section=section,
                vision=dict(VISION, out_hidden_size=hidden),
                text=dict(dict(vocab_size=307, hidden_size=hidden, num_hidden_layers=2, num_attention_heads=2,
                               num_key_value_heads=1, head_dim=32, rms_norm_eps=1e-6, max_position_embeddings=8192),
                          **text))


def experts(count, per_token, size, normalise=True, step=1, dense=()):
    return dict(num_experts=count, num_experts_per_tok=per_token, moe_intermediate_size=size,
                norm_topk_prob=normalise, decoder_sparse_step=step, mlp_only_layers=list(dense))


CASES = {
    "moe-published": case(111, "published", "input-major", 48, [6, 5, 5], intermediate_size=999, num_hidden_layers=3,
                          **experts(8, 3, 24)),
    "moe-turned": case(107, "transformers5", "output-major", 56, [8, 4, 4], intermediate_size=72, num_hidden_layers=5,
                       **experts(6, 2, 56, step=2, dense=[3])),
    "moe-separate": case(23, "published", "separate", 64, [6, 5, 5], intermediate_size=80, num_hidden_layers=3,
                         **experts(5, 4, 40, normalise=False, dense=[0])),
    "fp8": case(24, "published", None, 136, [6, 5, 5], intermediate_size=152, fp8=torch.bfloat16),
    "fp8-moe": case(25, "published", "input-major", 144, [6, 5, 5], intermediate_size=999, fp8=torch.float32,
                    **experts(4, 2, 72)),
}
GROUPS = [(2, 3)] * 3


def config_of(c):
    rope = dict(rope_type="default", mrope_section=c["section"], mrope_interleaved=True, rope_theta=c["theta"])
    kind = Qwen3VLMoeConfig if c["layout"] else Qwen3VLConfig
    return kind(vision_config=dict(hidden_act="gelu_pytorch_tanh", in_channels=3, **c["vision"]),
                text_config=dict(hidden_act="silu", attention_bias=False, bos_token_id=ID["<|endoftext|>"],
                                 eos_token_id=ID["<|im_end|>"], rope_parameters=rope, tie_word_embeddings=False,
                                 **c["text"]),
                image_token_id=ID["<|image_pad|>"], video_token_id=ID["<|video_pad|>"],
                vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"],
                tie_word_embeddings=False)


def is_converted(name):
    """Is it FP8 in the published checkpoints: the decoder's linear layers, but no router?"""
    return "language_model.layers" in name and "norm" not in name and "mlp.gate.weight" not in name


def spread(scale, shape):
    """A value's scale, for each value."""
    return scale.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)[..., :shape[-2], :shape[-1]]


def quantise(weight, scale_type):
    """FP8 values of a matrix, or a stack of them, and their scales: the largest of a block becomes 448."""
    rows, columns = weight.shape[-2:]
    padded = F.pad(weight, (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    scale = (blocks.abs().amax((-3, -1)) / 448).to(scale_type)
    return (weight / spread(scale.float(), weight.shape)).to(torch.float8_e4m3fn), scale


def in_file(name, value, c):
    """The tensors that stand in the file for this one: its names and values, before they are quantised."""
    if "experts" not in name or c["layout"] == "output-major":
        return {name: value}
    if c["layout"] == "input-major":
        return {name: value.transpose(1, 2)}
    stem, half = name.rsplit(".", 1)[0], value.shape[1] // 2
    parts = {"gate_proj": value[:, :half], "up_proj": value[:, half:]} if "gate_up" in name else {"down_proj": value}
    return {f"{stem}.{e}.{part}.weight": v[e] for part, v in parts.items() for e in range(value.shape[0])}


def unnormalised(self, hidden):
    logits = F.linear(hidden.reshape(-1, self.hidden_dim), self.weight)
    value, index = torch.topk(torch.softmax(logits, -1, dtype=torch.float), self.top_k, dim=-1)
    return logits, value.to(logits.dtype), index


def build(name):
    """The reference, float32: of FP8 cases with the weights that the file's blocks stand for."""
    c = CASES[name]
    kind = Qwen3VLMoeForConditionalGeneration if c["layout"] else Qwen3VLForConditionalGeneration
    model = fill(kind(config_of(c)).float().eval(), c["seed"])
    for key, parameter in model.named_parameters():
        if c["fp8"] and is_converted(key):
            turned = c["layout"] == "input-major" and "experts" in key  # blocks are those of the file's matrix
            value = parameter.data.transpose(1, 2) if turned else parameter.data
            quantised, scale = quantise(value, c["fp8"])
            value = quantised.float() * spread(scale.float(), value.shape)
            parameter.data = (value.transpose(1, 2) if turned else value).contiguous()
    for module in model.modules():
        if type(module).__name__ == "Qwen3VLMoeTextTopKRouter" and not c["text"]["norm_topk_prob"]:
            module.forward = types.MethodType(unnormalised, module)
    return model


def published_config(c):
    """config.json as the published checkpoints write it (transformers 4.57)."""
    moe = "_moe" if c["layout"] else ""
    text = dict(c["text"], model_type=f"qwen3_vl{moe}_text", hidden_act="silu", attention_bias=False,
                attention_dropout=0.0, bos_token_id=ID["<|endoftext|>"], eos_token_id=ID["<|im_end|>"],
                dtype="bfloat16", initializer_range=0.02, use_cache=True, rope_theta=c["theta"],
                rope_scaling=dict(mrope_interleaved=True, mrope_section=c["section"], rope_type="default"))
    vision = dict(c["vision"], model_type=f"qwen3_vl{moe}", hidden_act="gelu_pytorch_tanh", in_channels=3,
                  initializer_range=0.02)
    config = dict(architectures=[f"Qwen3VL{'Moe' if moe else ''}ForConditionalGeneration"],
                  model_type=f"qwen3_vl{moe}", image_token_id=ID["<|image_pad|>"],
                  video_token_id=ID["<|video_pad|>"], vision_start_token_id=ID["<|vision_start|>"],
                  vision_end_token_id=ID["<|vision_end|>"], text_config=text, vision_config=vision,
                  tie_word_embeddings=False, transformers_version="4.57.0.dev0")
    if c["fp8"]:
        routers = [f"{prefix}language_model.layers.{i}.mlp.gate" for i in range(text["num_hidden_layers"])
                   for prefix in ("model.", "")]
        config["quantization_config"] = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8",
                                             weight_block_size=[BLOCK, BLOCK],
                                             ignored_layers=["lm_head", "model.visual", *(routers if moe else [])])
    return config


def save_model(name):
    c, folder = CASES[name], DATA / name
    kind = Qwen3VLMoeForConditionalGeneration if c["layout"] else Qwen3VLForConditionalGeneration
    model = fill(kind(config_of(c)).float().eval(), c["seed"])
    shutil.rmtree(folder, ignore_errors=True)
    if c["style"] == "transformers5":
        model.to(torch.bfloat16).save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        return
    tensors = {}
    for key, value in model.state_dict().items():
        for stored, part in in_file(key, value, c).items():
            if c["fp8"] and is_converted(key):
                part, tensors[stored + "_scale_inv"] = quantise(part, c["fp8"])
            tensors[stored] = part.contiguous() if part.dtype == torch.float8_e4m3fn else \
                part.to(torch.bfloat16).contiguous()
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", published_config(c))


def router_golden(model):
    """What the first router gives while make_text.py runs the prompt."""
    found = {}

    def keep(module, inputs, outputs):
        if not found:
            found.update(router_logits=outputs[0].clone(), router_weight=outputs[1].float().clone(),
                         router_expert=outputs[2].int())
    for module in model.modules():
        if type(module).__name__ == "Qwen3VLMoeTextTopKRouter":
            module.register_forward_hook(keep)
            break
    return found


if __name__ == "__main__":
    for case_name in CASES:
        save_model(case_name)
        make_text.save(case_name, CASES[case_name], GROUPS, build, more=router_golden)
