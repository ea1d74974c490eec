#!/usr/bin/env python3
"""Files that change under the reader: grown, cut, rewritten, replaced or removed while `cairn put` reads them, and removed
between listing and reading. What is stored is one whole state of the file or nothing. Usage: changing.py BIN_DIR

The writer waits until the history says that an upload began, then changes the file, and goes on until the history says that
the upload saw it: no step waits for a time."""

import json
import os
import sys
import tempfile
import threading

from cluster import Failed, file_sha256, running, wait_until

BLOCK = 1 << 20
BLOCKS = 96


def block(state, number):
    """The contents of one block in one state of the file: it tells both, so that a torn file shows."""
    head = b"%08d-%08d|" % (state, number)
    return head * (BLOCK // len(head)) + head[: BLOCK % len(head)]


def write_state(path, state, blocks=BLOCKS):
    with open(path, "wb") as f:
        for i in range(blocks):
            f.write(block(state, i))


def whole_state(path):
    """(state, blocks) of a file that is one state throughout; Failed when it is torn."""
    with open(path, "rb") as f:
        state = int(f.read(8))
        f.seek(0)
        blocks = 0
        while data := f.read(BLOCK):
            if data != block(state, blocks):
                raise Failed("%s is torn: block %d is not of state %d: %r" % (path, blocks, state, data[:40]))
            blocks += 1
    return state, blocks


def rows(history):
    """The history so far; its last line may be cut."""
    out = []
    if os.path.exists(history):
        with open(history, encoding="utf-8") as f:
            for line in f.read().split("\n")[:-1]:
                out.append(json.loads(line))
    return out


def begun(history, path):
    return any(r["op"] == "put" and r["phase"] == "invoke" and r["args"]["path"] == path for r in rows(history))


def seen(history):
    """An upload ended because its file had changed."""
    return any(r["op"] == "put" and r["phase"] == "complete" and r["error"] == "FILE_CHANGED" for r in rows(history))


class Put:
    """`cairn put` of one path, and what its history says."""

    def __init__(self, cluster, work, source, target, *more):
        self.history = os.path.join(work, "history-%s" % target.replace("/", "-"))
        self.target = target
        self.process = cluster.start("put", source, target, "--history", self.history, *more)

    def wait_begun(self, path=None):
        wait_until(lambda: begun(self.history, path or self.target) or self.process.poll() is not None, 60, "the upload begins")

    def end(self):
        text = b"".join(self.process.communicate(timeout=180)).decode(errors="replace")
        return self.process.returncode, text


def changed_while_read(cluster, work, what, change):
    """`change` is called again and again from the upload's begin until it was seen; what is stored then is the file as it is."""
    source, target = os.path.join(work, what), "home:/%s" % what
    write_state(source, 0)
    put = Put(cluster, work, source, target)
    put.wait_begun()
    step = 0
    while not seen(put.history) and put.process.poll() is None:
        step += 1
        change(source, step)
    code, text = put.end()
    assert step > 0 and seen(put.history), "%s: the change came too late to be seen\n%s" % (what, text)
    assert code == 0, "%s: exit code %d\n%s" % (what, code, text)
    back = source + ".back"
    cluster.get(target, back)
    assert file_sha256(back) == file_sha256(source), "%s: stored is not what the file is" % what
    assert whole_state(back) == whole_state(source)
    os.unlink(source)


def grow(path, step):
    with open(path, "ab") as f:
        f.write(block(0, BLOCKS + step - 1))


def cut(path, step):
    os.truncate(path, max(BLOCKS // 2 - step, 1) * BLOCK)


def rewrite(path, step):
    """All blocks in place: between the first and the last the file is of no state."""
    with open(path, "r+b") as f:
        for i in range(BLOCKS):
            f.write(block(step, i))


def replace(path, step):
    write_state(path + ".new", step, 4)
    os.replace(path + ".new", path)


def never_at_rest(cluster, work):
    """A file that is rewritten all the time: a named refusal, and nothing stored; at rest it is stored."""
    source, target = os.path.join(work, "restless"), "home:/restless"
    write_state(source, 0)
    stop = threading.Event()

    def write():
        step = 0
        while not stop.is_set():
            step += 1
            rewrite(source, step)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        code, text = Put(cluster, work, source, target).end()
        assert code == 4 and "FILE_CHANGED" in text, "exit code %d\n%s" % (code, text)
        cluster.run("stat", target, codes=(3,))
    finally:
        stop.set()
        writer.join()
    cluster.put(source, target)
    cluster.get(target, source + ".back")
    assert whole_state(source + ".back") == whole_state(source)


def vanishes_while_read(cluster, work):
    source, target = os.path.join(work, "vanishing"), "home:/vanishing"
    write_state(source, 0)
    put = Put(cluster, work, source, target)
    put.wait_begun()
    os.unlink(source)
    code, text = put.end()
    assert code == 3 and "NOT_FOUND" in text and source in text, "exit code %d\n%s" % (code, text)
    cluster.run("stat", target, codes=(3,))


def vanishes_after_listing(cluster, work):
    """Of a folder: the file that went away is named, all others are stored."""
    folder = os.path.join(work, "folder")
    os.mkdir(folder)
    write_state(os.path.join(folder, "a-large"), 0)
    for name in ("b", "y", "z"):
        write_state(os.path.join(folder, name), 0, 1)
    put = Put(cluster, work, folder, "home:/folder", "--transfers", "1")
    put.wait_begun("home:/folder/a-large")
    os.unlink(os.path.join(folder, "y"))
    code, text = put.end()
    assert code == 3 and os.path.join(folder, "y") in text and "NOT_FOUND" in text, "exit code %d\n%s" % (code, text)
    assert sorted(line["name"] for line in cluster.lines("ls", "home:/folder")) == ["a-large", "b", "z"]


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-changing-") as work:
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            for change in (grow, cut, rewrite, replace):
                changed_while_read(cluster, work, change.__name__, change)
            never_at_rest(cluster, work)
            vanishes_while_read(cluster, work)
            vanishes_after_listing(cluster, work)
    print("files that change: whole or not at all")


main()
