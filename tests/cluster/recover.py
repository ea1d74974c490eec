#!/usr/bin/env python3
"""Two of three metadata nodes are lost for good. The third one is made to go on alone, by a command that says what is lost and
does nothing unless told so: everything it knew is read back, the block servers follow (one that was away too), more is stored, two
new metadata nodes join. Metadata nodes of the old incarnation come back with all their data: they are refused by name and end.
Usage: recover.py BIN_DIR"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from cluster import compare, make_tree, running, tree_sha256, wait_until
from members import start_metad, voters_are


def recover(bin_dir, directory, *more, code):
    """What `cairn admin cluster recover` says on both outputs."""
    done = subprocess.run([os.path.join(bin_dir, "cairn"), "admin", "cluster", "recover", "--dir", directory, *more], capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == code, "exit code %d, not %d:\n%s%s" % (done.returncode, code, done.stdout, done.stderr)
    return done.stdout + done.stderr


def refused(bin_dir, cluster, names, work):
    """The majority of the old incarnation, with all it had: each ends by itself and says why."""
    seen = {name: len(cluster.log(name)) for name in names}
    for name in names:
        shutil.move(os.path.join(work, name), os.path.join(cluster.dir, name, "data"))
    old = [start_metad(bin_dir, os.path.join(cluster.dir, name)) for name in names]
    try:
        for process in old:
            assert process.wait(60) == 5, process.returncode
    finally:
        for process in old:
            process.kill()
            process.wait()
    for name in names:
        said = cluster.log(name)[seen[name]:]
        assert "OLD_INCARNATION" in said and "recovered without this node" in said, said


def lose_two(bin_dir, cluster, work):
    """The directory of the node that is left. The others' data lie aside, as if somebody found them later."""
    left = os.path.join(cluster.dir, "metad3")
    assert "IN_USE" in recover(bin_dir, left, code=1)  # it runs
    cluster.kill("metad3")
    said = recover(bin_dir, left, "--unsafe-lose-majority", code=4)
    assert "metad1: ANSWERS" in said and "metad2: ANSWERS" in said and "nothing was changed" in said, said
    cluster.start_node("metad3")
    wait_until(lambda: all(len([m for m in group["members"] if m["answered"]]) == 3 for group in cluster.groups()), 60, "three nodes")
    wait_until(lambda: all(m["lag"] == 0 for group in cluster.groups() for m in group["members"]), 60, "metad3 to catch up")
    cluster.kill("blockd6")
    for name in ("metad1", "metad2", "metad3"):
        cluster.kill(name)
    for name in ("metad1", "metad2"):
        shutil.move(os.path.join(cluster.dir, name, "data"), os.path.join(work, name))
    return left


def go_on_alone(bin_dir, cluster, left):
    """The new incarnation."""
    said = recover(bin_dir, left, code=0)
    for words in ("LOST", "metad1: does not answer", "group 0: its log ends with entry", "--unsafe-lose-majority"):
        assert words in said, said
    assert not os.path.exists(os.path.join(left, "data", "recovery"))
    with open(os.path.join(left, "data", "recovery"), "w", encoding="ascii") as f:
        f.write("cluster_incarnation = 4294967303\n")  # a recovery that was killed half-way
    process = start_metad(bin_dir, left)
    assert process.wait(60) == 4 and "did not end; run it again" in cluster.log("metad3")
    said = recover(bin_dir, left, "--unsafe-lose-majority", code=0)
    assert "the only metadata node now, in incarnation 4294967303" in said, said
    cluster.start_node("metad3")
    wait_until(lambda: all(cluster.leader(group) == "metad3" for group in (0, 1)), 60, "metad3 to lead alone")
    voters_are(cluster, "metad3")
    assert "--unsafe-lose-majority" in json.dumps(cluster.lines("admin", "status")[0]), cluster.lines("admin", "status")
    states = {line["name"]: line["state"] for line in cluster.lines("admin", "nodes") if line["role"] == "metad"}
    assert states == {"metad1": "gone", "metad2": "gone", "metad3": "in use"}, states


