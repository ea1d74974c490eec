#!/usr/bin/env python3
"""New seeds of every scenario, decided by the commit, so that each change is tried on others than the one before; with a
count of 0, the seeds of FOUND.tsv instead.

usage: fresh.py CAIRN_SIM COUNT        COUNT seeds over all scenarios; `cluster` gets three shares"""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
SHARES = {"cluster": 3}


def commit():
    """The commit that is checked out; a tree without git has one set of seeds for good."""
    result = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
    return result.stdout.strip() or "none"


def scenarios(sim):
    lines = subprocess.run([sim, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[0] for line in lines]


def found():
    with open(os.path.join(HERE, "FOUND.tsv")) as stream:
        for line in stream:
            if not line.startswith("#"):
                scenario, seed, crash_at, _ = line.split("\t")
                yield ["--scenario", scenario, "--seed", seed, "--crash-at", crash_at]


def fresh(sim, count):
    names, head = scenarios(sim), commit()
    shares = sum(SHARES.get(name, 1) for name in names)
    for name in names:
        seeds = max(1, count * SHARES.get(name, 1) // shares)
        yield ["--scenario", name, "--seeds-of", head, "--count", str(seeds), "--jobs", "2"]


def main():
    sim, count = sys.argv[1], int(sys.argv[2])
    runs = list(fresh(sim, count) if count > 0 else found())
    failed = [run for run in runs if subprocess.run([sim, *run]).returncode != 0]
    print(f"{len(runs)} campaigns, {len(failed)} failed")
    return 1 if failed or not runs else 0


sys.exit(main())
