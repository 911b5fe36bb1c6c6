#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the demo clips: samples/clips/NAME.mp4 and, beside each, its true events as JSON Lines.

    make_clips.py [FOLDER]
"""
import json
import sys
from pathlib import Path

import world as W
from evaluate import encode

CLIPS = [("morning", "demo 397", 1), ("afternoon", "demo 285", 2), ("evening", "demo 400", 2)]


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "clips")
    folder.mkdir(parents=True, exist_ok=True)
    for name, seed, minutes in CLIPS:
        world = W.World(seed, minutes * 60)
        encode(world, folder / (name + ".mp4"), (600, 400), 25, "-crf 27 -preset slow -g 100 -movflags +faststart")
        with open(folder / (name + ".jsonl"), "w") as out:
            for start, end, text, *_ in world.events:
                out.write(json.dumps({"start_us": round(start * 1e6), "end_us": round(end * 1e6), "text": text}) + "\n")
        print(name, len(world.events), "events")


if __name__ == "__main__":
    main()
