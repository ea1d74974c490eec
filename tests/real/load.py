"""Load: concurrent `cairn` processes on a few hot names and many fresh ones, each operation recorded as it was invoked and
answered. judge.py takes the records. A content names itself: its first line is the tag of the put that stored it, the rest
follows from the tag, so that whatever comes back is known or wrong.

A record: {op, path, to, bytes, tag, invoke_ns, complete_ns, outcome, sequence, version, value, code, text}. `outcome`: ok, fail
(it did not happen), unknown (it may have). complete_ns is None when no answer came."""

import json
import os
import random
import subprocess
import threading
from time import monotonic_ns

from nodes import Failed, wait_until

WORKERS = 4
HOT = 6
SIZES = (40, 3000, 5000, 66000, 66000, 300000, 2000000)
HANG_S = 240  # longer than any fault and the client's own time together
OPS = ("put",) * 7 + ("get",) * 5 + ("mv", "mv", "rm", "list", "list", "changes")
EXPECTED = {"put": (0, 7), "get": (0, 3, 7), "mv": (0, 3, 7, 9), "rm": (0, 3, 7), "mkdir": (0, 7), "list": (0, 7), "changes": (0, 7)}
FAILS = (3, 4, 9)


def content(tag, size):
    head = (tag + "\n").encode()
    return head + random.Random(tag).randbytes(max(0, size - len(head)))


def tag_of(data):
    """The tag of a stored content, None when these are not the very bytes that were put."""
    tag = data.split(b"\n", 1)[0].decode(errors="replace")
    return tag if content(tag, len(data)) == data else None


