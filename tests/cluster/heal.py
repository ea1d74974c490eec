#!/usr/bin/env python3
"""One flipped sector in the logs of two of three metadata nodes, found at the same start, stops nobody: the damaged
entries come from each other, no operator takes a step, and everything is read back (PROTOCOLS R-E1). Nor does rot that a
running leader meets. Usage: heal.py BIN_DIR"""

import glob
import os
import random
import struct
import sys
import tempfile

from cluster import compare, flip_byte, make_tree, running, tree_sha256, wait_until, write_random

SECTOR = 512
NO_RECORD = 0xffff


def sectors(cluster, name):
    """(path, offset, whether it lies inside a long record) of all sectors written to the log, in order."""
    out = []
    for path in sorted(glob.glob(os.path.join(cluster.dir, name, "data", "log", "*.log"))):
        with open(path, "rb") as f:
            data = f.read()
        for at in range(0, len(data), SECTOR):
            if data[at + 4:at + 8] == b"CLG3":
                used, record = struct.unpack_from("<HH", data, at + 40)
                out.append((path, at, record == NO_RECORD and used > 0))
    return out


def level(cluster):
    """Every member of every group has all that its leader has."""
    groups = cluster.groups()
    return groups and all(group["leader"] and all(member["lag"] == 0 for member in group["members"]) for group in groups)


def spoil(cluster, name, where, inside):
    """Flips a byte in the sector at the fraction `where` of the log."""
    found = [one for one in sectors(cluster, name) if one[2] or not inside]
    path, at, _ = found[int(len(found) * where)]
    flip_byte(path, at + random.Random(at).randrange(SECTOR))


def whole(cluster, names):
    """No node of these lacks anything any more."""
    members = [member for group in cluster.groups() for member in group["members"] if member["name"] in names]
    return members and all(member["answered"] and member["holes"] == 0 for member in members)


def mended(cluster, name):
    return sum(member["mended"] for group in cluster.groups() for member in group["members"] if member["name"] == name)


def read_back(cluster, work, expected, name):
    cluster.get("home:/tree", os.path.join(work, name))
    compare(expected, tree_sha256(os.path.join(work, name)))


def round_of(cluster, work, expected, number, first, second, where, inside):
    """Both damaged nodes must find what they lack in each other: the third stays away."""
    wait_until(lambda: level(cluster), 60, "all members hold the same")
    metads = [node["name"] for node in cluster.ps() if node["role"] == "metad"]
    for name in metads:
        cluster.kill(name)
    spoil(cluster, first, where[0], inside)
    spoil(cluster, second, where[1], inside)
    for name in (first, second):
        cluster.start_node(name)
    read_back(cluster, work, expected, "round-%d" % number)
    wait_until(lambda: whole(cluster, (first, second)), 60, "%s and %s have mended their logs" % (first, second))
    if inside:
        for name in (first, second):
            assert mended(cluster, name) > 0, (name, cluster.groups())
    path = os.path.join(work, "more-%d" % number)
    write_random(path, 300000, number)
    cluster.put(path, "home:/more-%d" % number)
    for name in metads:
        if name not in (first, second):
            cluster.start_node(name)


def met_while_running(cluster, work):
    """The leader finds the rot when it reads for a member that was away: that one gets a snapshot, and nobody ends."""
    cluster.kill("metad3")
    source = os.path.join(work, "later")
    later = make_tree(source, 12, 120)
    cluster.put(source, "home:/later")
    for name in ("metad1", "metad2"):  # what they send to metad3 they have to read, then
        cluster.kill(name)
        cluster.start_node(name)
    wait_until(lambda: cluster.leader(1), 60, "group 1 is led")
    cluster.get("home:/later", os.path.join(work, "out-later-1"))
    leader = cluster.leader(1)
    pid, since = cluster.pid(leader), len(cluster.log(leader))
    found = [one for one in sectors(cluster, leader) if one[2]]
    for path, at, _ in found[int(len(found) * 0.8)::7]:
        flip_byte(path, at + 200)
    cluster.start_node("metad3")
    wait_until(lambda: level(cluster), 90, "metad3 has all, though %s could not read it" % leader)
    assert "are damaged" in cluster.log(leader)[since:], cluster.log(leader)[since:]
    assert pid == cluster.pid(leader)
    cluster.get("home:/later", os.path.join(work, "out-later-2"))
    compare(later, tree_sha256(os.path.join(work, "out-later-2")))


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-heal-") as work:
        source = os.path.join(work, "source")
        expected = make_tree(source, 11)
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            cluster.put(source, "home:/tree")
            round_of(cluster, work, expected, 1, "metad1", "metad2", (0.3, 0.7), True)
            round_of(cluster, work, expected, 2, "metad2", "metad3", (0.4, 0.1), True)
            round_of(cluster, work, expected, 3, "metad3", "metad1", (0.9, 0.55), False)
            wait_until(lambda: level(cluster), 60, "all members hold the same")
            met_while_running(cluster, work)
            read_back(cluster, work, expected, "last")
            for node in ("metad1", "metad2", "metad3"):
                assert '"level":"fatal"' not in cluster.log(node), cluster.log(node)


main()
