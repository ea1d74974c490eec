#!/usr/bin/env python3
"""Edits of a large file send little: a byte inserted at the front, one changed in the middle, bytes cut out; the same
through a pipe. What is sent is printed and bounded, the client's memory too, and all is read back and compared.
Usage: cut.py BIN_DIR [MIB]"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile

from cluster import compare, file_sha256, flip_byte, insert_byte, running, tree_sha256, write_random

MOST_SENT = 14 << 20  # two largest chunks with their parity, and some
MOST_RSS = 256 << 20
# A sanitizer keeps freed memory back; here only what the client holds counts.
os.environ["ASAN_OPTIONS"] = "quarantine_size_mb=8"
TEXT = "/usr/share/perl"


def cut_out(path, at, count):
    """`count` bytes at `at` are gone."""
    with open(path, "rb") as old, open(path + ".new", "wb") as new:
        left = at
        while left:  # in small blocks: what this process takes at most, its children are counted to have taken
            block = old.read(min(left, 1 << 20))
            new.write(block)
            left -= len(block)
        old.seek(count, os.SEEK_CUR)
        shutil.copyfileobj(old, new, 1 << 20)
    os.replace(path + ".new", path)


def put_pipe(cluster, path, target):
    environment = dict(os.environ, CAIRN_CONFIG=cluster.config)
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
        done = subprocess.run([cluster.cairn, "put", "-", target, "--json"], stdin=cat.stdout, stdout=subprocess.PIPE,
                              env=environment, timeout=600, check=True)
    return done.stdout


def main():
    mib = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    with tempfile.TemporaryDirectory(prefix="cairn-cut-") as work:
        large = os.path.join(work, "large.bin")
        write_random(large, mib << 20, 11)
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            first = cluster.put(large, "home:/large.bin", timeout=600)
            print("first: %(chunks)d chunks, %(bytes_sent)d bytes sent, %(seconds).1f s" % first)
            # the law of large numbers: a mean far from 1 MiB is another cutter
            assert mib * 0.6 < first["chunks"] < mib * 1.6, first
            edits = [
                ("one byte inserted at the front", lambda: insert_byte(large, 0)),
                ("one byte changed in the middle", lambda: flip_byte(large, os.path.getsize(large) // 2)),
                ("1000 bytes cut out at a third", lambda: cut_out(large, os.path.getsize(large) // 3, 1000)),
            ]
            sums = []
            for what, edit in edits:
                edit()
                moved = cluster.put(large, "home:/large.bin", timeout=600)
                sums.append(moved["bytes_sent"])
                print("%s: %d of %d chunks, %d bytes sent" % (what, moved["chunks"] - moved["chunks_present"], moved["chunks"], moved["bytes_sent"]))
                assert 0 < moved["bytes_sent"] <= MOST_SENT, moved
                assert moved["chunks"] - moved["chunks_present"] <= 4, moved
                cluster.get("home:/large.bin", os.path.join(work, "back.bin"), timeout=600)
                assert file_sha256(large) == file_sha256(os.path.join(work, "back.bin")), what
            assert sorted(sums)[1] <= 6 << 20, sums
            put_pipe(cluster, large, "home:/piped.bin")
            again = cluster.put(large, "home:/piped.bin", timeout=600)
            assert again["bytes_sent"] == 0, "a pipe is cut otherwise than a file: %r" % again
            cluster.get("home:/piped.bin", os.path.join(work, "back.bin"), timeout=600)
            assert file_sha256(large) == file_sha256(os.path.join(work, "back.bin"))
            rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
            print("most memory of a client: %d MiB" % (rss >> 20))
            assert rss < MOST_RSS, rss
            if os.path.isdir(TEXT):
                moved = cluster.put(TEXT, "home:/text", timeout=600)
                print("text: %(files)d files, %(bytes)d bytes, %(bytes_sent)d sent" % moved)
                cluster.get("home:/text", os.path.join(work, "text"), timeout=600)
                compare(tree_sha256(TEXT), tree_sha256(os.path.join(work, "text")))


main()
