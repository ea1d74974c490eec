#!/usr/bin/env python3
"""Full disks under real processes: of one metadata node, of all three, of one store, of all, and of the person who reads.
Nobody dies of a signal, what was acknowledged stays, what was not leaves nothing behind, and with room again it goes on.
Usage: fulldisk.py BIN_DIR

The disks are tmpfs mounts over the nodes' data directories, in a mount namespace of this test alone; they are made full and
given room again by changing their size. Needs root, or user namespaces."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from cluster import Failed, compare, file_sha256, running, tree_sha256, wait_until, write_random

PRIVATE = "CAIRN_PRIVATE_MOUNTS"
ROOM_BYTES = 700 << 20  # free space of a disk with room; the nodes' reserve is at least 256 MiB
SHORT_BYTES = 200 << 20  # less than the reserve, more than nothing
FULL_BYTES = 0
SMALL_FILES = 6000  # of 4,000 bytes: more than a write buffer of the database holds, so that it must flush


def enter_private_mounts():
    """Runs this program anew in a mount namespace of its own: what it mounts ends with its last process."""
    if os.environ.get(PRIVATE):
        return
    options = ["--mount", "--propagation", "private"] if os.geteuid() == 0 else ["--map-root-user", "--mount", "--propagation", "private"]
    os.environ[PRIVATE] = "1"
    os.execvp("unshare", ["unshare", *options, "--", sys.executable, *sys.argv])


class Disk:
    """A file system of its own, mounted over a folder that keeps its contents."""

    def __init__(self, folder):
        self.folder = folder
        aside = folder + ".aside"
        os.rename(folder, aside)
        os.mkdir(folder, 0o700)
        used = sum(os.path.getsize(os.path.join(here, name)) for here, _, names in os.walk(aside) for name in names)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700,size=%d" % (used + ROOM_BYTES), "tmpfs", folder], check=True)
        # never sparse: what the node allocated stays allocated
        subprocess.run(["cp", "-a", "--sparse=never", aside + "/.", folder], check=True)
        shutil.rmtree(aside)

    def leave(self, size):
        """Changes the size until no more than `size` bytes are free; the node may write meanwhile."""

        def changed():
            fs = os.statvfs(self.folder)
            used = (fs.f_blocks - fs.f_bfree) * fs.f_frsize
            told = subprocess.run(["mount", "-o", "remount,size=%d" % max(used + size, 4096), self.folder], check=False, capture_output=True)
            return told.returncode == 0

        wait_until(changed, 30, "%s takes another size" % self.folder)


def unmount_below(folder):
    with open("/proc/self/mounts", encoding="utf-8") as f:
        mounted = [line.split()[1] for line in f]
    for point in mounted:
        if point.startswith(folder + "/"):
            subprocess.run(["umount", "--lazy", point], check=True)


class Field:
    """A cluster whose data directories are disks of their own, and files to store."""

    def __init__(self, cluster, work):
        self.cluster = cluster
        self.work = work
        self.disks = {}
        self.small = os.path.join(work, "small")
        for i in range(SMALL_FILES):
            write_random(os.path.join(self.small, "%04d" % i), 4000, i)
        self.large = os.path.join(work, "large.bin")
        write_random(self.large, 12 << 20, 5)
        cluster.down()
        for node in cluster.ps():
            folder = "data" if node["role"] == "metad" else "store1"
            self.disks[node["name"]] = Disk(os.path.join(cluster.dir, node["name"], folder))
        cluster.up()
        cluster.put(self.large, "home:/large.bin")

    def leave(self, names, size):
        for name in names:
            self.disks[name].leave(size)

    def names(self, role):
        return [name for name in self.disks if name.startswith(role)]

    def refused(self, what, source, target):
        """A put that must end for want of space, with the next step; nothing of it is there."""
        process = self.cluster.start("put", source, target, "--timeout", "4")
        text = b"".join(process.communicate(timeout=120)).decode(errors="replace")
        assert process.returncode == 7, "%s: exit code %d, not 7\n%s" % (what, process.returncode, text)
        assert "DISK_FULL" in text and "make room" in text, "%s:\n%s" % (what, text)
        self.cluster.run("stat", target, codes=(3,))

    def reads(self, what):
        target = os.path.join(self.work, "back.bin")
        self.cluster.get("home:/large.bin", target)
        assert file_sha256(target) == file_sha256(self.large), what

    def goes_on(self, what, target):
        """With room again a put succeeds, without a restart."""
        wait_until(lambda: self.cluster.run("put", self.large, target, "--timeout", "4", codes=(0, 7))[0] == 0, 60, what)

    def all_alive(self, what):
        assert len(self.cluster.alive()) == 9, "%s: alive are %s\n%s" % (what, self.cluster.alive(), self.cluster.tails())


def ended_by_reason(cluster, name):
    """The node ended because it said so: DISK_FULL and the next step, not a signal. What was under way may speak after it."""
    lines = cluster.log(name).splitlines()
    run = lines[max(i for i, line in enumerate(lines) if '"listening on' in line):]
    fatal = [line for line in run if '"fatal"' in line]
    assert len(fatal) == 1 and '"DISK_FULL"' in fatal[0] and "make room" in fatal[0], "%s: %s" % (name, run[-5:])


def one_metad(field):
    """The leader's disk is full: it ends with its reason when its database must flush, the others go on; with room it returns."""
    cluster = field.cluster
    leader = wait_until(lambda: cluster.leader(1), 30, "a leader of group 1")
    field.leave([leader], FULL_BYTES)
    moved = cluster.put(field.small, "home:/one", timeout=300)
    assert moved["files"] == SMALL_FILES and moved["failed"] == 0, moved
    wait_until(lambda: leader not in cluster.alive(), 60, "%s ends" % leader)
    ended_by_reason(cluster, leader)
    assert len(cluster.alive()) == 8, cluster.tails()
    field.leave([leader], ROOM_BYTES)
    cluster.start_node(leader)
    other = next(name for name in field.names("metad") if name != leader)
    cluster.kill(other)  # now it is one of the two that decide
    assert len(cluster.lines("ls", "home:/one")) == SMALL_FILES
    cluster.start_node(other)
    field.all_alive("one metad")