def whole_again(cluster):
    status = cluster.lines("admin", "status")[0]
    return status["stores_up"] == 6 and all(int(missing) == 0 or count == 0 for missing, count in status["chunks_by_missing"].items())


def join_two(bin_dir, cluster, processes):
    """With tokens; the numbers of lost nodes are not used again. Their names."""
    names = []
    for i in range(2):
        token = cluster.run("admin", "token", "create", "--role", "metad")[1].strip()
        directory = os.path.join(cluster.dir, "joined%d" % i)
        port = json.loads(subprocess.run([sys.executable, "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"],
                                         capture_output=True, text=True, check=True).stdout)
        said = cluster.run("admin", "cluster", "join", "--token", token, "--dir", directory, "--listen", "127.0.0.1:%d" % port)[1]
        name = re.search(r"this is (metad[0-9]+) of the cluster", said).group(1)
        assert name not in ("metad1", "metad2", "metad3"), name
        processes.append(subprocess.Popen([os.path.join(bin_dir, "metad"), "--config", os.path.join(directory, "node.toml")],
                                          stderr=subprocess.DEVNULL))
        cluster.run("admin", "node", "add", name)
        names.append(name)
    return names


def main():
    bin_dir = os.path.abspath(sys.argv[1])
    processes = []
    with tempfile.TemporaryDirectory(prefix="cairn-recover-") as work, running(bin_dir, os.path.join(work, "cluster")) as cluster:
        try:
            run(bin_dir, cluster, work, processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    print("recovered from a lost majority: nothing that was known is lost, old nodes are refused, two new ones joined")


def old_cursors(cluster, before):
    """They are void, and the same changes are there under new ones."""
    process = cluster.start("changes", "home", "--cursor", before[-1]["cursor"])
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 4 and "CURSOR_EXPIRED" in said, said
    after = cluster.lines("changes", "home")
    assert [dict(c, cursor=0) for c in after] == [dict(c, cursor=0) for c in before]
    assert after[-1]["cursor"] == "4294967303:%d" % before[-1]["sequence"], after[-1]
    assert cluster.lines("changes", "home", "--cursor", after[-2]["cursor"]) == after[-1:]


def run(bin_dir, cluster, work, processes):
    source, got = os.path.join(work, "source"), os.path.join(work, "got")
    cluster.set_threads(2)  # the groups of a node are on loops of their own
    expected = make_tree(source, 5)
    cluster.put(source, "home:/tree")
    changes = cluster.lines("changes", "home")
    left = lose_two(bin_dir, cluster, work)
    go_on_alone(bin_dir, cluster, left)
    wait_until(lambda: cluster.lines("admin", "status")[0]["stores_up"] == 5, 60, "five stores")
    cluster.get("home:/tree", got)
    compare(expected, tree_sha256(got))
    old_cursors(cluster, changes)
    refused(bin_dir, cluster, ("metad1", "metad2"), work)
    cluster.start_node("blockd6")
    wait_until(lambda: whole_again(cluster), 120, "six stores and every chunk whole")
    cluster.put(source, "home:/more")
    for name in ("blockd1", "blockd6"):  # what they follow, they follow after a restart
        seen = len(cluster.log(name))
        cluster.kill(name)
        cluster.start_node(name)
        wait_until(lambda: cluster.lines("admin", "status")[0]["stores_up"] == 6, 60, "six stores")
        assert "OLD_INCARNATION" not in cluster.log(name)[seen:], cluster.log(name)[seen:]
    names = join_two(bin_dir, cluster, processes)
    voters_are(cluster, "metad3", *names)
    cluster.kill("metad3")
    shutil.rmtree(got)
    cluster.get("home:/more", got)
    compare(expected, tree_sha256(got))


if __name__ == "__main__":
    main()
