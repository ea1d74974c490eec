#!/usr/bin/env python3
"""Several clients at once on the same few names, the metadata leaders killed meanwhile; then everything is read. What
`cairn --history` wrote of it is judged by cairn-check: one order explains all answers, the feed is the fold of the
mutations, nothing acknowledged is lost. A history that is tampered with must be found. Usage: history.py BIN_DIR"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading

from cluster import running, wait_until, write_random

CLIENTS = 4
ROUNDS = 14
NAMES = ["one", "two", "folder/three", "folder/four"]
ANY = tuple(range(10))  # a refusal is an answer, too: the checkers judge it


class Client(threading.Thread):
    """Runs commands one after the other; each is a process, all of one client share a file."""

    def __init__(self, cluster, number, work):
        super().__init__(daemon=True)
        self.cluster, self.number, self.work = cluster, number, work
        self.history = os.path.join(work, "history-%d" % number)
        self.rounds, self.failure = 0, None

    def cairn(self, *arguments, codes=ANY):
        self.cluster.run(*arguments, "--history", self.history, codes=codes)

    def act(self, chance, round_):
        name, other = "home:/" + chance.choice(NAMES), "home:/" + chance.choice(NAMES)
        source = os.path.join(self.work, "source-%d" % self.number)
        write_random(source, chance.choice([0, 100, 5000, 300000, 1500000]), self.number * 1000 + round_)
        do = chance.choice(["put", "put", "put", "get", "get", "mv", "rm", "ls", "stat", "changes"])
        if do == "put":
            self.cairn("put", source, name)
        elif do == "get":
            self.cairn("get", name, os.path.join(self.work, "got-%d" % self.number))
        elif do == "mv":
            self.cairn("mv", name, other)
        elif do in ("rm", "stat"):
            self.cairn(do, name)
        else:
            self.cairn(do, "home:/" if do == "ls" else "home")

    def run(self):
        try:
            chance = random.Random(self.number)
            for self.rounds in range(1, ROUNDS + 1):
                self.act(chance, self.rounds)
        except Exception as failure:  # handed to the main thread
            self.failure = failure


def kill_leaders(cluster, clients):
    """Kills the leader of each group once, a third and two thirds of the way."""
    for part, group in ((3, 1), (2, 0)):
        wait_until(lambda: sum(c.rounds for c in clients) >= CLIENTS * ROUNDS // part, 300, "the clients to get on")
        name = wait_until(lambda: cluster.leader(group), 60, "a leader of group %d" % group)
        cluster.kill(name)
        cluster.start_node(name)


def read_everything(cluster, work):
    """A client that reads all names and the whole feed at the end."""
    last = Client(cluster, 99, work)
    for name in NAMES:
        last.cairn("get", "home:/" + name, os.path.join(work, "last"), codes=(0, 3))
    last.cairn("ls", "-R", "home:/", codes=(0,))
    last.cairn("changes", "home", codes=(0,))
    return last.history


def check(bin_dir, *arguments):
    done = subprocess.run([os.path.join(bin_dir, "cairn-check"), *arguments], capture_output=True, text=True)
    print(done.stdout, done.stderr, end="")
    return done


def tamper(path):
    """Makes an acknowledged put of the history one that the feed and the readers know nothing of."""
    with open(path, encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    puts = [line for line in lines if line["op"] == "put" and line["phase"] == "complete" and line["outcome"] == "ok"]
    puts[-1]["results"]["sequence"] += 1
    with open(path + ".bad", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(line) + "\n" for line in lines)
    return path + ".bad"


def main():
    bin_dir = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="cairn-history-") as work:
        with running(bin_dir, os.path.join(work, "cluster")) as cluster:
            first = Client(cluster, 0, work)
            first.cairn("mkdir", "home:/folder", codes=(0,))
            clients = [Client(cluster, i + 1, work) for i in range(CLIENTS)]
            for client in clients:
                client.start()
            kill_leaders(cluster, clients)
            for client in clients:
                client.join(600)
                assert not client.is_alive(), "client %d hangs" % client.number
                if client.failure:
                    raise client.failure
            files = [first.history] + [client.history for client in clients] + [read_everything(cluster, work)]
        done = check(bin_dir, "--from-empty", "--complete", *files)
        if done.returncode != 0:
            for file in files:
                with open(file, encoding="utf-8") as f:
                    print("--", file, f.read(), sep="\n")
        assert done.returncode == 0
        counted = [int(line.split()[1]) for line in done.stdout.splitlines() if " looked at" in line]
        assert len(counted) == 3 and min(counted) >= 10, counted
        putters = [file for file in files if '"op":"put","phase":"complete"' in open(file, encoding="utf-8").read()]
        bad = [tamper(file) if file == putters[0] else file for file in files]
        assert check(bin_dir, "--from-empty", "--complete", *bad).returncode == 1


main()
