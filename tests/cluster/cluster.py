"""A real cluster on loopback for tests and the demonstration: `cairn dev` and the commands people use, nothing else."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time


class Failed(Exception):
    """A command that ended otherwise than it should have."""


class Cluster:
    """One directory of `cairn dev`. `bin_dir` holds cairn, metad and blockd."""

    def __init__(self, bin_dir, dir):
        self.cairn = os.path.join(os.path.abspath(bin_dir), "cairn")
        self.dir = os.path.abspath(dir)
        self.config = os.path.join(self.dir, "client.toml")

    def start(self, *arguments, timeout=120):
        """The process of `cairn ARGUMENTS`, its output captured."""
        environment = dict(os.environ, CAIRN_CONFIG=self.config)
        return subprocess.Popen([self.cairn, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment)

    def run(self, *arguments, codes=(0,), timeout=180):
        """(exit code, stdout) of `cairn ARGUMENTS`; Failed when the code is not among `codes` or it takes too long."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Failed("cairn %s: no end after %d s\n%s" % (" ".join(arguments), timeout, err.decode(errors="replace")))
        if process.returncode not in codes:
            raise Failed("cairn %s: exit code %d\n%s%s" % (" ".join(arguments), process.returncode, out.decode(errors="replace"),
                                                           err.decode(errors="replace")))
        return process.returncode, out.decode(errors="surrogateescape")

    def lines(self, *arguments, **more):
        """The JSON objects a command prints."""
        return [json.loads(line) for line in self.run(*arguments, "--json", **more)[1].splitlines() if line.strip()]

    def dev(self, *arguments, **more):
        return self.run("dev", *arguments, "--dir", self.dir, **more)

    def up(self, *arguments):
        self.dev("up", *arguments)

    def down(self):
        self.dev("down")

    def set_threads(self, threads):
        """Starts all nodes again, each with so many event loops and compute workers."""
        self.down()
        for node in self.ps():
            with open(os.path.join(self.dir, node["name"], "node.toml"), "a", encoding="utf-8") as f:
                f.write("loops = %s\nworkers = %s\n" % (threads, threads))
        self.up()

    def ps(self):
        return [json.loads(line) for line in self.dev("ps", "--json")[1].splitlines()]

    def alive(self):
        return sorted(node["name"] for node in self.ps() if node["alive"])

    def pid(self, name):
        """Of the node's process, None when it does not run."""
        return next((node["pid"] for node in self.ps() if node["name"] == name and node["alive"]), None)

    def kill(self, name):
        self.dev("kill", name)

    def start_node(self, name):
        self.dev("start", name)

    def put(self, source, target, *options, **more):
        """What moved: the last line of `cairn put --json`."""
        return self.lines("put", *options, source, target, **more)[-1]

    def get(self, source, target, **more):
        self.run("get", source, target, **more)

    def groups(self):
        return self.lines("admin", "groups")

    def leader(self, group=0):
        """The name of the group's leader, None when there is none now."""
        for line in self.groups():
            if line["group"] == group:
                return line["leader"] or None
        return None

    def log(self, name):
        with open(os.path.join(self.dir, name, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def tails(self, lines=12):
        """The last lines of each node's log, for a test that failed."""
        out = []
        for node in self.ps():
            with contextlib.suppress(OSError):
                out += ["  %s: %s" % (node["name"], line) for line in self.log(node["name"]).splitlines()[-lines:]]
        return "\n".join(out)


def wait_until(condition, seconds, what):
    """Polls until condition() is true and returns its value; Failed after a deadline that only a defect reaches."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed("not within %d s: %s" % (seconds, what))
        time.sleep(0.05)


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_sha256(root):
    """{path below root: SHA-256} of all regular files, links not followed."""
    out = {}
    for here, _, names in os.walk(root):
        for name in names:
            path = os.path.join(here, name)
            if os.path.isfile(path) and not os.path.islink(path):
                out[os.path.relpath(path, root)] = file_sha256(path)
    return out


def write_random(path, size, seed):
    """A file of `size` bytes that the seed names."""
    r = random.Random(seed)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        left = size
        while left:
            block = r.randbytes(min(left, 1 << 20))
            f.write(block)
            left -= len(block)


def make_tree(root, seed, files=40):
    """A small tree with sizes around every limit: empty, inline, one chunk, chunk edges, several chunks."""
    sizes = [0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20]
    r = random.Random(seed)
    for i in range(files):
        size = sizes[i] if i < len(sizes) else r.randrange(1, 40000)
        write_random(os.path.join(root, "folder %d" % (i % 5), "file-%03d-é.bin" % i), size, seed * 1000 + i)
    return tree_sha256(root)


def flip_byte(path, at):
    """Changes one byte in place."""
    with open(path, "r+b") as f:
        f.seek(at)
        old = f.read(1)[0]
        f.seek(at)
        f.write(bytes([old ^ 0x55]))


def insert_byte(path, at):
    """One byte more, before the one at `at`."""
    with open(path, "rb") as old, open(path + ".new", "wb") as new:
        left = at
        while left:
            block = old.read(min(left, 1 << 20))
            new.write(block)
            left -= len(block)
        new.write(b"\x2a")
        shutil.copyfileobj(old, new, 1 << 20)
    os.replace(path + ".new", path)


def compare(expected, found):
    """Failed with the first differences of two {path: SHA-256}."""
    if expected == found:
        return
    missing = sorted(set(expected) - set(found))[:3]
    strange = sorted(set(found) - set(expected))[:3]
    changed = sorted(p for p in expected if p in found and expected[p] != found[p])[:3]
    raise Failed("trees differ: missing %s, not stored %s, changed %s" % (missing, strange, changed))


@contextlib.contextmanager
def running(bin_dir, dir, *up):
    """A cluster that is up inside the block and down afterwards, with the logs' ends when the block fails."""
    cluster = Cluster(bin_dir, dir)
    try:
        cluster.up(*up)
        yield cluster
    except BaseException as failure:
        print("failed: %s: %s" % (type(failure).__name__, str(failure)[:1000]), file=sys.stderr, flush=True)  # before what may be cut off
        with contextlib.suppress(Exception):
            print(cluster.tails(), file=sys.stderr)
        raise
    finally:
        with contextlib.suppress(Failed):
            cluster.down()
