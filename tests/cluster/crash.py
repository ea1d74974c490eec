#!/usr/bin/env python3
"""Puts go on while the metadata leader and two block servers are killed; every put that was acknowledged reads back,
with the dead nodes down and with them back. THREADS: every node runs with so many event loops and compute workers.
Usage: crash.py BIN_DIR [THREADS]"""

import os
import sys
import tempfile
import threading

from cluster import compare, file_sha256, running, tree_sha256, wait_until, write_random

FILES = 48
KILL_AFTER = 8


class Putter(threading.Thread):
    """Stores file after file, each by one command; `done` holds those that were acknowledged."""

    def __init__(self, cluster, source, target):
        super().__init__(daemon=True)
        self.cluster, self.source, self.target = cluster, source, target
        self.done, self.failure = {}, None

    def run(self):
        try:
            for i in range(FILES):
                name = "%03d.bin" % i
                path = os.path.join(self.source, name)
                write_random(path, (i % 7) * 700000 + 1000, 5000 + i)
                self.cluster.put(path, "%s/%s" % (self.target, name))
                self.done[name] = file_sha256(path)
        except Exception as failure:  # handed to the main thread
            self.failure = failure


def read_back(cluster, expected, target):
    cluster.get("home:/crash", target)
    compare(expected, tree_sha256(target))


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-crash-") as work:
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            if len(sys.argv) > 2:
                cluster.set_threads(sys.argv[2])
            cluster.run("mkdir", "home:/crash", codes=(0, 9))
            putter = Putter(cluster, os.path.join(work, "source"), "home:/crash")
            putter.start()
            wait_until(lambda: len(putter.done) >= KILL_AFTER or putter.failure, 120, "the first puts")
            dead = [cluster.leader(), "blockd2", "blockd5"]
            assert dead[0] is not None
            for name in dead:
                cluster.kill(name)
            putter.join(300)
            assert not putter.is_alive(), "puts hang after %d" % len(putter.done)
            if putter.failure:
                raise putter.failure
            assert len(putter.done) == FILES
            assert not set(dead) & set(cluster.alive())
            assert cluster.leader() not in (None, dead[0])
            read_back(cluster, putter.done, os.path.join(work, "degraded"))

            for name in dead:
                cluster.start_node(name)
            read_back(cluster, putter.done, os.path.join(work, "whole"))

            # The one that was down has what the others acknowledged meanwhile: it carries a majority with one of them.
            other = next(n["name"] for n in cluster.ps() if n["role"] == "metad" and n["name"] != dead[0])
            cluster.kill(other)
            read_back(cluster, putter.done, os.path.join(work, "other"))


main()
