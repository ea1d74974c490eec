#!/usr/bin/env python3
"""Metadata nodes come and go while clients work: added, removed, replaced, by a command that is killed half-way and run again.
What would lose the quorum, or comes while another change is under way, is refused. Removed servers say so and end, and started
again they disturb nobody. No command of a client fails, and cairn-check judges what they saw. Usage: members.py BIN_DIR"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile

from cluster import running, wait_until
from refused import Certificates
from rolling import Client, end, get_on, judge


class Metad:
    """A metadata node that `cairn dev` knows nothing of: its directory is a neighbour's with another name."""

    def __init__(self, bin_dir, cluster, certificates, number):
        self.bin_dir, self.number, self.name = bin_dir, number, "metad%d" % number
        self.dir = os.path.join(cluster.dir, self.name)
        self.process = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        os.mkdir(self.dir, 0o700)
        for source, target in zip(certificates.make("metad:%d" % number), ("node.crt", "node.key")):
            shutil.copyfile(source, os.path.join(self.dir, target))
        with open(os.path.join(cluster.dir, "metad1", "node.toml"), encoding="utf-8") as f:
            text = f.read()
        text = re.sub(r"^node = 1$", "node = %d" % number, text, flags=re.M).replace("/metad1/", "/%s/" % self.name)
        text = re.sub(r"^listen = .*$", 'listen = "%s"' % self.address, text, flags=re.M)
        text = re.sub(r"^metads = \[", 'metads = ["%d@%s", ' % (number, self.address), text, flags=re.M)
        with open(os.path.join(self.dir, "node.toml"), "w", encoding="utf-8") as f:
            f.write(text)

    def start(self):
        self.process = start_metad(self.bin_dir, self.dir)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def start_metad(bin_dir, directory):
    return subprocess.Popen([os.path.join(bin_dir, "metad"), "--config", os.path.join(directory, "node.toml")])


def refuse(cluster, code, words, *arguments):
    process = cluster.start("admin", "node", *arguments)
    out, err = process.communicate(timeout=120)
    text = (out + err).decode()
    assert process.returncode == code, "%s: exit code %d, not %d: %s" % (arguments, process.returncode, code, text)
    for word in words:
        assert word in text, "%s: the text does not say %r: %s" % (arguments, word, text)


def members(cluster):
    """{group: {name: role}}"""
    return {group["group"]: {member["name"]: member["role"] for member in group["members"]} for group in cluster.groups()}


def voters_are(cluster, *names):
    found = members(cluster)
    assert len(found) == 2 and all(roles == {name: "voter" for name in names} for roles in found.values()), found


def states(cluster):
    return {line["name"]: line["state"] for line in cluster.lines("admin", "nodes") if line["role"] == "metad"}


def ends_removed(cluster, name, seen):
    """It says that it was removed, and ends in order."""
    wait_until(lambda: name not in cluster.alive(), 30, "%s to end" % name)
    said = cluster.log(name)[seen:]
    for words in ("removed from group 0", "removed from group 1", "removed from the cluster"):
        assert words in said, "%s does not say %r:\n%s" % (name, words, said)
    assert '"level":"fatal"' not in said, said


def add_interrupted(cluster, new):
    """Nobody is there: the change stays under way, others are refused, and after the command was killed it goes on."""
    refuse(cluster, 3, ["--address"], "add", new.name)
    refuse(cluster, 2, ["metad4"], "add", "blockd7")
    refuse(cluster, 7, ["NOT_CAUGHT_UP", "is it running"], "add", new.name, "--address", new.address, "--timeout", "2")
    assert members(cluster)[0][new.name] == "learner on its way to voter"
    assert states(cluster)[new.name] == "joining"
    refuse(cluster, 7, ["CHANGE_PENDING", new.name], "remove", "metad2", "--timeout", "2")
    assert members(cluster)[1]["metad2"] == "voter"  # what group 0 refuses is begun in no other group
    refuse(cluster, 7, ["CHANGE_PENDING", new.name], "add", "metad9", "--address", "127.0.0.1:9", "--timeout", "2")
    process = cluster.start("admin", "node", "add", new.name)
    assert "learns" in process.stdout.readline().decode()
    process.kill()
    process.communicate()
    new.start()
    cluster.run("admin", "node", "add", new.name)
    voters_are(cluster, "metad1", "metad2", "metad3", new.name)
    cluster.run("admin", "node", "add", new.name)  # it is one: nothing to do
    assert states(cluster)[new.name] == "in use"


