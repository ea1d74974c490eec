#!/usr/bin/env python3
"""What the outside of a cluster shows: every port on loopback only, keys and data readable by their owner only, and no plain
text and no name in any block server's directory. Usage: closed.py BIN_DIR"""

import os
import re
import stat
import sys
import tempfile

from cluster import running

PLANTED = b"planted plain text that no disk of a block server may show, "
NAME = "planted-name-of-a-file"


def listening_addresses(pids):
    """(address, port) of every TCP socket that these processes listen on, from /proc."""
    inodes = set()
    for pid in pids:
        for fd in os.listdir("/proc/%d/fd" % pid):
            try:
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink("/proc/%d/fd/%s" % (pid, fd)))
            except OSError:
                continue
            if match:
                inodes.add(match.group(1))
    found = []
    for table, loopback in (("/proc/net/tcp", "0100007F"), ("/proc/net/tcp6", "00000000000000000000000001000000")):
        with open(table, encoding="ascii") as f:
            for line in f.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    found.append((fields[1].split(":")[0] == loopback, fields[1]))
    return found


def check_ports(cluster):
    ports = listening_addresses([node["pid"] for node in cluster.ps()])
    assert len(ports) == 9, ports
    for loopback, address in ports:
        assert loopback, address


def check_modes(cluster):
    for root, _, files in os.walk(cluster.dir):
        assert stat.S_IMODE(os.stat(root).st_mode) & 0o077 == 0 or root == cluster.dir, root
        for name in files:
            path = os.path.join(root, name)
            mode = stat.S_IMODE(os.stat(path).st_mode)
            secret = name.endswith(".key") or name.endswith(".keys") or "/store" in root or "/data" in root
            if secret and "/kv" not in root:
                assert mode & 0o077 == 0, "%s has mode %o" % (path, mode)


def search(root, needles):
    for directory, _, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            with open(path, "rb") as f:
                tail = b""
                while block := f.read(1 << 20):
                    for needle in needles:
                        assert needle not in tail + block, "%s shows %r" % (path, needle)
                    tail = block[-128:]


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-closed-") as work:
        source = os.path.join(work, NAME)
        with open(source, "wb") as f:
            f.write(PLANTED * 40000)
        small = os.path.join(work, NAME + "-small")
        with open(small, "wb") as f:
            f.write(PLANTED * 10)
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            cluster.put(source, "home:/" + NAME)
            cluster.put(small, "home:/" + NAME + "-small")
            check_ports(cluster)
            check_modes(cluster)
            names = [node["name"] for node in cluster.ps()]
            cluster.down()
            for name in names:
                needles = [PLANTED[:24]] if name.startswith("metad") else [PLANTED[:24], NAME.encode()]
                search(os.path.join(cluster.dir, name), needles)
            cluster.up()
    print("closed: ports on loopback, secrets private, nothing plain on a block server's disk")


main()
