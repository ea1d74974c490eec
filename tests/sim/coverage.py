#!/usr/bin/env python3
"""Line coverage of the cores from seeds alone: builds cairn-sim with gcov into build/coverage, runs seeds of every scenario
and prints a line a folder. The tests of a core that stand elsewhere count for nothing here.

usage: coverage.py [--seeds N] [--files]      N seeds of each scenario (8); --files: a line a source too"""
import argparse
import glob
import os
import re
import subprocess

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
BUILD = os.path.join(ROOT, "build", "coverage")
# Folder, sources under it; what is no core (shells, the command line) is left out.
CORES = {"raft": ["raft/*.c"], "metad": ["metad/*.c", "metad/host/*.c", "metad/namespace/*.c", "metad/root/*.c"],
         "blockd": ["blockd/*.c"], "client": ["client/*.c"]}


def run(*command, **options):
    return subprocess.run(command, check=True, **options)


def build():
    flags = "-O1 -g1 --coverage -fprofile-update=atomic"
    run("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_C_FLAGS_DEBUG={flags}",
        stdout=subprocess.DEVNULL)
    run("ninja", "-C", BUILD, "cairn-sim", stdout=subprocess.DEVNULL)
    for old in glob.glob(os.path.join(BUILD, "**", "*.gcda"), recursive=True):
        os.remove(old)


def run_seeds(seeds):
    sim = os.path.join(BUILD, "bin", "cairn-sim")
    names = subprocess.run([sim, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    for name in (line.split()[0] for line in names):
        subprocess.run([sim, "--scenario", name, "--seeds", f"1..{seeds}", "--jobs", "2"], check=False)


def lines_of(source):
    """Executable lines of a source and how many of them ran."""
    top, below = os.path.relpath(source, ROOT).split(os.sep, 1)
    for note in glob.glob(os.path.join(BUILD, top, "CMakeFiles", "*", below + ".gcno")):
        text = subprocess.run(["gcov", "-n", "-o", os.path.dirname(note), note], capture_output=True, text=True).stdout
        for name, percent, count in re.findall(r"File '([^']+)'\nLines executed:([0-9.]+)% of (\d+)", text):
            if os.path.realpath(name) == source:
                return int(count), round(float(percent) * int(count) / 100)
    return 0, 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--files", action="store_true")
    arguments = parser.parse_args()
    build()
    run_seeds(arguments.seeds)
    total_lines = total_ran = 0
    for core, patterns in CORES.items():
        sources = sorted(path for pattern in patterns for path in glob.glob(os.path.join(ROOT, pattern)))
        counts = {source: lines_of(source) for source in sources}
        lines, ran = (sum(values) for values in zip(*counts.values()))
        total_lines, total_ran = total_lines + lines, total_ran + ran
        for source, (own, own_ran) in counts.items():
            if arguments.files and own:
                print(f"  {100 * own_ran / own:5.1f} %  {own:5d} lines  {os.path.relpath(source, ROOT)}")
        print(f"{100 * ran / max(lines, 1):5.1f} %  {ran:5d} of {lines:5d} lines  {core}")
    print(f"{100 * total_ran / max(total_lines, 1):5.1f} %  {total_ran:5d} of {total_lines:5d} lines  all cores, from seeds alone")


main()
