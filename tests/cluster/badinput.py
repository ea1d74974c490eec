#!/usr/bin/env python3
"""What a person gets for bad input: a table of input, exit code and words of the text that name what is wrong. None of it
leaves anything half-written, and no process dies of it. Usage: badinput.py BIN_DIR

What configurations, certificates, ports and frames get stands in config.py and refused.py, full disks in fulldisk.py."""

import os
import sys
import tempfile

from cluster import file_sha256, running, wait_until, write_random

LONG_NAME = "n" * 256
DEEP = "/".join(["d"] * 130)


def table(work):
    source = os.path.join(work, "source.bin")
    return [
        # what, arguments, exit code, words of the text
        ("no arguments", ["put"], 2, ["usage"]),
        ("an unknown command", ["fly"], 2, ["fly"]),
        ("an unknown option", ["ls", "--upside-down", "home:/"], 2, ["upside-down"]),
        ("a local path where a remote one belongs", ["ls", "/tmp"], 2, ["WORKSPACE:/path"]),
        ("a file that is not there", ["put", os.path.join(work, "nothing"), "home:/x"], 3, ["nothing"]),
        ("a remote path that does not exist", ["get", "home:/nothing", os.path.join(work, "out")], 3, ["NOT_FOUND"]),
        ("a listing of what does not exist", ["ls", "home:/nothing"], 3, ["NOT_FOUND"]),
        ("a removal of what does not exist", ["rm", "home:/nothing"], 3, ["NOT_FOUND"]),
        ("a name of 256 bytes", ["put", source, "home:/" + LONG_NAME], 2, ["1 to 255 bytes"]),
        ("a path deeper than the limit", ["put", source, "home:/" + DEEP + "/f"], 2, ["TOO_LARGE"]),
        ("a workspace that does not exist", ["ls", "elsewhere:/"], 5, ["DENIED"]),
        ("a folder that is not empty", ["rm", "home:/full"], 4, ["NOT_EMPTY"]),
        ("a folder moved below itself", ["mv", "home:/full", "home:/full/inside"], 4, ["CYCLE"]),
        ("a folder made twice", ["mkdir", "home:/full"], 9, ["EXISTS"]),
        ("a path through a file", ["ls", "home:/full/file/below"], 4, ["NOT_A_FOLDER"]),
        ("leadership to a stranger", ["admin", "node", "transfer", "--group", "0", "--to", "metad7"], 3, ["metad7 is no voter", "admin groups"]),
        ("leadership to no name", ["admin", "node", "transfer", "--to", "blockd1"], 2, ["blockd1", "metad2"]),
        ("leadership of no group", ["admin", "node", "transfer", "--group", "999", "--to", "metad1"], 2, ["admin groups"]),
        ("an unknown change of nodes", ["admin", "node", "explode", "metad4"], 2, ["transfer, add, remove, replace"]),
        ("adding nobody", ["admin", "node", "add"], 2, ["like metad4"]),
        ("adding a block server", ["admin", "node", "add", "blockd9"], 2, ["like metad4"]),
        ("adding without an address", ["admin", "node", "add", "metad9"], 3, ["--address HOST:PORT"]),
        ("adding at no address", ["admin", "node", "add", "metad9", "--address", "nowhere"], 2, ["INVALID"]),
        ("removing a stranger", ["admin", "node", "remove", "metad9"], 3, ["metad9 is not known", "admin nodes"]),
        ("replacing with nobody", ["admin", "node", "replace", "metad1"], 2, ["--with metadM"]),
        ("replacing with itself", ["admin", "node", "replace", "metad1", "--with", "metad1"], 2, ["another metadata node"]),
        ("a token for no role", ["admin", "token", "create"], 2, ["create --role metad"]),
        ("a token for a device", ["admin", "token", "create", "--role", "device"], 2, ["create --role metad"]),
        ("a token that never lives", ["admin", "token", "create", "--role", "metad", "--expires", "0"], 2, ["--expires 0"]),
        ("a token for a year", ["admin", "token", "create", "--role", "metad", "--expires", "99999999"], 2, ["INVALID"]),
        ("no command of the cluster", ["admin", "cluster"], 2, ["init", "join"]),
        ("a cluster nowhere", ["admin", "cluster", "init", "--listen", "127.0.0.1:1"], 2, ["--dir"]),
        ("a cluster at no address", ["admin", "cluster", "init", "--dir", os.path.join(work, "new"), "--listen", "here"], 2, ["HOST:PORT"]),
        ("a cluster of no pool", ["admin", "cluster", "init", "--dir", os.path.join(work, "new"), "--listen", "127.0.0.1:1", "--pool", "raid5"], 2,
         ["rs-K-M"]),
        ("joining without a token", ["admin", "cluster", "join", "--dir", os.path.join(work, "new"), "--listen", "127.0.0.1:1"], 2,
         ["admin token create"]),
        ("joining with half a token", ["admin", "cluster", "join", "--token", "cairn1.AAAA", "--dir", os.path.join(work, "new"), "--listen",
                                       "127.0.0.1:1"], 2, ["not a whole one"]),
        ("joining where there is no parent", ["admin", "cluster", "init", "--dir", os.path.join(work, "no", "parent"), "--listen", "127.0.0.1:1"],
         1, ["make its parent first"]),
        ("recovering nothing", ["admin", "cluster", "recover"], 2, ["--dir DIR"]),
        ("recovering what is no node", ["admin", "cluster", "recover", "--dir", work], 3, ["node.toml", "metadata node"]),
        ("losing a majority at will", ["admin", "cluster", "init", "--unsafe-lose-majority", "--dir", os.path.join(work, "new"), "--listen",
                                       "127.0.0.1:1"], 2, ["belongs to 'recover'"]),
        ("a cursor of no number", ["changes", "home", "--cursor", "1:x"], 2, ["--cursor 1:x"]),
        ("a cursor of another past", ["changes", "home", "--cursor", "77:1"], 4, ["CURSOR_EXPIRED"]),
        ("no configuration", ["--config", os.path.join(work, "no.toml"), "ls", "home:/"], 2, ["no.toml"]),
    ]


