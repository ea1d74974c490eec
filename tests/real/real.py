#!/usr/bin/env python3
"""The campaign behind `./run sim --real`: kills, stops, power cuts, partitions and failing disks on real processes, trial after trial,
each with a cluster and a seed of its own. Ends with how many passed, failed and were skipped; exit code 1 when one failed.
Usage: real.py BIN_DIR [--kills 200] [--cuts 100] [--quick] [--seed S] [--only PART]"""

import argparse
import os
import subprocess
import sys
import tempfile

from kill import distribution
from nodes import SKIP, say

HERE = os.path.dirname(os.path.abspath(__file__))
KILLS_A_TRIAL = 50
CUTS_A_TRIAL = 20
KILLS_A_STOP = 20
KILLS_A_ROUND = 100  # of partitions and failing disks


def parts(total, most):
    """`total` in pieces of at most `most`."""
    while total > 0:
        yield min(total, most)
        total -= most


def trials(kills, cuts, times):
    """(script, arguments) of all."""
    for piece in parts(kills, KILLS_A_TRIAL):
        yield "kill", ["--kills", piece, "--stops", max(1, piece // KILLS_A_STOP), "--times", times]
    on_images = cuts * 6 // 10
    for piece in parts(on_images, CUTS_A_TRIAL):
        yield "cut", ["--cuts", piece]
    for piece in parts(cuts - on_images, CUTS_A_TRIAL):
        yield "cut", ["--cuts", piece, "--disks", "faultdisk"]
    yield "cut", ["--disks", "faultdisk", "--lie", 1]
    rounds = max(1, kills // KILLS_A_ROUND)
    yield "partition", ["--rounds", rounds]
    for _ in range(rounds):
        yield "disk", ["--only", "blockd"]
        yield "disk", ["--only", "metad"]
    yield "disk", ["--only", "metad write-lost"]


def quick(times):
    yield "kill", ["--kills", 4, "--stops", 1, "--stop-seconds", 4, "--times", times]
    yield "cut", ["--cuts", 3]
    yield "cut", ["--cuts", 3, "--disks", "faultdisk"]
    yield "partition", ["--quick", 1]
    yield "disk", ["--quick", 1]


def take_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bin")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="the short slice that ./run check runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="trials whose command holds this")
    return parser.parse_args()


def main():
    args = take_arguments()
    ended = {0: 0, SKIP: 0}
    with tempfile.TemporaryDirectory(prefix="cairn-times-") as work:
        times = os.path.join(work, "times")
        for i, (script, more) in enumerate(quick(times) if args.quick else trials(args.kills, args.cuts, times)):
            command = [script + ".py", "BIN", *map(str, more), "--seed", str(args.seed + i)]
            if args.only not in " ".join(command):
                continue
            say("-- %s", " ".join(command))
            code = subprocess.run([sys.executable, "-B", os.path.join(HERE, command[0]), args.bin, *command[2:]], check=False).returncode
            ended[code] = ended.get(code, 0) + 1
        if os.path.exists(times):
            with open(times, encoding="utf-8") as f:
                say("%s", distribution([float(line) for line in f]))
    failed = sum(count for code, count in ended.items() if code not in (0, SKIP))
    print("%d passed, %d failed, %d skipped" % (ended[0], failed, ended[SKIP]))
    sys.exit(failed > 0)


main()
