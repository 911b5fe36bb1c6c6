#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Several files in one command give the events that each gives alone: nothing of one file reaches the next.
set -u
scenelog=${BUILD:?}/scenelog
clips=$(ls "${SRCDIR:?}"/samples/clips/*.mp4)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

index() {
    "$scenelog" index --progress=none --deterministic --to 10 --window 10 -m "$SRCDIR/samples/demo-model" "$@" || exit 1
}
# shellcheck disable=SC2086
index -d "$work/together.db" $clips
for clip in $clips; do
    name=$(basename "$clip")
    index -d "$work/$name.db" "$clip"
    "$scenelog" query -d "$work/$name.db" >"$work/alone.txt" || exit 1
    "$scenelog" query -d "$work/together.db" --source "$name" >"$work/together.txt" || exit 1
    [ "$(wc -l <"$work/alone.txt")" -gt 1 ] || { echo "FAILED: no events of $name" && exit 1; }
    diff "$work/alone.txt" "$work/together.txt" || { echo "FAILED: $name alone (<) and among others (>)" && exit 1; }
done
