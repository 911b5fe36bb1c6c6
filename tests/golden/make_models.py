#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small Qwen3-VL checkpoints with random weights: tests/golden/data/{a,b,c,d} and data/tokenizer.

Any two cases differ in every dimension that a config file states. All weights are values that bf16 holds exactly,
so f32 arithmetic on the stored bf16 files is the same as on the model that build_model() returns.
a, b and d have the published config style, c the one that transformers 5 writes; b is cut into shards.
Needs torch, transformers 5, tokenizers. Other golden scripts import CASES, build_model and DATA from here.
"""
import json
import math
import pathlib
import zlib

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

DATA = pathlib.Path(__file__).resolve().parent / "data"

# Ids of data/tokenizer; the byte tokens and their merges come first.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>", "<think>", "</think>"]
MERGES = ["s e", "c o", "n d", "se co", "seco nd", "second s", "\u0120 seconds", "t h", "th e", "\u0120 the", "i n",
          "e r", "0 0", "\" :", "\u0120 -"]
FIRST_SPECIAL = 256 + len(MERGES)
ID = {name: FIRST_SPECIAL + i for i, name in enumerate(SPECIAL)}

CASES = {
    "a": dict(seed=11, style="published", tied=True,
              vision=dict(depth=2, hidden_size=128, num_heads=2, intermediate_size=96, out_hidden_size=72, patch_size=8,
                          temporal_patch_size=2, spatial_merge_size=2, num_position_embeddings=49,
                          deepstack_visual_indexes=[]),
              text=dict(vocab_size=331, hidden_size=72, num_hidden_layers=2, num_attention_heads=6,
                        num_key_value_heads=3, head_dim=64, intermediate_size=160, rms_norm_eps=1e-6,
                        max_position_embeddings=4096),
              theta=5000000.0, section=[12, 10, 10]),
    "b": dict(seed=12, style="published", tied=False, shards="1MB",
              vision=dict(depth=4, hidden_size=72, num_heads=1, intermediate_size=104, out_hidden_size=56,
                          patch_size=16, temporal_patch_size=2, spatial_merge_size=2, num_position_embeddings=25,
                          deepstack_visual_indexes=[0, 1, 3]),
              text=dict(vocab_size=389, hidden_size=56, num_hidden_layers=4, num_attention_heads=2,
                        num_key_value_heads=2, head_dim=72, intermediate_size=144, rms_norm_eps=1e-5,
                        max_position_embeddings=2048),
              theta=500000.0, section=[16, 10, 10]),
    "c": dict(seed=13, style="transformers5", tied=False,
              vision=dict(depth=3, hidden_size=160, num_heads=2, intermediate_size=88, out_hidden_size=88,
                          patch_size=4, temporal_patch_size=2, spatial_merge_size=1, num_position_embeddings=16,
                          deepstack_visual_indexes=[0, 2]),
              text=dict(vocab_size=421, hidden_size=88, num_hidden_layers=3, num_attention_heads=3,
                        num_key_value_heads=1, head_dim=80, intermediate_size=128, rms_norm_eps=1e-6,
                        max_position_embeddings=3000),
              theta=10000.0, section=[20, 12, 8]),
    "d": dict(seed=14, style="published", tied=True,
              vision=dict(depth=1, hidden_size=128, num_heads=1, intermediate_size=72, out_hidden_size=64,
                          patch_size=12, temporal_patch_size=2, spatial_merge_size=1, num_position_embeddings=36,
                          deepstack_visual_indexes=[0]),
              text=dict(vocab_size=302, hidden_size=64, num_hidden_layers=5, num_attention_heads=4,
                        num_key_value_heads=1, head_dim=128, intermediate_size=56, rms_norm_eps=1e-6,
                        max_position_embeddings=1024),
              theta=1000000.0, section=[24, 20, 20]),
}

# c again, with its rotary frequencies stretched: same weights, another config file (config_yarn.json).
YARN_CASE = "c"
YARN = dict(rope_type="yarn", factor=3.0, original_max_position_embeddings=3000)


def config_of(case, yarn=False):
    rope = dict(rope_type="default", mrope_section=case["section"], mrope_interleaved=True, rope_theta=case["theta"])
    if yarn:
        rope.update(YARN)
    return Qwen3VLConfig(
        vision_config=dict(hidden_act="gelu_pytorch_tanh", in_channels=3, **case["vision"]),
        text_config=dict(hidden_act="silu", attention_bias=False, bos_token_id=ID["<|endoftext|>"],
                         eos_token_id=ID["<|im_end|>"], rope_parameters=rope, tie_word_embeddings=case["tied"],
                         **case["text"]),
        image_token_id=ID["<|image_pad|>"], video_token_id=ID["<|video_pad|>"],
        vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"],
        tie_word_embeddings=case["tied"])


def fill(model, seed):
    """Weights that make every part matter: norms away from 1, biases away from 0, no part of the sum negligible."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            generator = torch.Generator().manual_seed(seed * 1000003 + zlib.crc32(name.encode()))
            value = torch.randn(parameter.shape, generator=generator)
            if name.endswith("bias"):
                value = 0.1 * value
            elif "norm" in name:
                value = 1 + 0.2 * value
            elif "embed_tokens" in name:
                value = 0.4 * value
            elif "pos_embed" in name:
                value = 0.5 * value
            elif "experts" in name:
                value = 1.3 * value / math.sqrt(parameter.shape[-1])
            else:
                value = 1.3 * value / math.sqrt(parameter[0].numel())
            parameter.copy_(value.to(torch.bfloat16))
    return model


