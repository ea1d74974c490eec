#!/usr/bin/env python3
"""The demonstration behind ./run demo: a real tree into a real cluster, nodes killed, everything read back and compared.

Each line of the table it prints is a check that can fail; --break N spoils exactly what check N looks at, and then the
demonstration must fail. Exit code 0 only if every check held."""

import argparse
import os
import shutil
import sys
import tempfile
import time

from cluster import Cluster, Failed, compare, flip_byte, insert_byte, tree_sha256, wait_until, write_random

CANDIDATES = ("/usr/share/perl", "/usr/share/doc", "/usr/include", "/usr/lib/python3", "/usr/share")
TREE_BYTES = (4 << 20, 200 << 20)
SEED = 20240
SHARDS, DATA_SHARDS = 6, 4  # of the pool rs-4-2
MOST_EDIT_CHUNKS = 3
MOST_EDIT_BYTES = 14 << 20  # two of the largest chunks with their parity, and some
OUTAGE_FILES = 12
CHECKS = 14  # the last one with --headless only


def measure(root):
    """(files, bytes) of the regular files below."""
    files = size = 0
    for here, _, names in os.walk(root):
        for name in names:
            path = os.path.join(here, name)
            if os.path.isfile(path) and not os.path.islink(path):
                files += 1
                size += os.path.getsize(path)
    return files, size


def find_tree():
    """A folder of this system of a fair size."""
    for path in CANDIDATES:
        if os.path.isdir(path) and TREE_BYTES[0] <= measure(path)[1] <= TREE_BYTES[1]:
            return path
    raise SystemExit("demo: found no folder of a fair size on this system; name one: ./run demo DIR")


def mib(size):
    return "%.1f MiB" % (size / (1 << 20))


