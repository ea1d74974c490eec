#!/usr/bin/env python3
"""The contract of `cairn dev`: what it makes, what it prints, whom it never touches. Usage: dev.py BIN_DIR"""

import os
import signal
import subprocess
import sys
import tempfile

from cluster import Cluster, wait_until


def mode(path):
    return os.stat(path).st_mode & 0o777


def check_files(cluster):
    assert mode(cluster.dir) == 0o700
    for here, _, names in os.walk(cluster.dir):
        for name in names:
            if name.endswith((".key", ".toml", ".keys", "log")) and "/data" not in here and "/store" not in here:
                assert mode(os.path.join(here, name)) == 0o600, os.path.join(here, name)


def check_ps(cluster):
    nodes = cluster.ps()
    assert [n["name"] for n in nodes] == ["metad1", "metad2", "metad3"] + ["blockd%d" % i for i in range(1, 7)]
    for node in nodes:
        assert node["alive"] and node["role"] == node["name"][:-1]
        with open("/proc/%d/cmdline" % node["pid"], "rb") as f:
            assert f.read().split(b"\0")[0].decode() == node["role"]
        assert os.path.isdir(node["data_dir"]), node
    return nodes


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-dev-") as work:
        cluster = Cluster(sys.argv[1], os.path.join(work, "a \"quoted\" cluster"))
        assert cluster.dev("ps", codes=(3,))[0] == 3
        assert cluster.dev("up", "--blockd", "3", codes=(2,))[0] == 2
        cluster.up()
        try:
            check_files(cluster)
            nodes = check_ps(cluster)
            cluster.up()
            assert check_ps(cluster) == nodes, "a second 'up' replaced nodes"

            cluster.kill("blockd2")
            assert "blockd2" not in cluster.alive() and len(cluster.alive()) == 8
            dead = next(n for n in cluster.ps() if n["name"] == "blockd2")
            assert dead["pid"] is None and dead["addr"] == nodes[4]["addr"]
            assert cluster.dev("kill", "blockd9", codes=(3,))[0] == 3
            cluster.start_node("blockd2")
            assert len(cluster.alive()) == 9

            # A pid file whose process is another one by now: nobody is signalled.
            bystander = subprocess.Popen(["sleep", "1000"])
            record = os.path.join(cluster.dir, "blockd3", "pid")
            with open(record, encoding="utf-8") as f:
                saved = f.read()
            with open(record, "w", encoding="utf-8") as f:
                f.write("%d %s" % (bystander.pid, saved.split(" ", 1)[1]))
            cluster.kill("blockd3")
            assert bystander.poll() is None, "a bystander was killed"
            bystander.kill()
            bystander.wait()
            with open(record, "w", encoding="utf-8") as f:
                f.write(saved)
            assert len(cluster.alive()) == 9

            # A stopped node does not end on SIGTERM; 'down' ends it all the same.
            os.kill(next(n["pid"] for n in cluster.ps() if n["name"] == "blockd4"), signal.SIGSTOP)
        finally:
            cluster.down()
        wait_until(lambda: cluster.alive() == [], 10, "no node alive")
        assert [n["addr"] for n in cluster.ps()] == [n["addr"] for n in nodes]

        other = os.path.join(work, "other")
        os.makedirs(other)
        with open(os.path.join(other, "letter.txt"), "w", encoding="utf-8") as f:
            f.write("not yours\n")
        process = subprocess.run([cluster.cairn, "dev", "up", "--dir", other], capture_output=True, check=False)
        assert process.returncode == 1 and b"NOT_OURS" in process.stderr, process
        assert os.listdir(other) == ["letter.txt"]


main()
