#!/usr/bin/env python3
"""Each golden archive is opened by this tree's programs: the cluster in it comes up, on other ports and in another place,
and tells a client what it told when it was made; then it takes writes, and comes up again. In one of its stores the
index is rebuilt from the segments; later in all, and each is what it was (R-A4).

usage: open.py BIN_DIR"""
import concurrent.futures
import contextlib
import glob
import json
import os
import random
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
from repair import whole  # noqa: E402
from told import told  # noqa: E402


def formats(bin_dir):
    text = subprocess.run([os.path.join(bin_dir, "metad"), "--version"], capture_output=True, text=True, check=True).stdout
    return "metad-%s.store-%s" % re.search(r"metad directory (\d+), store directory (\d+)", text).groups()


def free_ports(count, taken):
    """Ports that nobody uses now and that the system hands to no outgoing connection; they go into `taken`."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as stream:
        low = int(stream.read().split()[0])
    ports = []
    while len(ports) < count:
        port = random.randrange(10000, max(low, 20000))
        with contextlib.suppress(OSError), socket.socket() as each:
            each.bind(("127.0.0.1", port))
            if port not in taken:
                taken.add(port)
                ports.append(port)
    return ports


def settle(directory, before, taken):
    """Configurations name this place and free ports instead of those they were made with."""
    with open(os.path.join(directory, "dev.toml"), encoding="utf-8") as stream:
        old = re.search(r"^ports = \[(.*)\]", stream.read(), re.M).group(1).split(", ")
    new = dict(zip(old, map(str, free_ports(len(old), taken))))
    for path in glob.glob(directory + "/*.toml") + glob.glob(directory + "/*/node.toml"):
        with open(path, encoding="utf-8") as stream:
            text = stream.read().replace(before, directory)
        text = re.sub(r"127\.0\.0\.1:(\d+)", lambda found: "127.0.0.1:" + new[found.group(1)], text)
        text = re.sub(r"^(ports = )\[.*\]", lambda found: found.group(1) + "[%s]" % ", ".join(new[port] for port in old), text, flags=re.M)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)


def same(kept, found):
    """Equal, but for fields of a line that did not exist when it was kept."""
    if not isinstance(kept, list):
        return kept == found
    return len(kept) == len(found) and all({key: now.get(key) for key in line} == line for line, now in zip(kept, found))


def check_told(cluster, expected, back, what):
    found = told(cluster, back)
    for key in ("files", "links", "entries", "changes"):
        if not same(expected[key], found[key]):
            raise Failed("%s: %s differ:\n%s\n%s" % (what, key, json.dumps(expected[key])[:2000], json.dumps(found[key])[:2000]))
    shutil.rmtree(back)


def replicas_agree(cluster):
    """All members applied what the leader did; one whose digest differs would have halted (R-E6)."""
    groups = cluster.groups()
    return len(groups) == 2 and all(member["answered"] and member["applied"] == group["applied"]
                                    for group in groups for member in group["members"])


def settled(cluster):
    """And no store lacks anything, so that none pulls."""
    return replicas_agree(cluster) and whole(cluster)


def identities(directory):
    out = {}
    for path in sorted(glob.glob(directory + "/metad*/data/directory") + glob.glob(directory + "/blockd*/store1/store")):
        with open(path, encoding="utf-8") as stream:
            out[os.path.relpath(path, directory)] = stream.read()
    return out


def check_identities(bin_dir, before, after):
    """One of the present format stays as it is, byte for byte; of one of an older format only the number is another."""
    now = dict(zip(("metad", "blockd"), re.findall(r"\d+", formats(bin_dir))))
    for path, text in before.items():
        want = re.sub(r"^format = .*$", "format = " + now[path.split("/")[0].rstrip("0123456789")], text, flags=re.M)
        assert after[path] == want, "%s was\n%sand is\n%s" % (path, text, after[path])


def check_number(cluster, expected):
    """An idempotency number that was used then lets no other request through (R-D6)."""
    keys = os.path.join(cluster.dir, "client.keys")
    for text, act in ((expected["numbers"]["used"], True), (expected["numbers"]["next"], False)):
        with open(keys, "w", encoding="utf-8") as stream:
            stream.write(text)
        if act:
            process = cluster.start("mkdir", "home:/never made")
            _, err = process.communicate(timeout=60)
            assert process.returncode != 0 and b"KEY_REUSED" in err, (process.returncode, err)


def check_digest_told(cluster):
    """Behind the entry that holds a digest (R-E6): its group's leader put it there at the start, and nobody halted."""
    for node in cluster.ps():
        bad = [line for line in cluster.log(node["name"]).splitlines() if re.search(r'"level":"(error|fatal)"|"code":"CORRUPT"', line)]
        assert node["alive"] and not bad, (node, bad)