class Client:
    """One logical client: its operations follow each other. `records` grows by each, whatever became of it."""

    def __init__(self, live, directory, name):
        os.makedirs(directory, exist_ok=True)
        self.live, self.name = live, name
        self.history = os.path.join(directory, "history-%s.jsonl" % name)
        self.file = os.path.join(directory, name)
        self.history_at = 0
        self.records = []

    def lines_of_last(self, command):
        """What the last process added to the history: {phase: line} of its last operation of this kind."""
        if not os.path.exists(self.history):
            return {}
        with open(self.history, "rb") as f:
            f.seek(self.history_at)
            data = f.read()
        self.history_at += len(data)
        out = {}
        for line in data.decode(errors="replace").splitlines():
            entry = json.loads(line)
            if entry["op"] == command:
                out[entry["phase"]] = entry
        return out

    def run(self, op, *arguments, **about):
        """One command; its record, with `out` beside it. Killed after HANG_S: then nobody knows what became of it."""
        record = dict({"op": op, "client": self.name, "path": None, "to": None, "bytes": None, "tag": None, "value": None, "sequence": None,
                       "version": None, "invoke_ns": monotonic_ns(), "complete_ns": None, "hung": False}, **about)
        command = {"list": "ls"}.get(op, op)
        process = self.live.start(command, *arguments, "--json", "--history", self.history)
        try:
            out, err = process.communicate(timeout=HANG_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            record["hung"] = True
        lines = self.lines_of_last(command)
        mutation = op in ("put", "mv", "rm", "mkdir")
        code = process.returncode
        record.update(code=code, text=(err or out[-300:]).decode(errors="replace").strip())
        if not record["hung"]:
            record["complete_ns"] = monotonic_ns()
        if "invoke" in lines:
            record["invoke_ns"] = lines["invoke"]["ns"]
        if "complete" in lines:
            record["complete_ns"] = lines["complete"]["ns"]
            results = lines["complete"]["results"]
            record["sequence"], record["version"] = results.get("sequence"), results.get("version")
        elif mutation:
            record["complete_ns"] = None
        # A process that ended before it invoked anything has done nothing.
        never = mutation and lines == {} and not record["hung"]
        record["outcome"] = "ok" if code == 0 else "fail" if code in FAILS or never else "unknown"
        self.records.append(record)
        record["out"] = out.decode(errors="surrogateescape")
        return record

    def put(self, path, tag, size):
        with open(self.file, "wb") as f:
            f.write(content(tag, size))
        return self.run("put", self.file, path, path=path, tag=tag, bytes=max(size, len(tag) + 1))

    def get(self, path):
        target = self.file + ".got"
        if os.path.exists(target):
            os.unlink(target)
        record = self.run("get", path, target, path=path)
        if record["outcome"] == "ok":
            with open(target, "rb") as f:
                record["value"] = tag_of(f.read()) or "WRONG BYTES"
        return record

    def list(self, path):
        record = self.run("list", "-l", path, path=path)
        if record["outcome"] == "ok":
            entries = [json.loads(line) for line in record["out"].splitlines()]
            record["value"] = {entry["name"]: entry["version"] for entry in entries}
        return record

    def changes(self, cursor):
        record = self.run("changes", "home", "--cursor", str(cursor), path=cursor)
        if record["outcome"] == "ok":
            record["value"] = [json.loads(line) for line in record["out"].splitlines()]
        return record


class Worker(threading.Thread):
    """Random operations by a seed until told to stop."""

    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.client = Client(load.live, load.dir, "w%d" % number)
        self.random = random.Random("%s/%d" % (load.seed, number))
        self.fresh = []
        self.cursor = 0
        self.failure = None

    def hot(self):
        return "home:/hot/h%d" % self.random.randrange(HOT)

    def size(self, n):
        return self.random.choice(SIZES) + (n * WORKERS + self.number) % 1000

    def put(self, n):
        tag = "%s-%d-%d" % (self.load.seed, self.number, n)
        path = self.hot() if self.random.random() < 0.5 else "home:/w%d/f%d" % (self.number, n)
        record = self.client.put(path, tag, self.size(n))
        if record["outcome"] == "ok" and "/hot/" not in path:
            self.fresh.append(path)
        return record

    def rm(self):
        if self.fresh and self.random.random() < 0.6:
            path = self.fresh.pop(self.random.randrange(len(self.fresh)))
        else:
            path = self.hot()
        return self.client.run("rm", path, path=path)

    def step(self, n):
        op = self.random.choice(OPS)
        if op == "put":
            return self.put(n)
        if op == "get":
            return self.client.get(self.random.choice(self.fresh) if self.fresh and self.random.random() < 0.4 else self.hot())
        if op == "mv":
            path, to = self.hot(), self.hot()
            return self.client.run("mv", path, to, path=path, to=to) if path != to else self.client.get(path)
        if op == "rm":
            return self.rm()
        if op == "list":
            return self.client.list("home:/hot")
        record = self.client.changes(self.cursor)
        if record["outcome"] == "ok" and record["value"]:
            self.cursor = record["value"][-1]["sequence"]
        return record

    def run(self):
        n = 0
        try:
            while not self.load.stopping.is_set():
                record = self.step(n)
                n += 1
                self.load.note(record)
        except Exception as failure:  # handed to who waits
            self.failure = failure


class Load:
    """All workers. `acknowledged` counts the mutations that were."""

    def __init__(self, live, directory, seed):
        self.live, self.dir, self.seed = live, directory, seed
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.acknowledged = self.operations = self.unavailable = 0
        self.setup = Client(live, directory, "setup")
        self.workers = [Worker(self, i) for i in range(WORKERS)]

    def note(self, record):
        with self.lock:
            self.operations += 1
            if record["op"] in ("put", "mv", "rm") and record["outcome"] == "ok":
                self.acknowledged += 1
            if record["code"] == 7:
                self.unavailable += 1

    def begin(self):
        for folder in ("hot", "probe", *("w%d" % i for i in range(WORKERS))):
            record = self.setup.run("mkdir", "home:/" + folder, path="home:/" + folder)
            if record["outcome"] != "ok":
                raise Failed("mkdir %s: %s" % (folder, record["text"]))
        for worker in self.workers:
            worker.start()

    def check(self):
        for worker in self.workers:
            if worker.failure:
                raise worker.failure
        return True

    def progress(self, count, seconds=180):
        """Returns when `count` more mutations were acknowledged."""
        target = self.acknowledged + count
        wait_until(lambda: self.check() and self.acknowledged >= target, seconds, "%d more acknowledgements" % count)

    def end(self):
        self.stopping.set()
        for worker in self.workers:
            worker.join(HANG_S + 60)
            if worker.is_alive():
                raise Failed("worker %d does not end" % worker.number)
        self.check()

    def records(self, *others):
        """All records, those of other clients too."""
        out = list(self.setup.records)
        for client in [worker.client for worker in self.workers] + list(others):
            out += client.records
        return out

    def histories(self):
        return [client.history for client in [self.setup, *(w.client for w in self.workers)] if os.path.exists(client.history)]