def build_model(name, yarn=False):
    """The transformers model of a case, float32, in eval mode."""
    case = CASES[name]
    model = Qwen3VLForConditionalGeneration(config_of(case, yarn)).float().eval()
    fill(model, case["seed"])
    model.tie_weights()
    return model


def published_config(case, yarn=False):
    """config.json as the published checkpoints write it (transformers 4.57)."""
    text = dict(case["text"], model_type="qwen3_vl_text", hidden_act="silu", attention_bias=False,
                attention_dropout=0.0, bos_token_id=ID["<|endoftext|>"], eos_token_id=ID["<|im_end|>"],
                dtype="bfloat16", initializer_range=0.02, use_cache=True, rope_theta=case["theta"],
                rope_scaling=dict(mrope_interleaved=True, mrope_section=case["section"], rope_type="default"))
    if yarn:
        text["rope_scaling"].update(YARN)
    vision = dict(case["vision"], model_type="qwen3_vl", hidden_act="gelu_pytorch_tanh", in_channels=3,
                  initializer_range=0.02)
    return dict(architectures=["Qwen3VLForConditionalGeneration"], model_type="qwen3_vl",
                image_token_id=ID["<|image_pad|>"], video_token_id=ID["<|video_pad|>"],
                vision_start_token_id=ID["<|vision_start|>"], vision_end_token_id=ID["<|vision_end|>"],
                text_config=text, vision_config=vision, tie_word_embeddings=case["tied"],
                transformers_version="4.57.0.dev0")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def save(name):
    case, folder = CASES[name], DATA / name
    model = build_model(name).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=case.get("shards", "100MB"))
    if case["style"] == "published":
        write_json(folder / "config.json", published_config(case))
    write_json(folder / "generation_config.json",
               dict(bos_token_id=ID["<|endoftext|>"], pad_token_id=ID["<|endoftext|>"], do_sample=True,
                    eos_token_id=[ID["<|im_end|>"], ID["<|endoftext|>"]], top_k=20, top_p=0.8, temperature=0.7,
                    repetition_penalty=1.0, transformers_version="4.57.0.dev0"))
    if name == YARN_CASE:
        write_json(folder / "config_yarn.json", published_config(case, yarn=True))


def save_tokenizer():
    """Byte-level BPE with few merges, in the form of the published tokenizer.json."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    letter = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    vocabulary = {letter[b]: i for i, b in enumerate(visible + hidden)}
    merges = [tuple(merge.split(" ")) for merge in MERGES]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    assert len(vocabulary) == FIRST_SPECIAL
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    words = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
             r"|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), "isolated", invert=False),
         pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.add_tokens([AddedToken(name, special="think" not in name, normalized=False) for name in SPECIAL])
    assert all(tokenizer.token_to_id(name) == ID[name] for name in SPECIAL)
    (DATA / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(DATA / "tokenizer" / "tokenizer.json"))


if __name__ == "__main__":
    save_tokenizer()
    for case_name in CASES:
        save(case_name)
