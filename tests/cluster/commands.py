#!/usr/bin/env python3
"""What the commands promise beyond put and get, on real processes: following the change feed over a leader's death, mkdir -p,
mv -f, rm -r, --transfers, the progress bar on a terminal, --history. Usage: commands.py BIN_DIR"""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading

from cluster import Failed, compare, make_tree, running, tree_sha256, wait_until, write_random

TERMINAL_COLUMNS = 110


def expect(cluster, code, *arguments, word=None):
    """Runs a command that must end with `code`, and say `word`."""
    process = cluster.start(*arguments)
    text = b"".join(process.communicate(timeout=120)).decode(errors="replace")
    assert process.returncode == code, "cairn %s: exit code %d, not %d\n%s" % (" ".join(arguments), process.returncode, code, text)
    assert word is None or word in text, "cairn %s: does not say %r\n%s" % (" ".join(arguments), word, text)


def names(cluster, path):
    return [line["name"] for line in cluster.lines("ls", path)]


def mkdir_parents(cluster, work):
    expect(cluster, 3, "mkdir", "home:/a/b/c", word="NOT_FOUND")
    expect(cluster, 0, "mkdir", "-p", "home:/a/b/c")
    assert cluster.lines("stat", "home:/a/b/c")[0]["kind"] == "folder"
    before = cluster.lines("stat", "home:/a/b/c")[0]["id"]
    expect(cluster, 0, "mkdir", "-p", "home:/a/b/c")
    expect(cluster, 9, "mkdir", "home:/a/b/c", word="EXISTS")
    assert cluster.lines("stat", "home:/a/b/c")[0]["id"] == before
    file = os.path.join(work, "file")
    write_random(file, 100, 1)
    cluster.put(file, "home:/a/file")
    expect(cluster, 4, "mkdir", "-p", "home:/a/file/below", word="NOT_A_FOLDER")


def move_force(cluster, work):
    one, two = os.path.join(work, "one"), os.path.join(work, "two")
    write_random(one, 3000, 2)
    write_random(two, 70000, 3)
    cluster.put(one, "home:/one")
    cluster.put(two, "home:/two")
    expect(cluster, 9, "mv", "home:/one", "home:/two", word="EXISTS")
    assert {"one", "two"} <= set(names(cluster, "home:/"))
    expect(cluster, 0, "mv", "-f", "home:/one", "home:/two")
    assert "one" not in names(cluster, "home:/")
    back = os.path.join(work, "back")
    cluster.get("home:/two", back)
    with open(one, "rb") as a, open(back, "rb") as b:
        assert a.read() == b.read(), "the file that took the place is another"
    cluster.run("mkdir", "home:/into")
    expect(cluster, 0, "mv", "-f", "home:/two", "home:/into")
    assert names(cluster, "home:/into") == ["two"]


def transfers_and_rm(cluster, work):
    """Any number of files at once stores and reads the same; rm takes a full folder only with -r."""
    source = os.path.join(work, "tree")
    tree = make_tree(source, 5)
    for count in ("1", "64"):
        target = os.path.join(work, "tree-" + count)
        moved = cluster.put(source, "home:/tree-" + count, "--transfers", count)
        assert moved["files"] == len(tree) and moved["failed"] == 0, moved
        cluster.run("get", "--transfers", count, "home:/tree-" + count, target)
        compare(tree, tree_sha256(target))
    for wrong in ("0", "65", "many"):
        expect(cluster, 2, "put", "--transfers", wrong, source, "home:/wrong", word="--transfers")
    expect(cluster, 4, "rm", "home:/tree-1", word="NOT_EMPTY")
    assert len(names(cluster, "home:/tree-1")) == 5
    expect(cluster, 0, "rm", "-r", "home:/tree-1")
    expect(cluster, 3, "stat", "home:/tree-1", word="NOT_FOUND")
    expect(cluster, 3, "get", "home:/tree-1/folder 0", os.path.join(work, "gone"), word="NOT_FOUND")
    expect(cluster, 0, "rm", "-r", "home:/tree-64")