class Demo:
    def __init__(self, options, work):
        self.options = options
        self.tree = os.path.realpath(options.dir or find_tree())
        self.work = work
        self.more = os.path.join(work, "more")  # files the demonstration makes itself
        self.large = os.path.join(self.more, "large.bin")
        self.cluster = Cluster(options.bin, os.path.join(work, "cluster"))
        self.rows = []
        self.dead = []

    def spoils(self, number):
        return self.options.spoil == number

    def step(self, text, action):
        """One row: action() gives what was found, or raises Failed or an assertion with what is wrong."""
        number = len(self.rows) + 1
        begin = time.monotonic()
        try:
            found, held = action(number), True
        except (Failed, AssertionError, OSError, KeyError) as failure:
            lines = str(failure).strip().splitlines() or [type(failure).__name__]
            found, held = lines[0][:400], False
            if len(lines) > 1:
                print("\n".join("  " + line for line in lines[1:]), file=sys.stderr)
        self.rows.append((number, text, found, held))
        print("%2d  %-4s  %-58s %s  (%.1f s)" % (number, "ok" if held else "FAIL", text, found, time.monotonic() - begin), flush=True)

    def serve(self, number):
        self.cluster.up()
        if self.spoils(number):
            self.cluster.kill("blockd6")
        alive = self.cluster.alive()
        if self.spoils(number):
            self.cluster.start_node("blockd6")
        assert len(alive) == 9, "alive are only %s" % alive
        return "3 metadata nodes, 6 block servers"

    def store(self, number):
        files, size = measure(self.tree)
        moved = self.cluster.put(self.tree, "home:/tree", timeout=900)
        large = self.cluster.put(self.large, "home:/large.bin", timeout=900)
        if self.spoils(number):
            files += len(os.listdir(self.more)) + 1
        assert moved["files"] == files and moved["bytes"] == size, "stored %(files)d files, %(bytes)d bytes" % moved + ", there are %d, %d" % (
            files, size)
        assert large["files"] == 1 and large["bytes"] == os.path.getsize(self.large), "of the large file: %r" % large
        least = min(moved["safe_losses"], large["safe_losses"])
        assert least == SHARDS - DATA_SHARDS, "safe_losses is %d of 2: tree %r, large %r" % (least, moved, large)
        seconds = moved["seconds"] + large["seconds"]
        return "%d files, %s, %s sent, %.1f s; any 2 stores may vanish" % (
            moved["files"] + 1, mib(moved["bytes"] + large["bytes"]), mib(moved["bytes_sent"] + large["bytes_sent"]), seconds)

    def store_again(self, number):
        if self.spoils(number):
            flip_byte(self.large, 12345)
        moved = self.cluster.put(self.tree, "home:/tree", timeout=900)
        large = self.cluster.put(self.large, "home:/large.bin", timeout=900)
        sent = moved["bytes_sent"] + large["bytes_sent"]
        assert sent == 0, "%d bytes of chunks were sent" % sent
        return "0 bytes of chunks sent, %s on the wire" % mib(moved["wire_bytes"] + large["wire_bytes"])

    def store_edited(self, number, spoil):
        """Stores the large file again after a small edit; what was sent, which is little."""
        if self.spoils(number):
            spoil()
        moved = self.cluster.put(self.large, "home:/large.bin", timeout=900)
        fresh = moved["chunks"] - moved["chunks_present"]
        assert 1 <= fresh <= MOST_EDIT_CHUNKS, "%d of %d chunks were sent" % (fresh, moved["chunks"])
        assert 0 < moved["bytes_sent"] <= MOST_EDIT_BYTES, "%d bytes were sent, at most %d may be" % (moved["bytes_sent"], MOST_EDIT_BYTES)
        return "%d of %d chunks sent: %s with parity" % (fresh, moved["chunks"], mib(moved["bytes_sent"]))

    def flip_all(self):
        for at in range(0, os.path.getsize(self.large), 1 << 20):
            flip_byte(self.large, at)

    def edit(self, number):
        flip_byte(self.large, os.path.getsize(self.large) // 2)
        return self.store_edited(number, self.flip_all)

    def insert(self, number):
        insert_byte(self.large, 0)
        return self.store_edited(number, self.flip_all)

    def kill(self, number):
        leader = wait_until(self.cluster.leader, 30, "a leader of group 0")
        self.dead = [leader, "blockd2", "blockd5"]
        for name in self.dead[self.spoils(number):]:
            self.cluster.kill(name)
        alive = self.cluster.alive()
        if self.spoils(number):
            self.cluster.kill(leader)
        assert not set(self.dead) & set(alive), "still alive: %s" % sorted(set(self.dead) & set(alive))
        return "killed %s" % ", ".join(self.dead)

    def survivors(self, role):
        return [n["name"] for n in self.cluster.ps() if n["role"] == role and n["alive"]]

    def store_degraded(self, number):
        victim = self.survivors("metad")[0] if self.spoils(number) else None
        if victim:
            self.cluster.kill(victim)
        for i in range(OUTAGE_FILES):
            write_random(os.path.join(self.more, "outage", "%02d.bin" % i), 30000 + i * 900000, SEED + 100 + i)
        try:
            moved = self.cluster.put(os.path.join(self.more, "outage"), "home:/outage", timeout=60 if victim else 300)
        finally:
            if victim:
                self.cluster.start_node(victim)
        assert moved["files"] == OUTAGE_FILES, "stored %r" % moved
        assert moved["safe_losses"] >= 1, "safe_losses is %d" % moved["safe_losses"]
        return "%d files, %s, %.1f s; %d more may vanish" % (moved["files"], mib(moved["bytes"]), moved["seconds"], moved["safe_losses"])

    def new_leader(self, number):
        leader = wait_until(self.cluster.leader, 30, "a leader of group 0")
        if self.spoils(number):
            self.cluster.start_node(self.dead[0])
            for name in [n for n in self.survivors("metad") if n != self.dead[0]]:
                self.cluster.kill(name)
                self.cluster.start_node(name)
            leader = self.dead[0]
        alive = self.survivors("metad")
        if self.spoils(number):
            self.cluster.kill(self.dead[0])
        assert leader in alive and leader != self.dead[0], "group 0 is led by %s, which was killed" % leader
        return "group 0 is led by %s" % leader

    def read_back(self, number, into, spoil_file):
        """Everything, each file by its SHA-256 against the source as it lies there now."""
        target = os.path.join(self.work, into)
        os.makedirs(os.path.join(target, "more"))
        begin = time.monotonic()
        self.cluster.get("home:/tree", os.path.join(target, "tree"), timeout=900)
        self.cluster.get("home:/large.bin", os.path.join(target, "more", "large.bin"), timeout=900)
        self.cluster.get("home:/outage", os.path.join(target, "more", "outage"), timeout=900)
        seconds = time.monotonic() - begin
        if self.spoils(number):
            flip_byte(os.path.join(target, "more", spoil_file), 777)
        expected, found = tree_sha256(self.tree), tree_sha256(os.path.join(target, "tree"))
        compare(expected, found)
        more = tree_sha256(self.more)
        compare(more, tree_sha256(os.path.join(target, "more")))
        shutil.rmtree(target)
        return "%d files equal by SHA-256, read in %.1f s" % (len(found) + len(more), seconds)

    def revive(self, number):
        for name in self.dead[self.spoils(number):]:
            self.cluster.start_node(name)
        alive = self.cluster.alive()
        if self.spoils(number):
            self.cluster.start_node(self.dead[0])
        assert len(alive) == 9, "alive are only %s" % alive
        return "all 9 nodes alive"

    def caught_up(self, number):
        """The metadata node that was dead carries a majority with one other: what was written meanwhile is in its log."""
        others = [n for n in self.survivors("metad") if n != self.dead[0]]
        victims = others if self.spoils(number) else others[:1]
        for name in victims:
            self.cluster.kill(name)
        try:
            listed = self.cluster.lines("ls", "home:/outage", timeout=60)
        finally:
            for name in victims:
                self.cluster.start_node(name)
        assert len(listed) == OUTAGE_FILES, "%d of %d names listed" % (len(listed), OUTAGE_FILES)
        return "%s and one other list all names written while it was dead" % self.dead[0]

    def whole(self, number):
        """References compared with what the stores list: every chunk has all shards of a code, fallback copies count."""
        if self.spoils(number):
            self.cluster.kill("blockd1")

        def missing():
            return self.cluster.lines("admin", "status", timeout=60)[-1]["chunks_by_missing"]

        try:
            wait_until(lambda: set(missing() or {"?"}) == {"0"}, 10 if self.spoils(number) else 120, "every chunk whole")
            chunks = missing()["0"]
        finally:
            if self.spoils(number):
                self.cluster.start_node("blockd1")
        rebuilt = sum(line["rebuilt"] for line in self.cluster.lines("admin", "stores"))
        return "%d chunks whole, none missing a shard; %d shards rebuilt so far" % (chunks, rebuilt)

    def take_down(self, number):
        self.cluster.down()
        if self.spoils(number):
            self.cluster.start_node("blockd1")
        alive = self.cluster.alive()
        if self.spoils(number):
            self.cluster.kill("blockd1")
        assert not alive, "still alive: %s" % alive
        return "no process left"

    def play(self):
        files, size = measure(self.tree)
        print("tree %s: %d files, %s; large file: %s, seed %d" % (self.tree, files, mib(size), mib(self.options.large_mib << 20), SEED))
        print("cluster in %s\n" % self.cluster.dir, flush=True)
        write_random(self.large, self.options.large_mib << 20, SEED)
        self.step("the cluster serves", self.serve)
        if not self.rows[0][3] and not self.spoils(1):
            return
        self.step("all files are stored, on enough stores", self.store)
        self.step("stored again: no chunk travels", self.store_again)
        self.step("one byte changed in the middle: little travels", self.edit)
        self.step("one byte inserted at the front: little travels", self.insert)
        self.step("kill -9: metadata leader and two block servers", self.kill)
        self.step("more files are stored while they are dead", self.store_degraded)
        self.step("another node leads", self.new_leader)
        self.step("everything reads back while they are dead", lambda n: self.read_back(n, "degraded", "large.bin"))
        self.step("the dead start again", self.revive)
        self.step("the revived metadata node has caught up", self.caught_up)
        self.step("every chunk is whole again", self.whole)
        self.step("everything reads back with all alive", lambda n: self.read_back(n, "whole", "outage/03.bin"))
        if self.options.headless:
            self.step("the cluster goes down", self.take_down)

    def verdict(self):
        failed = [row[0] for row in self.rows if not row[3]]
        complete = len(self.rows) == CHECKS - (not self.options.headless)
        print()
        if failed or not complete:
            print("%d of %d checks failed: %s" % (len(failed), len(self.rows), ", ".join(map(str, failed))))
        else:
            print("all %d checks held" % len(self.rows))
        return 0 if complete and not failed else 1


def main():
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("dir", nargs="?", help="the tree to store (a folder of this system)")
    parser.add_argument("--headless", action="store_true", help="take the cluster down and remove it at the end")
    parser.add_argument("--break", dest="spoil", type=int, default=0, metavar="N", help="spoil check N")
    parser.add_argument("--large-mib", type=int, default=256, metavar="N", help="size of the large file")
    parser.add_argument("--bin", default="build/bin", help="where the programs are")
    options = parser.parse_args()
    if options.dir and not os.path.isdir(options.dir):
        parser.error("%s is not a folder" % options.dir)
    if options.large_mib < 16:
        parser.error("--large-mib must be at least 16")
    if not 0 <= options.spoil <= CHECKS - (not options.headless):
        parser.error("there is no check %d" % options.spoil)
    work = tempfile.mkdtemp(prefix="cairn-demo-")
    demo = Demo(options, work)
    try:
        demo.play()
        code = demo.verdict()
    finally:
        if options.headless:
            try:
                demo.cluster.down()
            except Failed:
                pass
            shutil.rmtree(work, ignore_errors=True)
    if not options.headless:
        print("\nThe cluster still runs. Look around:\n  export CAIRN_CONFIG=%s\n  build/bin/cairn ls -l home:/" % demo.cluster.config)
        print("and end it:\n  build/bin/cairn dev down --dir %s && rm -r %s" % (demo.cluster.dir, work))
    sys.exit(code)


main()
