#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the demo clips: clips/NAME.mp4 and, beside each, its true events as JSON Lines; and stills/, one for each kind of
event, cut from them.

    make_clips.py [FOLDER]      default: this one
"""
import json
import subprocess
import sys
from pathlib import Path

import world as W
from evaluate import encode

CLIPS = [("morning", "demo 397", 1), ("afternoon", "demo 285", 2), ("evening", "demo 1558", 2)]
STILLS = [("stands", "morning", 4), ("right", "evening", 48.6), ("left", "evening", 43), ("up", "afternoon", 55.2),
          ("down", "afternoon", 36.5), ("meets", "evening", 53.5), ("blinks", "evening", 94.1), ("grows", "afternoon", 76.5),
          ("turns", "evening", 31.6), ("sign", "evening", 80.5), ("night", "evening", 72), ("rain", "evening", 104)]


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    clips, stills = folder / "clips", folder / "stills"
    clips.mkdir(parents=True, exist_ok=True)
    stills.mkdir(exist_ok=True)
    for name, seed, minutes in CLIPS:
        world = W.World(seed, minutes * 60)
        encode(world, clips / (name + ".mp4"), (600, 400), 25, "-crf 27 -preset slow -g 100 -movflags +faststart")
        with open(clips / (name + ".jsonl"), "w") as out:
            for start, end, text, *_ in world.events:
                out.write(json.dumps({"start_us": round(start * 1e6), "end_us": round(end * 1e6), "text": text}) + "\n")
        print(name, len(world.events), "events")
    for kind, name, seconds in STILLS:
        subprocess.run(["ffmpeg", "-v", "error", "-y", "-ss", str(seconds), "-i", clips / (name + ".mp4"), "-frames:v", "1",
                        "-vf", "scale=300:-1", "-q:v", "5", stills / (kind + ".jpg")], check=True)


if __name__ == "__main__":
    main()
