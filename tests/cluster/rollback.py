#!/usr/bin/env python3
"""The directory of a block server is put back from an older copy: same uuid, same receipt key, fewer shards. The cluster
notices (R-B2), gives the store a new incarnation, and fills what it lacks; everything reads back the same, also without
two others. The copy of a stopped server, put back as it was, is no news. Usage: rollback.py BIN_DIR"""

import os
import shutil
import sys
import tempfile

from cluster import compare, running, tree_sha256, wait_until
from repair import make, missing, stores, whole

SEED = 50111
OLD = "blockd3"
OTHERS = ("blockd1", "blockd6")


def data_dir(cluster, name):
    return next(node["data_dir"] for node in cluster.ps() if node["name"] == name)


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-rollback-") as work:
        trees = {name: os.path.join(work, name) for name in ("before", "after")}
        expected = {name: make(tree, 8, SEED + i * 1000) for i, (name, tree) in enumerate(trees.items())}
        copy = os.path.join(work, "copy")
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            place = data_dir(cluster, OLD)
            cluster.put(trees["before"], "home:/before", timeout=900)
            first = stores(cluster)[OLD]["incarnation"]
            wait_until(lambda: stores(cluster)[OLD]["synced_shards"] >= 10, 60, "a heartbeat behind the put")
            synced = stores(cluster)[OLD]["synced_shards"]
            cluster.kill(OLD)
            shutil.copytree(place, copy)
            cluster.start_node(OLD)
            # A count since the start: it is of the new process, and what it says it holds is what the copy holds.
            wait_until(lambda: stores(cluster)[OLD]["synced_shards"] < synced, 120, "a heartbeat of the new process")
            wait_until(lambda: whole(cluster), 120, "every chunk whole")
            assert stores(cluster)[OLD]["incarnation"] == first and stores(cluster)[OLD]["rollbacks"] == 0

            held = stores(cluster)[OLD]["shards"]
            cluster.put(trees["after"], "home:/after", timeout=900)
            assert whole(cluster), missing(cluster)
            # Only what a heartbeat has told can be missed later.
            wait_until(lambda: stores(cluster)[OLD]["shards"] > held, 60, "a heartbeat behind the second put")
            cluster.kill(OLD)
            shutil.rmtree(place)
            shutil.copytree(copy, place)
            cluster.start_node(OLD)
            wait_until(lambda: stores(cluster)[OLD]["rollbacks"] == 1, 120, "the cluster to notice")
            store = stores(cluster)[OLD]
            assert store["incarnation"] != first, store
            wait_until(lambda: whole(cluster) and stores(cluster)[OLD]["rebuilt"] > 0, 120, "the store to be filled")
            print("%s: incarnation %d, then %d; %d shards rebuilt" %
                  (OLD, first, store["incarnation"], stores(cluster)[OLD]["rebuilt"]), flush=True)

            cluster.kill(OLD)  # it keeps the new one
            cluster.start_node(OLD)
            wait_until(lambda: whole(cluster), 120, "every chunk whole")
            again = stores(cluster)[OLD]
            assert again["incarnation"] == store["incarnation"] and again["rollbacks"] == 1, again
            for name in OTHERS:
                cluster.kill(name)
            for name, files in expected.items():
                back = os.path.join(work, "back-" + name)
                cluster.get("home:/" + name, back, timeout=900)
                compare(files, tree_sha256(back))


main()
