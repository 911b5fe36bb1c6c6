#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `scenelog bench` with little to do: are the figures there, and do those agree that can be known or follow from others?
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
command -v jq >/dev/null || { echo "no jq here"; exit 77; }
scenelog=$BUILD/scenelog
model=$SRCDIR/samples/demo-model
clip=$SRCDIR/samples/clips/morning.mp4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# holds FILE CONDITION...: each a jq expression over the JSON in FILE.
holds() {
    file=$1
    shift
    for condition; do
        jq -e "$condition" "$file" >/dev/null && continue
        echo "FAILED: $condition in:"
        cat "$file"
        failed=1
    done
}
"$scenelog" help bench >"$work/help"
small="--device cpu --size 128x96 --prompt-tokens 64 --context 64 --batch 1,3 --prefill-rows 64 --repeat 3"

# shellcheck disable=SC2086
"$scenelog" bench -m "$model" $small --pairs 2 --json --only load,vision,prefill,decode >"$work/model.json" || failed=1
keys="device threads compute model weights_bytes gemm_gflops memory_gb_per_s load_s load_gb_per_s vision_pairs
vision_width vision_height vision_ms vision_gflops vision_ratio prefill_tokens prefill_ms
prefill_tok_per_s prefill_gflops prefill_ratio text_prefill_tokens text_prefill_ms text_prefill_tok_per_s
text_prefill_gflops text_prefill_ratio decode answer_prompt_tokens first_token_ms answer_512_ms chunk peak_bytes
largest_batch largest_batch_context"
for key in $keys; do
    holds "$work/model.json" "has(\"$key\")"
    grep -qw "$key" "$work/help" || { echo "FAILED: 'help bench' does not tell of $key"; failed=1; }
done
# Two pairs of 4 x 3 tokens, each with a label of 10, and a question of 80.
holds "$work/model.json" '.model == "demo-model"' '.weights_bytes > 3e7 and .weights_bytes < 3.1e7' \
    '.vision_pairs == 2' '.prefill_tokens == 124' '.text_prefill_tokens == 64' '[.decode[].batch] == [1, 3]' \
    '[.decode[].context] == [64, 64]' '.answer_512_ms == null' '.chunk == []' \
    '.vision_ms_low <= .vision_ms and .vision_ms <= .vision_ms_high and .vision_ms_low > 0' \
    '.prefill_ms_low <= .prefill_ms and .prefill_ms <= .prefill_ms_high and .prefill_ms_low > 0' \
    'all(.decode[]; .tok_per_s_low <= .tok_per_s and .tok_per_s <= .tok_per_s_high and .tok_per_s_low > 0)' \
    'all(.decode[]; .tok_per_s * .step_ms / 1000 / .batch | . > 0.999 and . < 1.001)' \
    '.text_prefill_ms * .text_prefill_tok_per_s / 64000 | . > 0.999 and . < 1.001' \
    '.peak_bytes > 3e7' '.largest_batch > 1'

# The published shapes have as many parameters as their makers say, in thousand millions.
count='.text_config as $t | .vision_config as $v | ($v.hidden_size * $v.spatial_merge_size * $v.spatial_merge_size) as $w
| $t.vocab_size * $t.hidden_size * (if .tie_word_embeddings then 1 else 2 end) + $t.num_hidden_layers * $t.hidden_size
    * ($t.head_dim * 2 * ($t.num_attention_heads + $t.num_key_value_heads) + 3 * $t.intermediate_size)
+ $v.depth * $v.hidden_size * (4 * $v.hidden_size + 2 * $v.intermediate_size)
+ $v.hidden_size * (3 * $v.temporal_patch_size * $v.patch_size * $v.patch_size + $v.num_position_embeddings)
+ (1 + ($v.deepstack_visual_indexes | length)) * $w * ($w + $v.out_hidden_size)
| . / 1e7 | round / 100'
for shape in 2b:2.13 4b:4.44 8b:8.77 32b:33.36; do
    holds "$SRCDIR/samples/configs/${shape%:*}.json" "($count) == ${shape#*:}" \
        '.vision_config.out_hidden_size == .text_config.hidden_size'
done
"$scenelog" bench --config "$SRCDIR/samples/configs/2b.json" --random --device cpu --only load --repeat 1 --json \
    >"$work/2b.json" || failed=1
holds "$work/2b.json" '.model == "2b"' '.weights_bytes / 2e9 | . > 2.125 and . < 2.135' '.peak_bytes < 3e9'

# The table says the same.
# shellcheck disable=SC2086
"$scenelog" bench -m "$model" $small --pairs 1 --only decode >"$work/table" || failed=1
grep -q '^decode, batch 3 ' "$work/table" || { echo "FAILED: no decoding in the table:"; cat "$work/table"; failed=1; }
if grep -q 'vision tower' "$work/table"; then
    echo "FAILED: the tower was not asked for"
    failed=1
