#!/usr/bin/env python3
"""Does the simulator bite? Each patch of plants/ breaks one rule in at most three lines of a core. This applies them, one
at a time, to a copy of the tree, builds a simulator of each, and counts the seeds until a checker finds it, from five
starts. The sources themselves hold no trace of it.

usage: planted.py --source DIR --work DIR [--check] [--starts N] [--jobs N] [NAME...]

--check   only: every patch applies to the tree as it is, changes at most three lines, and of cores alone
NAME      plants by name; without one all of them
Exit code: 0 every plant was found from every start, 1 not so, 2 usage."""
import argparse
import concurrent.futures
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

CORES = ("base", "proto", "raft", "metad", "blockd", "client")
LEAST_PLANTS = 25
LINES = 3
# Seeds a start may take until the plant counts as not found, by scenario.
SEEDS = {"log": 60, "log_rot": 60, "log_late": 60, "store": 40, "members": 120, "stale": 60, "database": 60, "liverot": 120}
SEEDS_OF_CLUSTERS = 30
RUN_SECONDS = 300
# What a finding's text says of its checker; the first that fits.
CHECKERS = [
    ("safe_losses", r"^safe_losses:|its receipt (names|does not)"),
    ("linear", r"^linear:"),
    ("feed", r"^feed:|: changes of .* ends with"),
    ("versions", r"^versions:|^client \d+ file \d+|acknowledged with safe_losses|a download continues"),
    ("references", r"^references:"),
    ("tree", r"^tree:"),
    ("replicas", r"^replicas:"),
    ("cut", r"^cut:"),
    ("members", r"^members:|the operator is refused"),
    ("agreement", r"^agreement:"),
    ("log", r"the log (opens|reads back|acknowledges|names a hole)|(appends|heals with) entries that do not decode|LOG_(OPEN|READ)|"
            r"is healed with something else|the log's holes|is unsure after"),
    ("raft", r"^(election safety|votes|log matching|promises|commit|stale read)|^group \d+|RAFT header"),
    ("answers", r"^client \d+: .* ends with"),
    ("progress", r"no progress|within \d+ s|has not ended|do not apply the same|tests nothing|not all files"),
    ("halt", r"halt"),
    ("store", r"^store|shard|receipt|durable record|the rebuilt index"),
    ("invariant", r"broken CHECK|spins|steps|^inbox of"),
]


class Plant:
    def __init__(self, path):
        self.path = path
        with open(path, encoding="utf-8") as f:
            self.text = f.read()
        head = dict(re.findall(r"^(plant|what|rule|scenario): (.*)$", self.text.split("\n--- ")[0], re.M))
        self.name, self.what, self.rule, self.scenario = (head[key] for key in ("plant", "what", "rule", "scenario"))
        self.files = re.findall(r"^\+\+\+ b/(\S+)$", self.text, re.M)
        lines = self.text.split("\n")
        added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
        removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
        self.lines = max(added, removed)


def plants_read(names):
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plants")
    plants = [Plant(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".patch")]
    unknown = set(names) - {plant.name for plant in plants}
    if unknown:
        sys.exit("no such plant: %s" % ", ".join(sorted(unknown)))
    return [plant for plant in plants if not names or plant.name in names]


def apply(tree, plant, *options):
    """git apply, told that `tree` is no part of a repository."""
    environment = dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(os.path.abspath(tree)))
    return subprocess.run(["git", "apply", "-C1", *options, plant.path], cwd=tree, env=environment, capture_output=True, text=True)


def check(source, plants):
    """What is wrong with the patches, as lines."""
    faults = []
    for plant in plants:
        # --check inside the repository's root: paths are as they stand
        done = subprocess.run(["git", "apply", "-C1", "--check", plant.path], cwd=source, capture_output=True, text=True)
        if done.returncode != 0:
            faults.append("%s: does not apply: %s" % (plant.name, done.stderr.strip().splitlines()[0]))
        if plant.lines > LINES:
            faults.append("%s: changes %d lines" % (plant.name, plant.lines))
        for file in plant.files:
            steps = file.split("/")
            if steps[0] not in CORES or "shell" in steps or "cli" in steps:
                faults.append("%s: changes %s, which is no core" % (plant.name, file))
        if not scenario_exists(source, plant.scenario):
            faults.append("%s: unknown scenario %s" % (plant.name, plant.scenario))
    if len(plants) < LEAST_PLANTS:
        faults.append("only %d plants" % len(plants))
    return faults


