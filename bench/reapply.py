#!/usr/bin/env python3
"""How fast a metadata node applies the tail of its log anew. One metadata node gets N small mutations (files that lie in the
metadata, in folders of 100; then 100 moves), is killed before its database is flushed, and is started on copies of that
directory: with each BIN_DIR in turn, ROUNDS times, so that two builds are compared in one run. A line of JSON each: mutations,
the seconds it took as the node says, from its start to the first answer, and CPU seconds of the process by then.
Usage: reapply.py [--count N] [--bytes N] [--rounds N] BIN_DIR..."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "cluster"))
from cluster import running, wait_until, write_random  # noqa: E402

NEVER_FLUSH = "flush_entries = 1000000\n"


def make(cluster, work, count, size):
    """Files by one device, as `cairn put` makes them; then moves."""
    tree = os.path.join(work, "tree")
    for i in range(count * 10 // 11):
        write_random(os.path.join(tree, "folder-%04d" % (i // 100), "file-%02d" % (i % 100)), size, i)
    cluster.run("put", "--transfers", "64", tree, "home:/tree", timeout=1200)
    for i in range(100):
        cluster.run("mv", "home:/tree/folder-0000/file-%02d" % i, "home:/moved-%02d" % i, codes=(0, 3))


def cpu_s(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(cluster, bin_dir, image, number):
    """One start on a fresh copy of the image."""
    data, log = os.path.join(cluster.dir, "metad1", "data"), os.path.join(cluster.dir, "metad1", "log")
    shutil.rmtree(data)
    subprocess.run(["cp", "-r", "--sparse=always", image, data], check=True)
    subprocess.run(["sync"], check=True)
    size = os.path.getsize(log)
    begin = time.monotonic()
    process = subprocess.Popen([os.path.join(bin_dir, "metad"), "--config", os.path.join(cluster.dir, "metad1", "node.toml")],
                               stdin=subprocess.DEVNULL)
    try:
        def told():
            with open(log, encoding="utf-8") as f:
                f.seek(size)
                return re.search(r"group 1: (\d+) mutations of the log were applied anew in ([\d.]+) s", f.read())
        found = wait_until(told, 300, "the tail to be applied")
        cluster.run("ls", "home:/")
        served, cpu = time.monotonic() - begin, cpu_s(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    mutations, seconds = int(found.group(1)), float(found.group(2))
    print(json.dumps({"workload": "reapply", "bin": bin_dir, "round": number, "mutations": mutations, "seconds": seconds,
                      "per_second": round(mutations / seconds), "served_s": round(served, 3), "cpu_s": cpu}), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("bins", nargs="+")
    asked = parser.parse_args()
    bins = [os.path.abspath(path) for path in asked.bins]
    with tempfile.TemporaryDirectory(prefix="cairn-reapply-") as work:
        with running(bins[0], os.path.join(work, "cluster"), "--metad", "1", "--blockd", "1", "--pool", "rep-1") as cluster:
            cluster.kill("metad1")
            with open(os.path.join(cluster.dir, "metad1", "node.toml"), "a", encoding="utf-8") as f:
                f.write(NEVER_FLUSH)
            cluster.start_node("metad1")
            make(cluster, work, asked.count, asked.bytes)
            cluster.kill("metad1")
            image = os.path.join(work, "image")
            shutil.copytree(os.path.join(cluster.dir, "metad1", "data"), image)
            for number in range(asked.rounds):
                for bin_dir in bins:
                    start(cluster, bin_dir, image, number)


main()