fi

# The pipeline: 60 s in windows of 10 s, 12 tokens each, and nothing left behind.
mkdir "$work/tmp"
TMPDIR=$work/tmp "$scenelog" bench --pipeline "$clip" -m "$model" --device cpu --window 10 --output-tokens 12 \
    --repeat 2 --json >"$work/pipeline.json" || failed=1
holds "$work/pipeline.json" '.windows == 6' '.windows_failed == 0' '.generated_tokens == 72' '.pictures_shown == 120' \
    '.pictures_decoded == 1500' '.pictures_on_gpu == 0' '.media_s == 60' '.host_cores_busy > 0' \
    '.times_real_time * .total_s | . > 59.9 and . < 60.1' \
    '.read_s > 0 and .resize_s > 0 and .vision_s > 0 and .prefill_s > 0 and .decode_s > 0' \
    '[.binds] | inside(["read", "resize", "vision", "prefill", "decode"])'
[ -z "$(ls -A "$work/tmp")" ] || { echo "FAILED: the temporary index was left behind"; failed=1; }
for key in $(jq -r 'keys[]' "$work/pipeline.json"); do
    grep -qw "$key" "$work/help" || { echo "FAILED: 'help bench' does not tell of $key"; failed=1; }
done

# Two models side by side: figures of each, the memory of each its own (the small one comes second), and they agree.
moe=$SRCDIR/tests/golden/data/moe-published/config.json
"$scenelog" bench --compare "$model" "$moe" --device cpu --size 128x96 --output-tokens 24 --repeat 3 --json \
    >"$work/compare.json" || failed=1
# 4 x 3 tokens, of the other 16 x 12, with a label and a question.
holds "$work/compare.json" '.repeat == 3' '.answer_tokens == 24' '.picture_width == 128 and .picture_height == 96' \
    '[.models[].model] == ["demo-model", "config"]' '[.models[].prompt_tokens] == [102, 282]' \
    'all(.models[]; .first_token_ms_low <= .first_token_ms and .first_token_ms <= .first_token_ms_high)' \
    'all(.models[]; .response_ms_low <= .response_ms and .response_ms <= .response_ms_high)' \
    'all(.models[]; .decode_tok_per_s_low <= .decode_tok_per_s and .decode_tok_per_s <= .decode_tok_per_s_high)' \
    'all(.models[]; 1.01 * .response_ms_low >= .first_token_ms_low + 23000 / .decode_tok_per_s_high)' \
    'all(.models[]; .response_ms_high <= 1.01 * (.first_token_ms_high + 23000 / .decode_tok_per_s_low))' \
    '.models[0].weights_bytes > 3e7 and .models[1].weights_bytes < 1e6' \
    '.models[0].peak_bytes > 3e7 and .models[1].peak_bytes < .models[0].peak_bytes' \
    'all(.models[]; .largest_batch > 1)' '.largest_batch_context == 512'
for key in $(jq -r 'keys[], (.models[0] | keys[])' "$work/compare.json"); do
    grep -qw "${key%_low}" "$work/help" || grep -qw "${key%_high}" "$work/help" ||
        { echo "FAILED: 'help bench' does not tell of $key"; failed=1; }
done
"$scenelog" bench --compare "$model" "$moe" --device cpu --size 128x96 --output-tokens 24 --repeat 1 >"$work/table" ||
    failed=1
for row in 'time to first token' decode 'total response time' 'peak memory' 'largest batch'; do
    grep -q "^$row .*[0-9].*[0-9].* x [0-9]" "$work/table" || { echo "FAILED: no '$row' in:"; cat "$work/table"; failed=1; }
done
"$scenelog" bench --compare "$model" "$work/none.json" --device cpu --size 128x96 --output-tokens 4 --repeat 1 \
    >"$work/out" 2>"$work/err"
[ $? = 8 ] && [ "$(wc -l <"$work/err")" = 1 ] && grep -q none.json "$work/err" && [ ! -s "$work/out" ] ||
    { echo "FAILED: a missing model of two:"; cat "$work/err"; failed=1; }

# Refused: exit code 2, one line.
refused() {
    "$scenelog" bench "$@" >"$work/out" 2>"$work/err"
    [ $? = 2 ] && [ "$(wc -l <"$work/err")" = 1 ] && return
    echo "FAILED: bench $*: wanted exit 2 and one line, got:"
    cat "$work/out" "$work/err"
    failed=1
}
refused --only everything
refused --batch 1,0
refused --size 640
refused --random
refused --pipeline "$clip" --batch 1
refused --output-tokens 5
refused --compare "$model"
refused --compare "$model" "$model" "$model"
refused --compare "$model" "$moe" --batch 4
refused --compare "$model" "$moe" -m "$model"
refused "$model"
exit $failed
