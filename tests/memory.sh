#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Memory must not grow with the length of the media: the peak resident size for two hours is held against that for two
# minutes of the same clip, at most 5 % and 32 MiB more (an MP4's own index).
#   memory.sh     environment: BUILD, SRCDIR; needs the ffmpeg command
set -eu
: "${BUILD:?}" "${SRCDIR:?}"
command -v ffmpeg >/dev/null || { echo "ffmpeg is not installed" && exit 77; }
clip=$(ls -S "$SRCDIR"/samples/clips/*.mp4 | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

lengthen() { # lengthen SECONDS FILE
    ffmpeg -v error -stream_loop -1 -i "$clip" -t "$1" -c copy "$2"
}
# Peak resident size in KiB of indexing a file: the kernel's own high-water mark, read until the process is gone.
peak_of() {
    "$BUILD/scenelog" index --progress=none -m "$SRCDIR/samples/demo-model" -d "$1.db" "$1" >&2 &
    pid=$!
    peak=0
    while value=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null) && [ -n "$value" ]; do
        peak=$value
        sleep 0.05
    done
    wait $pid
    echo "$peak"
}
lengthen 120 "$work/minutes.mp4"
lengthen 7200 "$work/hours.mp4"
short=$(peak_of "$work/minutes.mp4")
long=$(peak_of "$work/hours.mp4")
"$BUILD/scenelog" check "$work/hours.mp4.db" >/dev/null
limit=$((short + short / 20 + 32 * 1024))
echo "peak resident size: $short KiB for 2 minutes, $long KiB for 2 hours, limit $limit KiB"
[ "$long" -le "$limit" ]
