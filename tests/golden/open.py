#!/usr/bin/env python3
"""Each golden archive is opened by this tree's programs: the cluster in it comes up, on other ports and in another place,
and tells a client what it told when it was made; then it takes writes, and comes up again. In one of its stores the
index is rebuilt from the segments.

usage: open.py BIN_DIR"""
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cluster"))

from cluster import Cluster, Failed, running, wait_until  # noqa: E402
from told import told  # noqa: E402


def formats(bin_dir):
    text = subprocess.run([os.path.join(bin_dir, "metad"), "--version"], capture_output=True, text=True, check=True).stdout
    return "metad-%s.store-%s" % re.search(r"metad directory (\d+), store directory (\d+)", text).groups()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def settle(directory, before):
    """Configurations name this place and free ports instead of those they were made with."""
    with open(os.path.join(directory, "dev.toml"), encoding="utf-8") as stream:
        old = re.search(r"^ports = \[(.*)\]", stream.read(), re.M).group(1).split(", ")
    new = dict(zip(old, map(str, free_ports(len(old)))))
    for path in glob.glob(directory + "/*.toml") + glob.glob(directory + "/*/node.toml"):
        with open(path, encoding="utf-8") as stream:
            text = stream.read().replace(before, directory)
        text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: "127.0.0.1:" + new[found.group(1)], text)
        text = re.sub(r"^(ports = )\[.*\]", lambda found: found.group(1) + "[%s]" % ", ".join(new[port] for port in old), text, flags=re.M)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def check_told(cluster, expected, back, what):
    found = told(cluster, back)
    for key in ("files", "links", "entries", "changes"):
        if found[key] != expected[key]:
            raise Failed("%s: %s differ:\n%s\n%s" % (what, key, json.dumps(expected[key])[:2000], json.dumps(found[key])[:2000]))
    shutil.rmtree(back)


def replicas_agree(cluster):
    """All members applied what the leader did; one whose digest differs would have halted (R-E6)."""
    groups = cluster.groups()
    return len(groups) == 2 and all(member["answered"] and member["applied"] == group["applied"]
                                    for group in groups for member in group["members"])


def open_archive(bin_dir, archive, scratch):
    directory = os.path.join(scratch, "cluster")
    with tarfile.open(archive) as tar:
        tar.extractall(directory)
    with open(os.path.join(directory, "told.json"), encoding="utf-8") as stream:
        expected = json.load(stream)
    settle(directory, expected["directory"])
    shutil.rmtree(os.path.join(directory, "blockd1", "store1", "kv"))
    back, extra = os.path.join(scratch, "back"), os.path.join(scratch, "extra")
    with running(bin_dir, directory) as cluster:
        check_told(cluster, expected, back, archive)
        wait_until(lambda: replicas_agree(cluster), 60, "all replicas to have applied the same")
        cluster.kill("blockd2")  # the rebuilt store's shards are needed now
        check_told(cluster, expected, back, archive + ", a store down")
        cluster.start_node("blockd2")
        with open(extra, "w", encoding="utf-8") as stream:
            stream.write("one more\n")
        cluster.put(extra, "home:/extra")
        more = cluster.lines("changes", "home", "--cursor", "0")
        assert more[: len(expected["changes"])] == expected["changes"] and len(more) == len(expected["changes"]) + 1, more[-2:]
    with running(bin_dir, directory) as cluster:
        assert cluster.run("cat", "home:/extra")[1] == "one more\n"
        assert cluster.run("cat", "home:/kept/moved.txt")[1].startswith("0,0\n1,1\n2,4\n")
    check_newer_refused(bin_dir, directory)


def check_newer_refused(bin_dir, directory):
    """A directory that a later program wrote is left as it is."""
    for program, data in (("metad", "metad1/data/directory"), ("blockd", "blockd1/store1/store")):
        path = os.path.join(directory, data)
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(re.sub(r"^format = .*\n", "", text, flags=re.M) + "format = 999\n")
        config = os.path.join(directory, data.split("/")[0], "node.toml")
        done = subprocess.run([os.path.join(bin_dir, program), "--config", config], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and "newer program" in done.stdout + done.stderr, (program, done)


def main():
    bin_dir = sys.argv[1]
    archives = sorted(glob.glob(os.path.join(HERE, "*.tar.xz")))
    present = os.path.join(HERE, formats(bin_dir) + ".tar.xz")
    assert present in archives, "no golden archive of the present formats: tests/golden/make.py BIN_DIR makes %s" % present
    for archive in archives:
        with tempfile.TemporaryDirectory(prefix="cairn-golden-") as scratch:
            open_archive(bin_dir, archive, scratch)
        print("%s: opened, all told as when it was made" % os.path.basename(archive), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