def on_terminal(cluster, *arguments):
    """What `cairn ARGUMENTS` writes to a terminal as its error output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, TERMINAL_COLUMNS, 0, 0))
    process = subprocess.Popen([cluster.cairn, *arguments, "--config", cluster.config], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break  # the other end is closed
        if not piece:
            break
        text += piece
    os.close(ours)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0, (process.returncode, text, out)
    return text.decode(), out.decode()


def progress_bar(cluster, work):
    source = os.path.join(work, "bar.bin")
    write_random(source, 40 << 20, 6)
    shown, out = on_terminal(cluster, "put", source, "home:/bar.bin")
    assert "\r[" in shown and "%" in shown and "of 40.0 MiB" in shown and "bar.bin" in shown, repr(shown)
    assert shown.endswith("\r\x1b[K"), "the bar stays: %r" % shown[-80:]
    assert "1 files, 40.0 MiB" in out, out
    assert all(len(line) < TERMINAL_COLUMNS for line in shown.replace("\x1b[K", "").split("\r")), "wider than the terminal: %r" % shown
    shown, _ = on_terminal(cluster, "get", "home:/bar.bin", source + ".back")
    assert "\r[" in shown and shown.endswith("\r\x1b[K"), repr(shown)
    for quiet in ("-q", "--json"):
        shown, _ = on_terminal(cluster, "put", quiet, source, "home:/bar.bin")
        assert shown == "", "%s: %r" % (quiet, shown)
    process = cluster.start("put", source, "home:/bar.bin")
    assert process.communicate(timeout=120)[1] == b"", "a bar where no terminal is"


class Follower:
    """`cairn changes --follow`; what it has said so far."""

    def __init__(self, cluster, cursor):
        self.process = cluster.start("changes", "home", "--follow", "--json", "--cursor", str(cursor))
        self.lines = []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def wait(self, count):
        wait_until(lambda: len(self.lines) >= count or self.process.poll() is not None, 90, "%d events, there are %d" % (count, len(self.lines)))
        if self.process.poll() is not None:
            raise Failed("the follower ended: %s" % self.process.stderr.read().decode(errors="replace"))

    def end(self):
        self.process.terminate()
        self.thread.join()
        self.process.stderr.close()
        self.process.wait()


def follow(cluster, work):
    """Events come while it follows, each once, in order, also when the leader dies; a second follower resumes anywhere."""
    small = os.path.join(work, "small")
    write_random(small, 500, 8)
    start = cluster.lines("changes", "home")[-1]["sequence"]
    follower = Follower(cluster, start)
    cluster.run("mkdir", "home:/followed")
    follower.wait(1)
    for i in range(5):
        cluster.put(small, "home:/followed/%d" % i)
    follower.wait(6)
    leader = wait_until(lambda: cluster.leader(1), 30, "a leader of group 1")
    cluster.kill(leader)
    for i in range(5):
        cluster.put(small, "home:/followed/after-%d" % i)
    cluster.run("mv", "home:/followed/0", "home:/followed/moved")
    cluster.run("rm", "home:/followed/1")
    follower.wait(13)
    cluster.start_node(leader)
    cluster.run("rm", "-r", "home:/followed")
    follower.wait(14)
    whole = cluster.lines("changes", "home", "--cursor", str(start))
    follower.end()
    assert [e["sequence"] for e in whole] == list(range(start + 1, start + 15)), whole
    assert follower.lines == whole, "followed %s\nthere are %s" % (follower.lines, whole)
    assert [e["kind"] for e in whole] == ["create"] * 11 + ["move", "remove", "remove"], [e["kind"] for e in whole]
    again = Follower(cluster, start + 7)
    again.wait(7)
    again.end()
    assert again.lines == whole[7:], again.lines


def read_history(path):
    """The operations a history tells: [(op, outcome, error, results)]; each is invoked once and then completed once."""
    begun, out, last = {}, [], 0
    with open(path, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            key = (row["process"], row["id"])
            assert row["ns"] > 0 and row["phase"] in ("invoke", "complete"), row
            if row["phase"] == "invoke":
                assert key not in begun and row["id"] > last and isinstance(row["args"], dict), row
                last = row["id"]
                begun[key] = row
            else:
                invoke = begun.pop(key)
                assert invoke["op"] == row["op"] and invoke["ns"] <= row["ns"], (invoke, row)
                out.append((row["op"], row["outcome"], row["error"], row["results"]))
    assert not begun, "never completed: %s" % begun
    os.unlink(path)
    return out


def history(cluster, work):
    """Each mutation and each read of contents stands there with how it ended."""
    path, small = os.path.join(work, "history"), os.path.join(work, "small")
    write_random(small, 5000, 9)
    for arguments, op in (
        (["put", small, "home:/h"], "put"),
        (["get", "home:/h", small + ".h"], "get"),
        (["mkdir", "home:/hd"], "mkdir"),
        (["mv", "home:/h", "home:/hd/h"], "mv"),
        (["rm", "-r", "home:/hd"], "rm"),
    ):
        cluster.run(*arguments, "--history", path)
        rows = read_history(path)
        assert [row[:3] for row in rows if row[0] == op] == [(op, "ok", "OK")], (op, rows)
    cluster.run("put", small, "home:/h", "--history", path)
    put = read_history(path)[-1]
    entry = cluster.lines("stat", "home:/h")[0]
    assert put[0] == "put" and put[3]["version"] == entry["version"] and put[3]["bytes"] == 5000, (put, entry)
    cluster.put(small, "home:/taken")
    cluster.run("mv", "home:/h", "home:/taken", "--history", path, codes=(9,))
    rows = read_history(path)
    assert rows[-1] == ("mv", "fail", "EXISTS", {}), rows
    history_unknown(cluster, work, path)


def history_unknown(cluster, work, path):
    """The quorum goes while a file is stored: nobody can say whether it will be there."""
    large = os.path.join(work, "large.bin")
    write_random(large, 192 << 20, 10)
    process = cluster.start("put", large, "home:/large.bin", "--timeout", "3", "--history", path)
    wait_until(lambda: os.path.exists(path) and '"op":"put"' in open(path, encoding="utf-8").read(), 60, "the upload begins")
    for name in ("metad1", "metad2"):
        cluster.kill(name)
    text = b"".join(process.communicate(timeout=120)).decode(errors="replace")
    assert process.returncode == 7, "exit code %d\n%s" % (process.returncode, text)
    puts = [row for row in read_history(path) if row[0] == "put"]
    assert len(puts) == 1 and puts[0][1] == "unknown" and puts[0][3] == {}, puts
    for name in ("metad1", "metad2"):
        cluster.start_node(name)
    wait_until(lambda: cluster.run("ls", "home:/", codes=(0, 7))[0] == 0, 60, "a quorum")
    cluster.put(large, "home:/large.bin")


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-commands-") as work:
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            for row in (mkdir_parents, move_force, transfers_and_rm, progress_bar, follow, history):
                row(cluster, work)
                print("%s: held" % row.__name__, flush=True)
    print("commands: every row held")


main()
