#!/usr/bin/env python3
"""Makes a golden archive: the directories of a small cluster that was killed in the middle of its life, and what a client was told of it.

usage: make.py BIN_DIR [NAME]   the programs whose formats it is to hold; writes tests/golden/metad-M.store-S[.NAME].tar.xz

Three metadata nodes, three block servers, rs-2-1. metad2 flushed its database often, the others never: their state is in
their logs alone. metad3 was away for most entries, and got what metad2's log no longer had as a snapshot where metad2 led. All were
killed at once, so each log has a tail that is applied anew."""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cluster"))

from cluster import running, wait_until  # noqa: E402
from told import told  # noqa: E402


def formats(bin_dir):
    text = subprocess.run([os.path.join(bin_dir, "metad"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"metad directory (\d+), store directory (\d+)", text)
    return "metad-%s.store-%s" % found.groups()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def live(cluster, scratch):
    """Everything that leaves something behind: files of each kind, versions, moves, removals, odd names, links, conflicts."""
    tree = os.path.join(scratch, "tree")
    write(os.path.join(tree, "small.txt"), "a file that lies in the metadata\n")
    write(os.path.join(tree, "empty"), "")
    write(os.path.join(tree, "folder with é", "large.txt"), "".join("line %d of a file of several chunks\n" % i for i in range(80000)))
    write(os.path.join(tree, "folder with é", "again.txt"), "".join("line %d of a file of several chunks\n" % i for i in range(80000)))
    write(os.path.join(tree, "shards.txt"), "".join("%d,%d\n" % (i, i * i) for i in range(4000)))
    os.symlink("small.txt", os.path.join(tree, "link"))
    cluster.run("put", tree, "home:/tree")
    for version in range(3):
        write(os.path.join(scratch, "changing.txt"), "version %d\n" % version * (1 + 2000 * version))
        cluster.run("put", os.path.join(scratch, "changing.txt"), "home:/changing.txt")
    cluster.run("mkdir", "home:/kept")
    cluster.run("mv", "home:/tree/shards.txt", "home:/kept/moved.txt")
    cluster.run("put", os.path.join(scratch, "changing.txt"), "home:/removed.txt")
    cluster.run("rm", "home:/removed.txt")
    for i in range(60):
        write(os.path.join(scratch, "many", "%02d" % i), "number %d\n" % i)
    cluster.run("put", os.path.join(scratch, "many"), "home:/many")
    cluster.run("rm", "-r", "home:/many")


def level(cluster):
    return all(group["leader"] and all(member["answered"] and member["lag"] == 0 for member in group["members"]) for group in cluster.groups())


def lengthen(cluster):
    """More entries than lie between two digests (R-E6), most of them while metad3 is away. metad2 leads: its log is cut."""
    for group in ("0", "1"):
        cluster.run("admin", "node", "transfer", "--group", group, "--to", "metad2")
    cluster.kill("metad3")
    for i in range(135):
        if i == 110:
            cluster.start_node("metad3")
            wait_until(lambda: level(cluster), 120, "metad3 to have all")
        cluster.run("mkdir", "home:/brief-%d" % i)
        cluster.run("rm", "-r", "home:/brief-%d" % i)


def use_number(cluster):
    """The file of idempotency numbers as it was before a mutation, and behind it."""
    path = os.path.join(cluster.dir, "client.keys")
    with open(path, encoding="utf-8") as stream:
        used = stream.read()
    cluster.run("mkdir", "home:/last")  # in the tail of each log
    with open(path, encoding="utf-8") as stream:
        return {"used": used, "next": stream.read()}


def flush_often(cluster, bin_dir, name):
    """Where the programs know the keys for it."""
    config = os.path.join(cluster.dir, name, "node.toml")
    with open(config, encoding="utf-8") as stream:
        before = stream.read()
    with open(config, "w", encoding="utf-8") as stream:
        stream.write(before + "flush_entries = 20\nkeep_entries = 20\n")
    if subprocess.run([os.path.join(bin_dir, "metad"), "--check-config", "--config", config], capture_output=True).returncode != 0:
        with open(config, "w", encoding="utf-8") as stream:
            stream.write(before)
        return
    cluster.kill(name)
    cluster.start_node(name)


def pack(directory, target):
    """By GNU tar, which leaves holes out."""
    left_out = ["--exclude=" + name for name in ("*/pid", "*/node?/log", "lock", "LOCK", "LOG", "LOG.old*")]
    # <name>/log is a file beside node.toml; data/log is a folder
    files = [os.path.join(name, "log") for name in os.listdir(directory) if os.path.isfile(os.path.join(directory, name, "log"))]
    subprocess.run(["tar", "--sparse", "--sort=name", "--owner=0", "--group=0", *left_out, *("--exclude=./" + name for name in files),
                    "-C", directory, "-cf", target[:-3], "."], check=True)
    subprocess.run(["xz", "-9e", "--force", target[:-3]], check=True)


def main():
    bin_dir = sys.argv[1]
    target = os.path.join(HERE, ".".join([formats(bin_dir), *sys.argv[2:], "tar.xz"]))
    assert not os.path.exists(target), "%s stands, and is kept as it is" % target
    with tempfile.TemporaryDirectory(prefix="cairn-golden-") as scratch:
        directory = os.path.join(scratch, "cluster")
        with running(bin_dir, directory, "--metad", "3", "--blockd", "3", "--pool", "rs-2-1") as cluster:
            flush_often(cluster, bin_dir, "metad2")
            live(cluster, scratch)
            lengthen(cluster)
            numbers = use_number(cluster)
            wait_until(lambda: level(cluster), 60, "all to have the last entry")
            expected = told(cluster, os.path.join(scratch, "back"))
            for node in cluster.ps():
                os.kill(node["pid"], signal.SIGKILL)
            expected.update(directory=directory, numbers=numbers)
            with open(os.path.join(directory, "told.json"), "w", encoding="utf-8") as stream:
                json.dump(expected, stream, indent=1, sort_keys=True)
            pack(directory, target)
    print("%s: %d bytes, %d files, %d changes" % (target, os.path.getsize(target), len(expected["files"]), len(expected["changes"])))


main()
