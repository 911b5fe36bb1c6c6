#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU's decoders are fed, and whether they show what the CPU's decoder shows:

    decoding.py --samples build/tests/tools/sl-samples [--ffmpeg ffmpeg] [--minutes 15] [--only speed|equal] SEED...

Each SEED is a clip of some seconds that begins with a key picture (closed GOPs); it is made longer by stream copy.
Speed: pictures a second that come out of sl-samples with so many lanes, in one process and in several, with pictures
that no sample needs left out, and with CPU cores beside; and of ffmpeg's own processes, which is the ceiling. Equal:
samples and pixels of one session on the CPU against NVDEC with 12 lanes, and with 6 CPU cores beside. Exit status 1
when they differ, or when NVDEC gave a picture that is no surface of the GPU. --device cpu tries the script itself.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

LINE = re.compile(r"(\d+) samples \((\d+) on the GPU\); (\d+) pictures decoded \((\d+) on the GPU\).* (\d+) skipped.*"
                  r"read in ([\d.]+) s")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", required=True, help="the program sl-samples")
    parser.add_argument("--ffmpeg", default="ffmpeg")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--only", choices=["speed", "equal"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("seeds", nargs="+", metavar="SEED")
    return parser.parse_args()


def seconds_of(ffmpeg, path):
    said = subprocess.run([ffmpeg, "-hide_banner", "-i", path], capture_output=True, text=True).stderr
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said)
    if not found:
        sys.exit(f"decoding.py: {path}: its length is not known")
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])


def lengthen(args, seed, folder):
    repeats = max(1, round(60 * args.minutes / seconds_of(args.ffmpeg, seed)))
    names, out = folder / "list.txt", folder / (pathlib.Path(seed).stem + ".mp4")
    names.write_text(f"file '{os.path.abspath(seed)}'\n" * repeats)
    subprocess.run([args.ffmpeg, "-v", "error", "-y", "-f", "concat", "-safe", "0", "-i", names, "-c", "copy", out],
                   check=True)
    return out


class Figures:
    """What one run of sl-samples says of itself."""

    def __init__(self, said):
        found = LINE.search(said)
        if not found:
            sys.exit(f"decoding.py: sl-samples said: {said.strip()[-300:]}")
        self.samples, self.samples_on_gpu, self.decoded, self.on_gpu, self.skipped = map(int, found.groups()[:5])
        self.seconds = float(found[6])


def together(args, path, processes, options):
    """(pictures decoded, skipped ones, seconds) of so many processes at once."""
    command = [args.samples, "--quiet", *(["--cuda"] if args.device == "cuda" else []), *options, path]
    start = time.perf_counter()
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
               for _ in range(processes)]
    said = [each.communicate()[1] for each in running]
    passed = time.perf_counter() - start
    figures = [Figures(each) for each in said]
    taken = figures[0].seconds if processes == 1 else passed
    return sum(f.decoded for f in figures), sum(f.skipped for f in figures), taken


def ceiling(args, path, processes, decoder):
    command = [args.ffmpeg, "-v", "error", "-hwaccel", "cuda", "-hwaccel_output_format", "cuda", *decoder, "-i", path,
               "-f", "null", "-"]
    start = time.perf_counter()
    running = [subprocess.Popen(command) for _ in range(processes)]
    if any(each.wait() for each in running):
        sys.exit(f"decoding.py: {' '.join(map(str, command))} failed")
    return time.perf_counter() - start


def speed(args, path, media_s, codec):
    print(f"{'':<44}{'pictures/s':>12}{'x real time':>13}")

    def row(what, decoded, skipped, taken, media):
        left_out = f", {skipped} left out" if skipped else ""
        print(f"{what + left_out:<44}{decoded / taken:>12.0f}{media / taken:>13.1f}", flush=True)

    ways = [(1, n, []) for n in (1, 4, 7, 12, 16)] + [(1, 12, ["--skip"]), (1, 12, ["--fps", "1"])]
    ways += [(1, 12, ["--skip", "--cpu-lanes", "8"]), (7, 1, []), (2, 6, []), (4, 3, [])]
    pictures = 0
    for processes, lanes, more in ways:
        decoded, skipped, taken = together(args, path, processes, ["--lanes", str(lanes), *more])
        pictures = max(pictures, decoded // processes)
        plural = "es" if processes > 1 else ""
        row(f"{processes} process{plural}, {lanes} lanes {' '.join(more)}", decoded, skipped, taken, processes * media_s)
    if args.device == "cuda":
        for processes, decoder in ((7, []), (7, ["-c:v", codec + "_cuvid"]), (14, ["-c:v", codec + "_cuvid"])):
            taken = ceiling(args, path, processes, decoder)
            row(f"{processes} of ffmpeg {' '.join(decoder)}", processes * pictures, 0, taken, processes * media_s)


def equal(args, path):
    ways = {"CPU, one session": [], "12 lanes": ["--lanes", "12"],
            "12 lanes and 6 CPU cores": ["--lanes", "12", "--cpu-lanes", "6", "--skip"]}
    first, good = None, True
    for what, options in ways.items():
        on_gpu = what != "CPU, one session" and args.device == "cuda"
        done = subprocess.run([args.samples, "--hash", *(["--cuda"] if on_gpu else []), *options, path],
                              capture_output=True, text=True)
        figures = Figures(done.stderr)
        first = done.stdout if first is None else first
        same = done.returncode == 0 and done.stdout == first
        whole = not on_gpu or "--cpu-lanes" in options or figures.on_gpu == figures.decoded
        good = good and same and whole
        print(f"{what:<28}{figures.samples:>8} samples, {figures.decoded} pictures, {figures.on_gpu} on the GPU: "
              f"{'equal' if same else 'DIFFERENT'}{'' if whole else ', SOME ON THE CPU'}", flush=True)
    return good


def main():
    args = arguments()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            path = lengthen(args, seed, pathlib.Path(folder))
            media_s = seconds_of(args.ffmpeg, path)
            said = subprocess.run([args.ffmpeg, "-hide_banner", "-i", path], capture_output=True, text=True).stderr
            codec = "hevc" if "Video: hevc" in said else "h264"
            print(f"\n{pathlib.Path(seed).name}: {codec}, {media_s:.0f} s")
            if args.only != "equal":
                speed(args, path, media_s, codec)
            if args.only != "speed":
                good = equal(args, path) and good
    sys.exit(not good)


if __name__ == "__main__":
    main()
