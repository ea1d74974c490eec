#!/usr/bin/env python3
"""A metadata node whose database is damaged sets it aside, fills an empty one from its log and from the others, and loses
neither vote nor seat: at the start, in the midst of work, on two of three at once. No operator takes a step, and everything
is read back, at last from the two alone that were damaged (PROTOCOLS R-E5). Usage: database.py BIN_DIR"""

import glob
import os
import sys
import tempfile

from cluster import compare, flip_byte, make_tree, running, tree_sha256, wait_until, write_random

METADS = ("metad1", "metad2", "metad3")
BLOCK = 1024


def data(cluster, name, *more):
    return os.path.join(cluster.dir, name, "data", *more)


def log_often_cut(cluster):
    """The log keeps a few entries behind each flush, so that a database that is gone cannot come back from it."""
    for name in METADS:
        with open(os.path.join(cluster.dir, name, "node.toml"), "a", encoding="utf-8") as f:
            f.write("flush_entries = 8\nkeep_entries = 2\n")
    for name in METADS:
        cluster.kill(name)
        cluster.start_node(name)


def level(cluster):
    groups = cluster.groups()
    return groups and all(group["leader"] and all(member["answered"] and member["lag"] == 0 and not member["lost"]
                                                  for member in group["members"]) for group in groups)


def spoil_tables(cluster, name):
    """A byte in each KiB of all tables."""
    tables = glob.glob(data(cluster, name, "kv", "*.sst"))
    assert tables, name
    for path in tables:
        for at in range(0, os.path.getsize(path), BLOCK):
            flip_byte(path, at)


def spoil_manifest(cluster, name):
    path, = glob.glob(data(cluster, name, "kv", "MANIFEST-*"))
    flip_byte(path, os.path.getsize(path) // 2)


def lose_current(cluster, name):
    os.unlink(data(cluster, name, "kv", "CURRENT"))


def lose_tables(cluster, name):
    for path in glob.glob(data(cluster, name, "kv", "*.sst")):
        os.unlink(path)


def restored(cluster, name, since):
    return "the state is back" in cluster.log(name)[since:]


def put(cluster, work, number):
    path = os.path.join(work, "more-%d" % number)
    write_random(path, 200000, number)
    cluster.put(path, "home:/tree/more-%d" % number)
    return {"more-%d" % number: tree_sha256(os.path.dirname(path))["more-%d" % number]}


def read_back(cluster, work, expected, name):
    out = os.path.join(work, "out", name)
    cluster.get("home:/tree", out)
    compare(expected, tree_sha256(out))


def at_the_start(cluster, work, expected, name, spoil, number, aside):
    cluster.kill(name)
    spoil(cluster, name)
    since = len(cluster.log(name))
    cluster.start_node(name)
    wait_until(lambda: restored(cluster, name, since), 60, "%s has its state again" % name)
    wait_until(lambda: level(cluster), 60, "all members hold the same")
    assert len(glob.glob(data(cluster, name, "kv.damaged-*"))) == aside, os.listdir(data(cluster, name))
    assert "is set aside as" in cluster.log(name)[since:]
    expected.update(put(cluster, work, number))
    read_back(cluster, work, expected, "start-%d" % number)


def in_the_midst(cluster, work, expected, name):
    """The process goes on under its number; what was read is not believed."""
    before = cluster.pid(name)
    since, kept = len(cluster.log(name)), len(glob.glob(data(cluster, name, "kv.damaged-*")))
    spoil_tables(cluster, name)
    number = 100
    while len(glob.glob(data(cluster, name, "kv.damaged-*"))) == kept:
        assert number < 400, "tables are read by compaction at the latest"
        expected.update(put(cluster, work, number))
        number += 1
    wait_until(lambda: restored(cluster, name, since), 60, "%s has its state again" % name)
    wait_until(lambda: level(cluster), 60, "all members hold the same")
    assert before == cluster.pid(name)
    read_back(cluster, work, expected, "midst")


def two_at_once(cluster, work, expected):
    for name in METADS:
        cluster.kill(name)
    spoil_tables(cluster, "metad1")
    spoil_manifest(cluster, "metad2")
    since = {name: len(cluster.log(name)) for name in METADS}
    for name in METADS:
        cluster.start_node(name)
    for name in ("metad1", "metad2"):
        wait_until(lambda: restored(cluster, name, since[name]), 120, "%s has its state again" % name)
    wait_until(lambda: level(cluster), 60, "all members hold the same")
    expected.update(put(cluster, work, 500))
    cluster.kill("metad3")  # the only one that never lost its own of late
    read_back(cluster, work, expected, "two")
    expected.update(put(cluster, work, 501))
    cluster.start_node("metad3")


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-database-") as work:
        source = os.path.join(work, "source")
        expected = make_tree(source, 11)
        os.mkdir(os.path.join(work, "out"))
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            log_often_cut(cluster)
            cluster.put(source, "home:/tree")
            wait_until(lambda: level(cluster), 60, "all members hold the same")
            at_the_start(cluster, work, expected, "metad1", spoil_tables, 1, 1)
            at_the_start(cluster, work, expected, "metad2", spoil_manifest, 2, 1)
            at_the_start(cluster, work, expected, "metad2", lose_tables, 3, 2)
            at_the_start(cluster, work, expected, "metad3", lose_current, 4, 1)
            in_the_midst(cluster, work, expected, cluster.leader(1))
            two_at_once(cluster, work, expected)
            read_back(cluster, work, expected, "last")
            for name in METADS:
                assert '"level":"fatal"' not in cluster.log(name), cluster.log(name)


main()