def remove_leader(bin_dir, cluster, keep):
    """The leader of the namespace's group goes; started again it ends again, and no term changes. Its name."""
    cluster.run("admin", "node", "transfer", "--group", "1", "--to", "metad2" if keep != "metad2" else "metad3")
    name = cluster.leader(1)
    seen = len(cluster.log(name))
    cluster.run("admin", "node", "remove", name)
    ends_removed(cluster, name, seen)
    cluster.run("admin", "node", "remove", name)  # gone already
    refuse(cluster, 9, ["never used again"], "add", name, "--address", "127.0.0.1:9")
    terms = {group["group"]: group["term"] for group in cluster.groups()}
    process = start_metad(bin_dir, os.path.join(cluster.dir, name))
    try:
        assert process.wait(60) == 0, process.returncode
    finally:
        process.kill()
    assert {group["group"]: group["term"] for group in cluster.groups()} == terms
    assert states(cluster)[name] == "gone" and name not in members(cluster)[0]
    return name


def last_quorum(cluster, left):
    """One of three is down: without another there would be no majority that answers."""
    down = next(name for name in left if name in ("metad1", "metad2", "metad3"))
    up = next(name for name in left if name != down)
    cluster.kill(down)
    wait_until(lambda: all(cluster.leader(group) not in (None, down) for group in (0, 1)), 60, "leaders without %s" % down)
    refuse(cluster, 4, ["LAST_QUORUM", "add one"], "remove", up)
    refuse(cluster, 3, ["admin nodes"], "remove", "metad77")
    voters_are(cluster, *left)
    cluster.start_node(down)


def change_all(bin_dir, cluster, clients, new):
    add_interrupted(cluster, new[0])
    get_on(clients, 3)
    gone = remove_leader(bin_dir, cluster, "metad1")
    get_on(clients, 3)
    left = [name for name in ("metad1", "metad2", "metad3") if name != gone]
    new[1].start()
    cluster.run("admin", "node", "replace", left[1], "--with", new[1].name, "--address", new[1].address)
    get_on(clients, 3)
    now = [left[0], new[0].name, new[1].name]
    voters_are(cluster, *now)
    for name in ("blockd2", "blockd5"):  # their configuration names the first three nodes
        cluster.kill(name)
        cluster.start_node(name)
    wait_until(lambda: cluster.lines("admin", "status")[0]["stores_up"] == 6, 60, "all stores")
    last_quorum(cluster, now)
    get_on(clients, 3)


def main():
    bin_dir = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="cairn-members-") as work:
        with running(bin_dir, os.path.join(work, "cluster")) as cluster:
            certificates = Certificates(cluster.dir, work)
            new = [Metad(bin_dir, cluster, certificates, number) for number in (4, 5)]
            clients = [Client(cluster, i + 1, work) for i in range(2)]
            try:
                for client in clients:
                    client.start()
                get_on(clients, 3)
                change_all(bin_dir, cluster, clients, new)
                end(clients)
            except BaseException:
                for node in new:
                    print(*["  %s: %s" % (node.name, line) for line in cluster.log(node.name).splitlines()[-12:]], sep="\n", file=sys.stderr)
                raise
            finally:
                for node in new:
                    node.stop()
        judge(bin_dir, clients)


if __name__ == "__main__":
    main()
