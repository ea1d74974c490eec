#!/usr/bin/env python3
"""The release before this one and this one in one cluster: it begins with the older programs, each node is ended and
started with the newer one under load, each mixture leads once, commands of both work all the time and none fails. Then the older program
refuses the newer directory by name. The older release is built from the repository's own history (PREVIOUS).
Usage: mixed.py BIN_DIR SOURCE_DIR WORK_DIR"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile

from cluster import Cluster, running, wait_until, write_random
from rolling import Client, end, get_on, judge, stores_are_up

PREVIOUS = "42abbcded276"  # wire version 1, metadata directory 2, store directory 1
SKIP = 77
SMALL_FILES = 300  # more than the entries between two digests
PROGRAMS = ("metad", "blockd", "cairn")


def git_archive(source):
    done = subprocess.run(["git", "-C", source, "archive", "--format=tar", PREVIOUS], capture_output=True)
    return done.stdout if done.returncode == 0 else None


def build(source, work):
    """The older release's bin directory, built once; None when the history does not reach back to it."""
    root = os.path.join(work, "previous-" + PREVIOUS)
    out = os.path.join(root, "build", "bin")
    if all(os.path.exists(os.path.join(out, name)) for name in PROGRAMS):
        return out
    archive = git_archive(source)
    if archive is None:
        return None
    shutil.rmtree(root, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(root)
    # what it does is asked, not how fast it is
    configure = ["cmake", "-S", root, "-B", os.path.join(root, "build"), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_C_FLAGS_RELEASE=-O0"]
    for command in (configure, ["cmake", "--build", os.path.join(root, "build"), "--target", *PROGRAMS]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


def replace(older, newer, name):
    """The node ends in order and comes back as the newer program."""
    node = next(node for node in older.ps() if node["name"] == name)
    os.kill(node["pid"], signal.SIGTERM)
    wait_until(lambda: name not in older.alive(), 30, "%s to end" % name)
    newer.start_node(name)
    wait_until(lambda: stores_are_up(newer), 60, "all stores")


def lead(cluster, name, clients):
    """Both groups, under load."""
    for group in (0, 1):
        cluster.run("admin", "node", "transfer", "--group", str(group), "--to", name)
        assert cluster.leader(group) == name
    get_on(clients, 3)


def member(cluster, name):
    """What the node says of group 1."""
    group = next(line for line in cluster.groups() if line["group"] == 1)
    return next(m for m in group["members"] if m["name"] == name and m["answered"])


def digests_agree(newer, leader, name, source):
    """Under `leader` all nodes come past a digest (R-E6): `name`, which counts those that were equal, and the others, which would have
    halted where they differed."""
    before = member(newer, name)["digests"]
    for attempt in range(3):  # a checkpoint is every 256 entries, and the last one before the leader looks is told
        newer.put(source, "home:/%s-%d" % (leader, attempt))
        wait_until(lambda: member(newer, name)["digests"] > before, 30, "%s to compare its digest" % name)
        before = member(newer, name)["digests"]
    at = member(newer, name)["applied"]
    assert member(newer, name)["digest_at"] > 0 and newer.leader(1) == leader
    wait_until(lambda: all(member(newer, node)["applied"] >= at for node in ("metad1", "metad2", "metad3")), 30, "all to apply as much")
    assert len(newer.alive()) == 9, newer.tails()


def program_of(pid):
    return os.path.dirname(os.readlink("/proc/%d/exe" % pid))


def check_refused(previous, cluster, name):
    """The older program does not touch what the newer one has written."""
    cluster.kill(name)
    done = subprocess.run([os.path.join(previous, "metad"), "--config", os.path.join(cluster.dir, name, "node.toml")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "start the newer program" in done.stdout + done.stderr, (done.returncode, done.stdout + done.stderr)
    cluster.start_node(name)


def roll(previous, older, newer, clients, small):
    lead(older, "metad1", clients)
    replace(older, newer, "metad1")
    lead(newer, "metad1", clients)  # the newer one leads two older ones
    digests_agree(newer, "metad1", "metad1", small)
    lead(older, "metad2", clients)  # and follows one
    digests_agree(newer, "metad2", "metad1", small)
    replace(older, newer, "metad2")
    lead(older, "metad3", clients)  # an older one leads two newer ones
    digests_agree(newer, "metad3", "metad2", small)
    for name in ("blockd1", "blockd2", "blockd3"):
        replace(older, newer, name)
        get_on(clients, 2)
    replace(older, newer, "metad3")
    for name in ("blockd4", "blockd5", "blockd6"):
        replace(older, newer, name)
    lead(newer, "metad3", clients)
    assert all(program_of(node["pid"]) != os.path.realpath(previous) for node in newer.ps())


def main():
    bin_dir, source, work = sys.argv[1:]
    previous = build(source, work)
    if previous is None:
        print("the history does not hold %s: no older release to mix with" % PREVIOUS)
        return SKIP
    with tempfile.TemporaryDirectory(prefix="cairn-mixed-") as scratch:
        with running(previous, os.path.join(scratch, "cluster")) as older:
            newer = Cluster(bin_dir, older.dir)
            assert all(program_of(node["pid"]) == os.path.realpath(previous) for node in older.ps())
            clients = [Client(cluster, i + 1, scratch) for i, cluster in enumerate((older, newer, newer))]
            for client in clients:
                client.start()
            get_on(clients, 3)
            small = os.path.join(scratch, "small")
            for i in range(SMALL_FILES):
                write_random(os.path.join(small, "%03d" % i), 100, i)
            roll(previous, older, newer, clients, small)
            end(clients)
            check_refused(previous, newer, "metad2")
        judge(bin_dir, clients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
