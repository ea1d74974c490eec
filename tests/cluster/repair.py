#!/usr/bin/env python3
"""Two block servers die, files are put without them, they return: they fill what their slots lack, so that two others
may die then and everything still reads back the same. Usage: repair.py BIN_DIR [MEGABYTES]"""

import os
import sys
import tempfile

from cluster import compare, running, tree_sha256, wait_until, write_random

SEED = 40961
DEAD = ("blockd2", "blockd5")
OTHERS = ("blockd1", "blockd4")
SIZES = (5000, 30000, 64 << 10, 1 << 20, 3000001)


def make(root, megabytes, seed):
    for i in range(20):
        write_random(os.path.join(root, "%02d.bin" % i), SIZES[i % len(SIZES)] + i, seed + i)
    write_random(os.path.join(root, "large.bin"), megabytes << 20, seed + 20)
    return tree_sha256(root)


def stores(cluster):
    return {line["node"]: line for line in cluster.lines("admin", "stores")}


def down(cluster):
    return sorted(node for node, store in stores(cluster).items() if store["state"] == "down")


def missing(cluster):
    return cluster.lines("admin", "status")[-1]["chunks_by_missing"]


def whole(cluster):
    """True when every chunk is; the map counts, so that stores the map calls down leave chunks missing."""
    found = missing(cluster)
    return found is not None and set(found) == {"0"} and found["0"] > 0


def told(cluster, words):
    """True when each metadata node's log says so of each of the dead."""
    logs = [[line for line in cluster.log("metad%d" % n).splitlines() if words in line] for n in (1, 2, 3)]
    return all(any("blockd:%s " % name[-1] in line for line in lines) for lines in logs for name in DEAD)


def main():
    megabytes = int(sys.argv[2]) if len(sys.argv) > 2 else 24
    with tempfile.TemporaryDirectory(prefix="cairn-repair-") as work:
        trees = {name: os.path.join(work, name) for name in ("before", "during")}
        expected = {name: make(tree, megabytes, SEED + i * 1000) for i, (name, tree) in enumerate(trees.items())}
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            cluster.put(trees["before"], "home:/before", timeout=900)
            assert whole(cluster), missing(cluster)
            for name in DEAD:
                cluster.kill(name)
            wait_until(lambda: down(cluster) == sorted(DEAD), 60, "two stores down")
            wait_until(lambda: told(cluster, "is not heard: down"), 30, "every metadata node to say so")
            moved = cluster.put(trees["during"], "home:/during", timeout=900)
            assert moved["safe_losses"] >= 1, moved
            degraded = missing(cluster)
            assert degraded.get("2", 0) > 0, degraded
            print("without %s: %s" % (" and ".join(DEAD), degraded), flush=True)

            for name in DEAD:
                cluster.start_node(name)
            wait_until(lambda: whole(cluster), 120, "every chunk whole")
            wait_until(lambda: told(cluster, "is up again"), 30, "every metadata node to say that they are up")
            wait_until(lambda: all(stores(cluster)[name]["rebuilt"] > 0 for name in DEAD), 60, "both to have rebuilt")
            for name in DEAD:
                store = stores(cluster)[name]
                assert store["corrupt"] == 0, store
                print("%s: %d shards, %d of them rebuilt" % (name, store["shards"], store["rebuilt"]), flush=True)

            for name in OTHERS:
                cluster.kill(name)
            for name, files in expected.items():
                back = os.path.join(work, "back-" + name)
                cluster.get("home:/" + name, back, timeout=900)
                compare(files, tree_sha256(back))


if __name__ == "__main__":
    main()
