#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tokenizer.json of Qwen's full vocabulary from its ranks, and cases for test_tokenizer to hold it against.

make_qwen_tokenizer.py RANKS FOLDER [VECTORS]

RANKS: qwen.tiktoken (lines of base64 token and rank). VECTORS: qwen2 for qwen2.inp (texts between lines
__ggml_vocab_test__) and qwen2.out (a line of ids each). FOLDER gets tokenizer.json and cases.json: the vectors, those
known by heart, and what Hugging Face's tokenizers make of random texts. Needs tokenizers.
"""
import base64
import json
import pathlib
import random
import sys

from tokenizers import Tokenizer

from make_tokenizer_golden import FIXED, WORDS, any_text

ADDED = {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>", 151652: "<|vision_start|>",
         151653: "<|vision_end|>", 151654: "<|vision_pad|>", 151655: "<|image_pad|>", 151656: "<|video_pad|>",
         151667: "<think>", 151668: "</think>"}
KNOWN = {"Hello world": [9707, 1879], " Hello world": [21927, 1879], "->": [405], "(x):\n": [2075, 982],
         "<0.2 seconds>": [27, 15, 13, 17, 6486, 29], "user\n": [872, 198]}


def halves(token, ranks):
    """The last merge that makes `token`: what is left of its bytes when all merges before it are done."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        pairs = [(ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1)]
        rank, i = min(pairs)
        assert rank < ranks[token], token
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
    return parts


def build(ranks):
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in visible]
    letter = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}

    def write(token):
        return "".join(letter[b] for b in token)

    merges = [[write(part) for part in halves(token, ranks)] for token in sorted(ranks, key=ranks.get)
              if len(token) > 1]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": "think" not in content} for i, content in ADDED.items()],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {write(token): rank for token, rank in ranks.items()}, "merges": merges}}


def vectors(prefix):
    texts = pathlib.Path(prefix + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = pathlib.Path(prefix + ".out").read_text().split("\n")
    if texts[-1] in ("", "\n"):
        texts.pop()
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines)]


def main():
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    lines = pathlib.Path(sys.argv[1]).read_text().split("\n")
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line.strip()}
    form = build(ranks)
    (folder / "tokenizer.json").write_text(json.dumps(form, ensure_ascii=False))
    form["added_tokens"] = []
    tokenizer = Tokenizer.from_str(json.dumps(form))
    cases = list(KNOWN.items()) + (vectors(sys.argv[3]) if len(sys.argv) > 3 else [])
    for text, ids in cases:
        assert tokenizer.encode(text).ids == ids, (text, ids, tokenizer.encode(text).ids)
    rng = random.Random(3)
    cases += [(text, tokenizer.encode(text).ids) for text in FIXED + [any_text(rng) for _ in range(4000)]]
    (folder / "cases.json").write_text(json.dumps([[text.encode().hex(), ids] for text, ids in cases]))
    print(f"{len(ranks)} tokens, {len(form['model']['merges'])} merges, {len(cases)} cases")


if __name__ == "__main__":
    main()
