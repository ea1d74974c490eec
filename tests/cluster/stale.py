#!/usr/bin/env python3
"""A metadata node whose directory was put back from an older copy, or emptied, has forgotten what it acknowledged. Its
peers recognise it by themselves: it counts in no majority (so nothing is lost), they say so, and it comes back as a
learner that is promoted when it has caught up (PROTOCOLS R-E3). Usage: stale.py BIN_DIR"""

import os
import shutil
import sys
import tempfile

from cluster import file_sha256, running, wait_until, write_random

GROUPS = (0, 1)


def level(cluster):
    groups = cluster.groups()
    return groups and all(group["leader"] and all(member["role"] == "voter" and member["answered"] and member["lag"] == 0 and
                                                  not member["stale"]
                                                  for member in group["members"]) for group in groups)


def said(cluster, name, what, since=0):
    """The groups of which the node's log says so, behind its first `since` characters."""
    log = [line for line in cluster.log(name)[since:].splitlines() if '"STALE_PEER"' in line and what in line]
    return {group for group in GROUPS if any("group %d:" % group in line for line in log)}


def put(cluster, work, name, seed):
    path = os.path.join(work, name)
    write_random(path, 200000, seed)
    cluster.put(path, "home:/" + name)


def check(cluster, work, names):
    for name in names:
        out = os.path.join(work, "out-" + name)
        cluster.get("home:/" + name, out)
        assert file_sha256(out) == file_sha256(os.path.join(work, name)), name
        os.unlink(out)


def older_copy(cluster, work):
    """metad3 comes back as it was before it acknowledged two files, one of which only it and metad1 hold."""
    data, image = os.path.join(cluster.dir, "metad3", "data"), os.path.join(work, "image")
    cluster.kill("metad3")
    shutil.copytree(data, image)
    cluster.start_node("metad3")
    put(cluster, work, "first", 1)
    wait_until(lambda: level(cluster), 60, "all hold the first file")
    for _ in range(3):  # group 0 goes on: its members write down what they heard
        cluster.run("admin", "token", "create", "--role", "blockd")
    put(cluster, work, "again", 2)
    cluster.kill("metad2")
    put(cluster, work, "second", 3)
    cluster.kill("metad1")
    cluster.kill("metad3")
    shutil.rmtree(data)
    shutil.move(image, data)
    for name in ("metad2", "metad3"):  # neither holds the second file: together they would be a majority
        cluster.start_node(name)
    wait_until(lambda: said(cluster, "metad2", "metad:3") == set(GROUPS), 60, "metad2 recognises metad3")
    wait_until(lambda: said(cluster, "metad3", "this directory") == set(GROUPS), 60, "metad3 is told so")
    _, out = cluster.run("admin", "groups", "--json", "--timeout", "3", codes=(7,))
    assert "group 0 has no leader" in out, out
    cluster.start_node("metad1")
    wait_until(lambda: level(cluster), 120, "metad3 has caught up as a learner and votes again")
    check(cluster, work, ("first", "again", "second"))


def emptied(cluster, work):
    cluster.kill("metad3")
    shutil.rmtree(os.path.join(cluster.dir, "metad3", "data"))
    since = len(cluster.log("metad3"))
    cluster.start_node("metad3")
    wait_until(lambda: said(cluster, "metad3", "this directory", since) == set(GROUPS), 60, "metad3 is told that it lacks all")
    wait_until(lambda: level(cluster), 120, "metad3 has caught up as a learner and votes again")
    cluster.kill("metad1")
    check(cluster, work, ("first", "again", "second"))  # what it votes for is what it holds
    cluster.start_node("metad1")


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-stale-") as work:
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            put(cluster, work, "nought", 0)
            older_copy(cluster, work)
            emptied(cluster, work)
            check(cluster, work, ("nought",))


main()