def index_digests(bin_dir, directory):
    """{store: count and digest of its index}, of block servers that have ended."""
    return {path: subprocess.run([os.path.join(bin_dir, "index-digest"), path], capture_output=True, text=True, check=True, timeout=60).stdout
            for path in sorted(glob.glob(directory + "/blockd*/store1/kv"))}


def check_archive(bin_dir, archive, directory, expected, scratch):
    os.makedirs(scratch)
    shutil.rmtree(os.path.join(directory, "blockd1", "store1", "kv"))
    back, extra = os.path.join(scratch, "back"), os.path.join(scratch, "extra")
    before = identities(directory)
    with running(bin_dir, directory) as cluster:
        check_told(cluster, expected, back, archive)
        wait_until(lambda: settled(cluster), 60, "all replicas to have applied the same, all chunks to be whole")
        if "numbers" in expected:
            check_number(cluster, expected)
        cluster.kill("blockd2")  # the rebuilt store's shards are needed now
        check_told(cluster, expected, back, archive + ", a store down")
        cluster.start_node("blockd2")
        with open(extra, "w", encoding="utf-8") as stream:
            stream.write("one more\n")
        cluster.put(extra, "home:/extra")
        more = cluster.lines("changes", "home", "--cursor", "0")
        assert same(expected["changes"], more[:-1]), more[-2:]
        wait_until(lambda: settled(cluster), 60, "the same behind the last write")
        check_digest_told(cluster)
    check_identities(bin_dir, before, identities(directory))
    kept = index_digests(bin_dir, directory)
    for path in kept:
        shutil.rmtree(path)
    with running(bin_dir, directory) as cluster:
        assert cluster.run("cat", "home:/extra")[1] == "one more\n"
        assert cluster.run("cat", "home:/kept/moved.txt")[1].startswith("0,0\n1,1\n2,4\n")
        wait_until(lambda: settled(cluster), 60, "all stores to have recovered")
    assert index_digests(bin_dir, directory) == kept and not any(text.startswith("0 ") for text in kept.values()), kept
    check_newer_refused(bin_dir, directory)


def write_sparse(stream, path, size):
    """Blocks of zeros are left out: most of a segment is zeros, and the disk is not to be busy with them."""
    with open(path, "wb") as out:
        os.fchmod(out.fileno(), 0o600)
        while block := stream.read(1 << 16):
            if block.count(0) == len(block):
                out.seek(len(block), os.SEEK_CUR)
            else:
                out.write(block)
        out.truncate(size)


def unpack(archive, directory, taken):
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.size > 1 << 20:
                write_sparse(tar.extractfile(member), os.path.join(directory, member.name), member.size)
            else:
                tar.extract(member, directory)
    with open(os.path.join(directory, "told.json"), encoding="utf-8") as stream:
        expected = json.load(stream)
    settle(directory, expected["directory"], taken)
    return expected


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
    taken, checks = set(), {}
    with tempfile.TemporaryDirectory(prefix="cairn-golden-") as scratch, concurrent.futures.ThreadPoolExecutor(len(archives)) as pool:
        for archive in archives:  # beside each other: most of it is waiting
            directory = os.path.join(scratch, os.path.basename(archive))
            expected = unpack(archive, directory, taken)
            checks[archive] = pool.submit(check_archive, bin_dir, archive, directory, expected, directory + "-work")
        for archive, check in checks.items():
            check.result()
            print("%s: opened, all told as when it was made" % os.path.basename(archive), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