def tree_copy(source, tree):
    """The tree's files as they are now; what did not change keeps its time, so that little is built again."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=source, capture_output=True, text=True, check=True)
    names = {name for name in listed.stdout.splitlines() if os.path.isfile(os.path.join(source, name))}
    for here, _, files in os.walk(tree):
        for file in files:
            if os.path.relpath(os.path.join(here, file), tree) not in names:
                os.remove(os.path.join(here, file))
    for name in names:
        new, old = os.path.join(source, name), os.path.join(tree, name)
        os.makedirs(os.path.dirname(old), exist_ok=True)
        if not os.path.exists(old) or open(new, "rb").read() != open(old, "rb").read():
            shutil.copyfile(new, old)
            shutil.copymode(new, old)


def configure(tree, build):
    command = ["cmake", "-S", tree, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCAIRN_WERROR=OFF"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def build_simulator(tree, build, plant, program):
    done = apply(tree, plant)
    if done.returncode != 0:
        sys.exit("%s does not apply: %s" % (plant.name, done.stderr))
    try:
        made = subprocess.run(["ninja", "-C", build, "cairn-sim"], capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit("%s does not build:\n%s" % (plant.name, made.stdout[-3000:]))
        shutil.copy2(os.path.join(build, "bin", "cairn-sim"), program)
    finally:
        apply(tree, plant, "--reverse")


def seeds_of(scenario):
    return SEEDS.get(scenario, SEEDS_OF_CLUSTERS)


def scenario_exists(source, scenario):
    return scenario in SEEDS or os.path.exists(os.path.join(source, "tests", "sim", "scenarios", scenario + ".toml"))


def run_seed(program, scenarios, scenario, seed):
    """What was found under a seed, "" when nothing was."""
    try:
        done = subprocess.run([program, "--scenarios", scenarios, "--scenario", scenario, "--seed", str(seed)], capture_output=True, text=True,
                              errors="replace", timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        return "a run that spins: no end after %d s" % RUN_SECONDS
    if done.returncode == 0:
        return ""
    found = re.search(r"^FAILED \w+: (.*)$", done.stdout, re.M)
    if found:
        return found.group(1)
    said = done.stderr.strip().splitlines()
    return "a broken CHECK: %s" % (said[-1] if said else "signal %d" % -done.returncode)


def run_start(program, scenarios, scenario, start):
    """(seeds until something was found, what); (None, "") when nothing was."""
    for count in range(1, seeds_of(scenario) + 1):
        text = run_seed(program, scenarios, scenario, start + count - 1)
        if text:
            return count, text
    return None, ""


def checker_of(text):
    for name, pattern in CHECKERS:
        if re.search(pattern, text):
            return name
    return "other"


def try_plant(program, scenarios, plant, starts, pool):
    results = list(pool.map(lambda start: run_start(program, scenarios, plant.scenario, 1 + 1000 * start), range(starts)))
    counts = [count for count, _ in results if count is not None]
    names = [checker_of(text) for count, text in results if count is not None]
    checkers = sorted(set(names), key=lambda name: (-names.count(name), name))
    return counts, checkers, [text for count, text in results if count is not None]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    plants = plants_read(options.names)
    faults = check(options.source, plants_read([]))
    for fault in faults:
        print(fault)
    if options.check or faults:
        print("%d plants, %d faults" % (len(plants), len(faults)))
        return 1 if faults else 0
    tree, build, bin_dir = (os.path.join(options.work, name) for name in ("tree", "build", "bin"))
    os.makedirs(bin_dir, exist_ok=True)
    tree_copy(options.source, tree)
    configure(tree, build)
    row = "%-26s %-9s %-24s %6s %7s  %s"
    print(row % ("plant", "scenario", "found by", "starts", "median", "first finding"), flush=True)
    missed, began = 0, time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for plant in plants:
            program = os.path.join(bin_dir, plant.name)
            build_simulator(tree, build, plant, program)
            counts, checkers, texts = try_plant(program, os.path.join(tree, "tests", "sim", "scenarios"), plant, options.starts, pool)
            os.remove(program)
            whole = len(counts) == options.starts
            missed += not whole
            median = "%g" % statistics.median(counts) if whole else ">%d" % seeds_of(plant.scenario) if not counts else "-"
            print(row % (plant.name, plant.scenario, ", ".join(checkers) or "NOBODY", "%d/%d" % (len(counts), options.starts), median,
                         texts[0][:100] if texts else ""), flush=True)
    print("%d plants, %d not found from every start, %.0f s" % (len(plants), missed, time.monotonic() - began))
    return 1 if missed else 0


sys.exit(main())
