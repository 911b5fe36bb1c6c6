#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The demo models tell what happens in the demo clips: F1 against the true events, as `make demo` measures it.
# Run by `make check` with BUILD (the folder of ./scenelog) and SRCDIR.
set -u
: "${BUILD:?}" "${SRCDIR:?}"
command -v jq >/dev/null || { echo "jq is not installed" && exit 77; }
clips=$SRCDIR/samples/clips
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# f1 INDEX CLIP...: in thousandths, of the last line, which begins "All clips: F1 0.987".
f1() {
    "$SRCDIR/samples/side-by-side.sh" "$BUILD/scenelog" "$@" >"$work/out" || exit 1
    tail -n 1 "$work/out" | sed -n 's/^All clips: F1 \([0-9.]*\) .*/\1/p' | awk '{ printf "%d", $1 * 1000 + 0.5 }'
}
for model in demo-model:900 demo-model-experts:800; do
    wanted=${model#*:} model=${model%:*}
    "$BUILD/scenelog" index --progress=none -m "$SRCDIR/samples/$model" -d "$work/$model.db" "$clips"/*.mp4 || exit 1
    got=$(f1 "$work/$model.db" "$clips"/*.mp4)
    [ "${got:-0}" -ge "$wanted" ] || { echo "FAILED: $model: F1 ${got:-0} of 1000, wanted $wanted:" && cat "$work/out" && failed=1; }
done

# The measure can say no: another clip's events are not true of this one.
cp "$clips/evening.jsonl" "$work/morning.jsonl"
got=$(f1 "$work/demo-model.db" "$work/morning.mp4")
[ "${got:-1000}" -lt 300 ] || { echo "FAILED: the evening's events are found in the morning: F1 $got of 1000" && failed=1; }
exit $failed
