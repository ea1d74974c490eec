#!/usr/bin/env python3
"""What people get wrong when they start a node: each mistake ends the program at once with its exit code and a text that
names the file and the next step. Usage: config.py BIN_DIR"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

from cluster import Cluster


class Node:
    """One daemon's directory as `cairn dev` made it, to be spoiled and started in the foreground."""

    def __init__(self, bin_dir, role, directory, work):
        self.program = os.path.join(os.path.abspath(bin_dir), role)
        with open(os.path.join(directory, "node.toml"), encoding="utf-8") as f:
            self.text = f.read()
        self.directory, self.work, self.role = directory, work, role

    def start(self, text, *more):
        """(exit code, stderr) of the program with this configuration; it must end by itself."""
        path = os.path.join(self.work, "spoiled.toml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        result = subprocess.run([self.program, "--config", path, *more], capture_output=True, timeout=60, check=False)
        return result.returncode, result.stderr.decode() + result.stdout.decode()

    def value(self, key):
        return re.search(r'^%s = \[?"([^"]*)"' % key, self.text, re.M).group(1)

    def with_value(self, key, value):
        return re.sub(r"^%s = .*$" % key, lambda _: "%s = %s" % (key, value), self.text, count=1, flags=re.M)

    def refuse(self, what, text, code, *parts):
        got, output = self.start(text)
        assert got == code, "%s %s: exit code %d, not %d: %s" % (self.role, what, got, code, output)
        for part in parts:
            assert part in output, "%s %s: says %r, not %r" % (self.role, what, output, part)
        print("%s: %s: %s" % (self.role, what, output.strip().splitlines()[-1]))


def quoted(text):
    return '"%s"' % text


def common_mistakes(node, data_key, data_value):
    code, output = node.start(node.text, "--check-config")
    assert code == 0, output
    node.refuse("an unknown key", node.text + "lisen = 1\n", 2, "spoiled.toml: line ", "did you mean 'listen'?")
    node.refuse("no node number", node.text.replace("node = ", "# node = "), 2, "'node' is missing")
    node.refuse("no TOML", "node: 1\n", 2, "line 1")
    node.refuse("the role of another program", node.with_value("role", quoted("device")), 2, "role is 'device'")
    node.refuse("an address without port", node.with_value("listen", quoted("localhost")), 2, "listen")
    node.refuse("a certificate that is not there", node.with_value("cert", quoted("/nonexistent.crt")), 2, "/nonexistent.crt")
    node.refuse("the key of another certificate", node.with_value("key", quoted(os.path.join(node.directory, "../client.key"))), 2)
    stranger = os.path.join(node.work, "stranger-" + node.role)
    os.makedirs(stranger)
    with open(os.path.join(stranger, "letter.txt"), "w", encoding="utf-8") as f:
        f.write("not yours\n")
    node.refuse("a folder of a person", node.with_value(data_key, data_value(stranger)), 1, "NOT_OURS", stranger)
    assert os.listdir(stranger) == ["letter.txt"], os.listdir(stranger)


def live_mistakes(node, other_data, data_key, data_value):
    """With the cluster running: its port, its directory, and the directory of a neighbour."""
    fresh = os.path.join(node.work, "fresh-" + node.role)
    node.refuse("a port in use", node.with_value(data_key, data_value(fresh)), 1, "IN_USE", node.value("listen"))
    node.refuse("a directory in use", node.with_value("listen", quoted("127.0.0.1:0")), 1, "IN_USE")
    copy = os.path.join(node.work, "copy-" + node.role)
    shutil.copytree(other_data, copy)
    node.refuse("the directory of a neighbour", node.with_value(data_key, data_value(copy)), 1, "NOT_OURS")


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-config-") as work:
        cluster = Cluster(sys.argv[1], os.path.join(work, "cluster"))
        cluster.up()
        try:
            metad = Node(sys.argv[1], "metad", os.path.join(cluster.dir, "metad1"), work)
            blockd = Node(sys.argv[1], "blockd", os.path.join(cluster.dir, "blockd1"), work)
            for node, key, value, data in ((metad, "data", quoted, "data"), (blockd, "stores", lambda d: "[" + quoted(d) + "]", "store1")):
                common_mistakes(node, key, value)
                live_mistakes(node, os.path.join(node.directory[:-1] + "2", data), key, value)
            assert len(cluster.alive()) == 9
            key = metad.value("cluster_key")
            os.chmod(key, 0o644)
            metad.refuse("a cluster key that others may read", metad.text, 2, "chmod 600")
            os.chmod(key, 0o600)
        finally:
            cluster.down()


main()