def all_metads_short(field):
    """Every metadata node short of space: mutations are refused, reads go on, nobody ends, and with room it goes on."""
    field.leave(field.names("metad"), SHORT_BYTES)
    small = os.path.join(field.small, "0002")
    wait_until(lambda: field.cluster.run("put", small, "home:/probe", "--timeout", "1", codes=(0, 7))[0] == 7, 30, "mutations are refused")
    field.refused("a large file", field.large, "home:/short.bin")
    field.refused("a small file", os.path.join(field.small, "0001"), "home:/short")
    field.reads("while the metadata nodes are short of space")
    field.all_alive("all metads short of space")
    field.leave(field.names("metad"), ROOM_BYTES)
    field.goes_on("metadata nodes have room again", "home:/after-short.bin")


def acknowledged(history):
    """The names a history calls stored."""
    names, done = {}, set()
    with open(history, encoding="utf-8") as f:
        for line in f.read().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line while the command still writes
            if row["op"] == "put" and row["phase"] == "invoke":
                names[row["id"]] = os.path.basename(row["args"]["path"])
            elif row["op"] == "put" and row["outcome"] == "ok":
                done.add(names[row["id"]])
    return done


def all_metads_full(field):
    """All three disks become full while files are stored: what was acknowledged is there with room again, and after a restart."""
    cluster = field.cluster
    history = os.path.join(field.work, "history")
    process = cluster.start("put", field.small, "home:/all", "--timeout", "4", "--transfers", "2", "--history", history)
    try:
        wait_until(lambda: os.path.exists(history) and len(acknowledged(history)) > 200, 60, "some files are stored")
        field.leave(field.names("metad"), FULL_BYTES)
        # Nodes whose write buffers are nearly full end, the others refuse: both have their names.
        refusal = wait_until(lambda: read_some(process), 60, "files are refused").decode()
        assert re.search(r"\((DISK_FULL|NO_QUORUM|TIMEOUT|UNREACHABLE|CLOSED|NOT_LEADER)\)", refusal), refusal
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    stored = acknowledged(history)
    assert len(stored) < SMALL_FILES, "the disks were full too late to matter"
    field.leave(field.names("metad"), ROOM_BYTES)
    for name in set(field.names("metad")) - set(cluster.alive()):
        ended_by_reason(cluster, name)
        cluster.start_node(name)
    check_stored(field, stored, "with room again")
    cluster.down()
    cluster.up()
    check_stored(field, stored, "after a restart")
    moved = cluster.put(field.small, "home:/all", timeout=300)
    assert moved["files"] == SMALL_FILES, moved


