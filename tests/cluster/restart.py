#!/usr/bin/env python3
"""A tree goes in and comes out the same, also after all nodes ended in order and started again, and after all were
killed at once, one of them with a damaged note of what it was told. Usage: restart.py BIN_DIR"""

import os
import sys
import tempfile

from cluster import compare, flip_byte, make_tree, running, tree_sha256, wait_until


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-restart-") as work:
        source = os.path.join(work, "source")
        expected = make_tree(source, 7)
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            moved = cluster.put(source, "home:/tree")
            assert moved["files"] == len(expected), moved
            assert moved["safe_losses"] >= 1, moved
            cluster.get("home:/tree", os.path.join(work, "first"))
            compare(expected, tree_sha256(os.path.join(work, "first")))

            again = cluster.put(source, "home:/tree")
            assert again["bytes_sent"] == 0, again

            cluster.down()
            assert cluster.alive() == []
            cluster.up()
            assert len(cluster.alive()) == 9
            cluster.get("home:/tree", os.path.join(work, "second"))
            compare(expected, tree_sha256(os.path.join(work, "second")))

            for node in cluster.ps():
                cluster.kill(node["name"])
            assert cluster.alive() == []
            standing = os.path.join(next(n["data_dir"] for n in cluster.ps() if n["name"] == "blockd2"), "standing")
            flip_byte(standing, os.path.getsize(standing) // 2)
            damaged = contents(standing)
            cluster.up()
            assert "not believed" in cluster.log("blockd2") and "not believed" not in cluster.log("blockd1")
            # Served already, it may not have written down yet what it was told since.
            wait_until(lambda: contents(standing) != damaged, 30, "a standing that is written anew")
            cluster.get("home:/tree", os.path.join(work, "third"))
            compare(expected, tree_sha256(os.path.join(work, "third")))
        assert cluster.alive() == []


main()
