#!/usr/bin/env python3
"""Leadership moves on demand, and every node is restarted in turn under load: SIGTERM, an end with code 0 in order, a start.
No command of any client fails meanwhile, and cairn-check judges what they saw. Usage: rolling.py BIN_DIR"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading

from cluster import running, wait_until, write_random

CLIENTS = 3


class Client(threading.Thread):
    """Puts, reads, moves and lists under names of its own until told to stop; any command that fails is a failure."""

    def __init__(self, cluster, number, work):
        super().__init__(daemon=True)
        self.cluster, self.number, self.work = cluster, number, work
        self.history = os.path.join(work, "history-%d" % number)
        self.commands, self.failure, self.stop = 0, None, False

    def cairn(self, *arguments):
        self.cluster.run(*arguments, "--history", self.history)
        self.commands += 1

    def round(self, number):
        chance = random.Random(self.number * 1000 + number)
        source, got = (os.path.join(self.work, "%s-%d" % (what, self.number)) for what in ("source", "got"))
        name = "home:/client%d/%d" % (self.number, number % 4)
        write_random(source, chance.choice([100, 5000, 300000, 1500000]), self.number * 1000 + number)
        self.cairn("put", source, name)
        self.cairn("get", name, got)
        with open(source, "rb") as a, open(got, "rb") as b:
            assert a.read() == b.read(), "%s reads back otherwise" % name
        self.cairn("ls", "home:/client%d" % self.number)

    def run(self):
        try:
            self.cairn("mkdir", "home:/client%d" % self.number)
            number = 0
            while not self.stop:
                number += 1
                self.round(number)
        except Exception as failure:  # handed to the main thread
            self.failure = failure
            self.stop = True


def get_on(clients, more):
    """Every client gets `more` commands further."""
    for client in clients:
        wanted = client.commands + more
        wait_until(lambda client=client, wanted=wanted: client.commands >= wanted or client.failure, 60, "the clients to get on")
        if client.failure:
            raise client.failure


def end(clients):
    """All stop; none has failed."""
    for client in clients:
        client.stop = True
    for client in clients:
        client.join(120)
        assert not client.is_alive(), "client %d hangs" % client.number
        if client.failure:
            raise client.failure
    print("%d commands, none failed" % sum(client.commands for client in clients))


def judge(bin_dir, clients):
    done = subprocess.run([os.path.join(bin_dir, "cairn-check"), "--from-empty", *(c.history for c in clients)], capture_output=True,
                          text=True)
    print(done.stdout, done.stderr, end="")
    assert done.returncode == 0


def last_lines(cluster, name, seen):
    return cluster.log(name)[seen:]


def restart(cluster, name):
    """SIGTERM; it ends in order. The start returns when it listens."""
    node = next(node for node in cluster.ps() if node["name"] == name)
    seen = len(cluster.log(name))
    os.kill(node["pid"], signal.SIGTERM)
    wait_until(lambda: name not in cluster.alive(), 20, "%s to end" % name)
    said = last_lines(cluster, name, seen)
    assert "everything taken is answered" in said, "%s did not end in order:\n%s" % (name, said)
    assert '"level":"fatal"' not in said, said
    cluster.start_node(name)


def check_exit_code(bin_dir, cluster, name):
    """The same with a process of our own, whose code is seen; a second signal ends it at once."""
    cluster.kill(name)
    for signals in (1, 2):
        seen = len(cluster.log(name))
        process = subprocess.Popen([os.path.join(bin_dir, name.rstrip("0123456789")), "--config", os.path.join(cluster.dir, name, "node.toml")])
        try:
            wait_until(lambda seen=seen: "listening on" in last_lines(cluster, name, seen), 30, "%s to listen" % name)
            for _ in range(signals):
                process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, "%s ends with %d" % (name, process.returncode)
        finally:
            process.kill()
    cluster.start_node(name)


def transfers(cluster):
    """Leadership goes where it is told to; to itself is nothing; to strangers it is refused."""
    for group in (0, 1):
        old = cluster.leader(group)
        new = next(name for name in ("metad1", "metad2", "metad3") if name != old)
        line = cluster.lines("admin", "node", "transfer", "--group", str(group), "--to", new)
        assert line == [{"group": group, "leader": new}] and cluster.leader(group) == new, line
        cluster.lines("admin", "node", "transfer", "--group", str(group), "--to", new)
        assert cluster.leader(group) == new
    before = [cluster.leader(group) for group in (0, 1)]
    assert len(cluster.lines("admin", "node", "transfer")) == 2
    assert all(cluster.leader(group) != before[group] for group in (0, 1))
    assert cluster.run("admin", "node", "transfer", "--group", "0", "--to", "metad7", codes=(3,))[0] == 3


def stores_are_up(cluster):
    return cluster.lines("admin", "status")[0]["stores_up"] == 6


def main():
    bin_dir = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="cairn-rolling-") as work:
        with running(bin_dir, os.path.join(work, "cluster")) as cluster:
            transfers(cluster)
            clients = [Client(cluster, i + 1, work) for i in range(CLIENTS)]
            for client in clients:
                client.start()
            get_on(clients, 3)
            names = [node["name"] for node in cluster.ps()]
            assert len(names) == 9, names
            for name in names:
                leads = [group for group in (0, 1) if cluster.leader(group) == name]
                restart(cluster, name)
                get_on(clients, 2)
                assert all(cluster.leader(group) not in (None, name) for group in leads) or not leads, (name, leads)
                wait_until(lambda: stores_are_up(cluster), 30, "all stores")
            for name in ("metad2", "blockd3"):
                check_exit_code(bin_dir, cluster, name)
            end(clients)
            assert sorted(cluster.alive()) == sorted(names)
        judge(bin_dir, clients)


if __name__ == "__main__":
    main()