def read_some(process):
    """What stands in the command's error output now, without waiting for its end."""
    os.set_blocking(process.stderr.fileno(), False)
    return process.stderr.read() or b""


def check_stored(field, stored, when):
    """All acknowledged names are there, and every name there has its whole contents."""
    target = os.path.join(field.work, "all")
    field.cluster.get("home:/all", target, timeout=300)
    found, source = tree_sha256(target), tree_sha256(field.small)
    shutil.rmtree(target)
    assert stored <= set(found), "%s: %d acknowledged files are missing, such as %s" % (when, len(stored - set(found)), min(stored - set(found)))
    compare({name: source[name] for name in found}, found)


def one_store(field):
    """One full store: files are stored on the others; with room it fills its slots."""
    cluster = field.cluster
    field.leave(["blockd2"], FULL_BYTES)
    source = os.path.join(field.work, "one-store.bin")
    write_random(source, 20 << 20, 77)
    moved = cluster.put(source, "home:/one-store.bin")
    assert moved["safe_losses"] == 1, "safe_losses beside a full store: %r" % moved
    field.all_alive("one store full")
    field.leave(["blockd2"], ROOM_BYTES)
    wait_until(lambda: set(cluster.lines("admin", "status")[-1]["chunks_by_missing"]) == {"0"}, 120, "every chunk whole")


def all_stores(field):
    """All stores full: a named refusal, reads go on; with room it goes on without a restart."""
    source = os.path.join(field.work, "all-stores.bin")
    write_random(source, 8 << 20, 78)
    field.leave(field.names("blockd"), FULL_BYTES)
    wait_until(lambda: field.cluster.run("put", source, "home:/probe.bin", "--timeout", "2", codes=(0, 7))[0] == 7, 30, "puts are refused")
    fresh = os.path.join(field.work, "fresh.bin")
    write_random(fresh, 8 << 20, 79)
    field.refused("all stores full", fresh, "home:/fresh.bin")
    field.reads("while the stores are full")
    field.all_alive("all stores full")
    field.leave(field.names("blockd"), ROOM_BYTES)
    field.goes_on("stores have room again", "home:/after-full.bin")
    field.reads("after the stores were full")


def reader(field):
    """A download onto a full disk: nothing half-written stays, neither under its name nor beside it."""
    folder = os.path.join(field.work, "reader")
    os.mkdir(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    process = field.cluster.start("get", "home:/large.bin", os.path.join(folder, "copy"))
    text = b"".join(process.communicate(timeout=120)).decode(errors="replace")
    assert process.returncode == 1, "exit code %d, not 1\n%s" % (process.returncode, text)
    assert "No space left" in text and "make room" in text, text
    assert os.listdir(folder) == [], os.listdir(folder)


def main():
    enter_private_mounts()
    with tempfile.TemporaryDirectory(prefix="cairn-full-") as work:
        try:
            with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
                field = Field(cluster, work)
                for row in (reader, one_metad, all_metads_short, all_metads_full, one_store, all_stores):
                    row(field)
                    print("%s: held" % row.__name__, flush=True)
        finally:
            unmount_below(work)
    print("full disks: every row held")


main()
