#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Found events beside the true ones, and the F1: same text, both ends within one second, each true one used once.
#   side-by-side.sh SCENELOG INDEX CLIP.mp4...      beside each clip lies CLIP.jsonl, its true events
set -u
[ $# -ge 3 ] || { sed -n 3,4p "$0" && exit 2; }
scenelog=$1 index=$2
shift 2
command -v jq >/dev/null || { echo "$0: jq is not installed; without it: $scenelog query -d $index" >&2 && exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$scenelog" query -d "$index" --limit 0 --format jsonl >"$work/found" || exit 1
for clip; do
    jq -c --arg source "$(basename "$clip")" '. + {$source}' "${clip%.*}.jsonl" || exit 1
done >"$work/true"
jq -rn --slurpfile found "$work/found" --slurpfile true "$work/true" '
def abs: if . < 0 then -. else . end;
def right($n): " " * ([$n - length, 0] | max) + .;
def left($n): . + " " * ([$n - length, 0] | max);
def clock: (. / 1e5 | round) as $t | "\($t / 600 | floor):\("0\($t % 600 / 10 | floor)"[-2:]).\($t % 10)";
def span: if . == null then "-" else "\(.start_us | clock | right(6)) - \(.end_us | clock | right(6))" end | left(15);
def f1($right; $found; $true): (2000 * $right / ([$found + $true, 1] | max) | round) as $n
    | "F1 \($n / 1000 | floor).\("00\($n % 1000)"[-3:])" + " (\($right) right, \($found) found, \($true) true)";
[$true[].source] | unique | map(. as $source
    | [$found[] | select(.source == $source)] as $got
    | {left: [$true[] | select(.source == $source)], rows: []}
    | reduce $got[] as $f (.;
        [.left | to_entries[] | select(.value.text == $f.text and (.value.start_us - $f.start_us | abs) <= 1e6
            and (.value.end_us - $f.end_us | abs) <= 1e6) | .key][0] as $k
        | if $k == null then .rows += [{f: $f}] else .rows += [{f: $f, t: .left[$k]}] | .left |= del(.[$k]) end)
    | ([.rows[] | select(.t)] | length) as $right
    | {source: $source, right: $right, found: ($got | length), true: ($right + (.left | length)),
       rows: (.rows + (.left | map({t: .})) | sort_by((.t // .f).start_us))})
| (.[] | "\n\("true" | left(17))\("found" | left(17))\(.source)",
    (.rows[] | "\(.t | span)  \(.f | span)  \((.t // .f).text)" + if .t == null then "  (not so)" elif .f == null then "  (missed)"
        else "" end), f1(.right; .found; .true)),
  "\nAll clips: \(f1(map(.right) | add; map(.found) | add; map(.true) | add))"' || exit 1
