"""One trial: a cluster, load on it, faults by the caller, and the judgement. Each of kill.py, cut.py, partition.py and disk.py is
a function that takes a Trial and does harm; the rest is the same for all and stands here."""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile

from judge import Feed, Judge
from load import Client, Load, tag_of
from nodes import SKIP, Failed, Live, NotPermitted, alive, say


class Trial:
    """`live`, `load` and `random` by the seed; `work` is removed at the end; `clients` are judged beside the load."""

    def __init__(self, live, work, seed, bin_dir):
        self.live, self.work, self.seed = live, work, seed
        self.bin_dir = os.path.abspath(bin_dir)
        self.random = random.Random(seed)
        self.histories = os.path.join(work, "histories")
        self.load = Load(live, self.histories, seed)
        self.clients = []
        self.last = self.client("last")

    def client(self, name):
        client = Client(self.live, self.histories, name)
        self.clients.append(client)
        return client

    def read_back(self):
        """{(folder, name): tag} of every file there is, by one `cairn get` of everything."""
        target = os.path.join(self.work, "back")
        shutil.rmtree(target, ignore_errors=True)
        self.live.run("get", "home:/", target, "--history", self.last.history, timeout=1200)
        found = {}
        for here, _, names in os.walk(target):
            for name in names:
                with open(os.path.join(here, name), "rb") as f:
                    folder = os.path.relpath(here, target)
                    found["" if folder == "." else folder, name] = tag_of(f.read()) or "WRONG BYTES"
        return found

    def read_gone(self, events):
        """Asks for each name that the feed names and that is not there any more: that it is gone was acknowledged too."""
        feed = Feed(events)
        for (folder, name) in feed.names:
            if name not in feed.state[folder]:
                self.last.get("home:/%s/%s" % (folder, name))

    def check_histories(self):
        """cairn-check over the history files as the programs wrote them, where they write what it reads."""
        program = os.path.join(self.bin_dir, "cairn-check")
        files = self.load.histories() + [c.history for c in self.clients if os.path.exists(c.history)]
        if not os.access(program, os.X_OK) or not all(names_entries(path) for path in files):
            say("cairn-check: left out, these programs do not write what it reads")
            return
        result = subprocess.run([program, "--from-empty", "--complete", *files], capture_output=True, timeout=600, check=False)
        if result.returncode != 0:
            raise Failed("cairn-check: exit code %d\n%s%s" % (result.returncode, result.stdout.decode()[-3000:], result.stderr.decode()[-1000:]))
        say("cairn-check: %s", "; ".join(" ".join(line.split()) for line in result.stdout.decode().splitlines()))

    def conclude(self):
        """Ends the load, lets the cluster heal by itself, reads everything back and judges."""
        self.load.end()
        self.live.heal()
        events = self.live.lines("changes", "home", "--history", self.last.history, timeout=300)
        tree = self.read_back()
        self.read_gone(events)
        judge = Judge(self.load.records(*self.clients), events)
        judge.judge(tree)
        say("judged: %s", judge.summary())
        self.check_histories()


@contextlib.contextmanager
def prepared(bin_dir, seed, keep=None):
    """A Trial whose cluster is made and down. Work stays in `keep` when that is named."""
    if keep:
        os.makedirs(keep)  # a new one
    work = os.path.abspath(keep) if keep else tempfile.mkdtemp(prefix="cairn-real-")
    try:
        live = Live(bin_dir, os.path.join(work, "cluster"))
        with alive(live):
            yield Trial(live, work, seed, bin_dir)
    finally:
        if keep is None:
            shutil.rmtree(work, ignore_errors=True)


def names_entries(path):
    """Whether the mutations of a history carry the name that they are about."""
    with open(path, encoding="utf-8") as f:
        invoked = [json.loads(line) for line in f if '"put"' in line or '"rm"' in line]
    return all("name" in line["args"] for line in invoked if line["phase"] == "invoke")


def need_root():
    if os.geteuid() != 0:
        raise NotPermitted("needs root")


def options(text, **counts):
    """The arguments all trials take; `counts` are further options with their defaults."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("bin", help="where cairn, metad and blockd are")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--keep", help="work in this new folder and leave it")
    for name, default in counts.items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    return parser.parse_args()


def run_trial(trial, *arguments):
    """The end of a script: exit code 0, 1 with what failed, or SKIP with what is not permitted. SIGTERM ends it as an interrupt
    does: what was mounted and started is taken down."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        trial(*arguments)
    except NotPermitted as reason:
        print("skipped: %s" % reason)
        sys.exit(SKIP)
    except Failed as failure:
        print("FAILED: %s" % failure)
        sys.exit(1)