def refuse(cluster, what, arguments, code, words):
    if arguments[0] == "--config":
        arguments = [arguments[2], arguments[0], arguments[1], *arguments[3:]]
    process = cluster.start(*arguments)
    out, err = process.communicate(timeout=120)
    text = (out + err).decode(errors="replace")
    assert process.returncode == code, "%s: exit code %d, not %d\n%s" % (what, process.returncode, code, text)
    for word in words:
        assert word in text, "%s: the text does not say %r:\n%s" % (what, word, text)


def few_nodes(cluster, work):
    """Five stores down: nothing can be written safely. Two metadata nodes down: no quorum. Both come back by themselves."""
    fresh = os.path.join(work, "fresh.bin")
    write_random(fresh, 300000, 99)
    for i in range(1, 6):
        cluster.kill("blockd%d" % i)
    refuse(cluster, "too few stores", ["put", fresh, "home:/fresh", "--timeout", "8"], 7, ["UNAVAILABLE"])
    refuse(cluster, "nothing half-written", ["stat", "home:/fresh"], 3, ["NOT_FOUND"])
    for i in range(1, 6):
        cluster.start_node("blockd%d" % i)
    cluster.kill("metad1")
    cluster.kill("metad2")
    refuse(cluster, "no quorum", ["ls", "home:/", "--timeout", "5"], 7, ["cairn"])
    cluster.start_node("metad1")
    cluster.start_node("metad2")
    wait_until(lambda: cluster.run("ls", "home:/", codes=(0, 7))[0] == 0, 60, "a quorum")
    cluster.put(fresh, "home:/fresh")


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-bad-") as work:
        source = os.path.join(work, "source.bin")
        write_random(source, 4000000, 7)
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            cluster.run("mkdir", "home:/full")
            cluster.put(source, "home:/full/file")
            cluster.put(source, "home:/source.bin")
            for row in table(work):
                refuse(cluster, *row)
            few_nodes(cluster, work)
            assert len(cluster.alive()) == 9, cluster.alive()
            back = os.path.join(work, "back.bin")
            cluster.get("home:/source.bin", back)
            assert file_sha256(back) == file_sha256(source)
    print("bad input: every row has its code")


main()
