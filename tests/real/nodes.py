"""A development cluster whose daemons this process starts itself, so that it can stop them by any signal, put their data
on other file systems, and run them in network namespaces. `cairn dev up` makes the directory; everything after is here."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cluster"))
from cluster import Cluster, Failed, wait_until  # noqa: E402

SKIP = 77  # exit code: what the test needs is not permitted here
START_S = 120
END_S = 60


class NotPermitted(Exception):
    """The machine does not let the test do what it is about."""


class Node:
    """One daemon. `prefix` are words before its command (a network namespace); `process` is None while it is down."""

    def __init__(self, bin_dir, directory):
        self.dir = directory
        self.name = os.path.basename(directory)
        self.role = "metad" if self.name.startswith("metad") else "blockd"
        self.binary = os.path.join(os.path.abspath(bin_dir), self.role)
        self.config = os.path.join(directory, "node.toml")
        self.prefix = []
        self.environment = {}
        self.process = None
        self.log_from = 0

    @property
    def data(self):
        return os.path.join(self.dir, "data" if self.role == "metad" else "store1")

    @property
    def log_path(self):
        return os.path.join(self.dir, "log")

    def said(self):
        """What its log holds since the last start."""
        with open(self.log_path, "rb") as f:
            f.seek(self.log_from)
            return f.read().decode(errors="replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        assert not self.alive(), self.name
        with open(self.log_path, "ab") as log:
            self.log_from = log.tell()
            self.process = subprocess.Popen([*self.prefix, self.binary, "--config", self.config], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd="/", start_new_session=True,
                                            env=dict(os.environ, **self.environment))

    def listens(self):
        """True once it does; Failed when it ended instead."""
        if "listening on" in self.said():
            return True
        if not self.alive():
            raise Failed("%s ended with %s while it started:\n%s" % (self.name, self.process.returncode, self.said()[-3000:]))
        return False

    def signal(self, number):
        if self.alive():
            self.process.send_signal(number)

    def kill(self):
        """SIGKILL, and the end of the process."""
        self.signal(signal.SIGKILL)
        self.process.wait(END_S)

    def setting(self, key, value):
        """Replaces one key of its configuration; `value` as it stands in the file."""
        rewrite(self.config, key, value)


def rewrite(path, key, value):
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text, count = re.subn(r"^%s = .*$" % key, lambda _: "%s = %s" % (key, value), text, flags=re.M)
    assert count == 1, (path, key)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


class Live(Cluster):
    """The cluster; made, not yet running. `prefix` are words before each command of a client."""

    def __init__(self, bin_dir, directory):
        super().__init__(bin_dir, directory)
        self.prefix = []
        self.up()
        self.down()
        names = [node["name"] for node in self.ps()]
        self.nodes = {name: Node(bin_dir, os.path.join(self.dir, name)) for name in names}
        self.metads = [node for node in self.nodes.values() if node.role == "metad"]
        self.blockds = [node for node in self.nodes.values() if node.role == "blockd"]
        self.lost = set()  # names of nodes that halted for good; the others are to serve without them

    def start(self, *arguments, timeout=120):
        environment = dict(os.environ, CAIRN_CONFIG=self.config)
        return subprocess.Popen([*self.prefix, self.cairn, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=environment)

    def begin(self, nodes=None):
        """Starts these (all), and returns when they listen."""
        nodes = list(self.nodes.values()) if nodes is None else nodes
        for node in nodes:
            node.start()
        for node in nodes:
            wait_until(node.listens, START_S, "%s to listen" % node.name)

    def members(self):
        """{group: [(name, answered, lag)]}, {group: leader or None}; empty while nobody answers."""
        try:
            lines = self.lines("admin", "groups", "--timeout", "3")
        except Failed:
            return {}, {}
        return ({line["group"]: [(m["name"], m["answered"], m.get("lag", 0)) for m in line["members"]] for line in lines},
                {line["group"]: line["leader"] or None for line in lines})

    def led(self):
        """True when each group has a leader whom every member answers without much lag."""
        members, leaders = self.members()
        return bool(leaders) and all(leaders.values()) and all(
            name in self.lost or (answered and lag < 64) for group in members.values() for name, answered, lag in group)

    def stores_up(self):
        with contextlib.suppress(Failed):
            return self.lines("admin", "status", "--timeout", "3")[-1]["stores_up"]
        return 0

    def all_alive(self):
        """True; Failed, with what it said, when a node that was started has ended."""
        for node in self.nodes.values():
            if not node.alive() and node.name not in self.lost:
                raise Failed("%s ended with %s:\n%s" % (node.name, node.process.returncode, node.said()[-2000:]))
        return True

    def serve(self, seconds=START_S):
        """Returns when all nodes take part: each group led and followed by all, each store up."""
        wait_until(lambda: self.all_alive() and self.led(), seconds, "all metadata nodes to follow a leader")
        wait_until(lambda: self.all_alive() and self.stores_up() == len(self.blockds), seconds, "all stores up")

    def whole(self):
        """True when every chunk has all its shards."""
        with contextlib.suppress(Failed):
            found = self.lines("admin", "status", "--timeout", "3")[-1]["chunks_by_missing"]
            return found is not None and set(found) <= {"0"}
        return False

    def heal(self, seconds=300):
        """Starts what is down and returns when the cluster says that nothing is missing, without any other step."""
        self.begin([node for node in self.nodes.values() if not node.alive() and node.name not in self.lost])
        self.serve(seconds)
        wait_until(self.whole, seconds, "every chunk whole")

    def end(self):
        """Ends whatever runs, stopped processes too."""
        for node in self.nodes.values():
            node.signal(signal.SIGKILL)
        for node in self.nodes.values():
            if node.process is not None:
                node.process.wait(END_S)

    def leader_node(self, group=1):
        """The node that leads the group now, waited for."""
        name = wait_until(lambda: self.members()[1].get(group), START_S, "a leader of group %d" % group)
        return self.nodes[name]

    def tails(self, lines=5):
        """The last of each log that is no complaint about a peer that does not answer."""
        out = []
        for node in self.nodes.values():
            with contextlib.suppress(OSError):
                with open(node.log_path, encoding="utf-8", errors="replace") as f:
                    told = [line for line in f.read().splitlines() if '"no connection to' not in line]
                    out += ["  %s: %s" % (node.name, line) for line in told[-lines:]]
        return "\n".join(out)


@contextlib.contextmanager
def alive(live):
    """The cluster ends with the block, and says what its logs ended with when the block failed."""
    try:
        yield live
    except NotPermitted:
        raise
    except (Exception, KeyboardInterrupt):
        print(live.tails(), file=sys.stderr)
        raise
    finally:
        live.end()


def holders(path):
    """Processes that have something open under the path, or see it mounted from a mount namespace of their own."""
    found = []
    own = os.readlink("/proc/self/ns/mnt")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            links = ["/proc/%s/%s" % (pid, name) for name in ("cwd", "root")]
            links += ["/proc/%s/fd/%s" % (pid, fd) for fd in os.listdir("/proc/%s/fd" % pid)]
            held = any(os.readlink(link).startswith(path + "/") or os.readlink(link) == path for link in links if os.path.lexists(link))
            with open("/proc/%s/mounts" % pid, encoding="utf-8", errors="replace") as f:
                seen = os.readlink("/proc/%s/ns/mnt" % pid) != own and any(line.split()[1] == path for line in f)
            with open("/proc/%s/comm" % pid, encoding="utf-8", errors="replace") as f:
                found += ["%s %s%s" % (pid, f.read().strip(), "" if held else " (its mount namespace)")] if held or seen else []
    return found


def unmount(path):
    """Unmounts it. When it stays busy: Failed with who holds it, and it is detached, so that nobody else hangs on it."""
    told = []

    def tried():
        result = subprocess.run(["umount", path], capture_output=True, check=False)
        told[:] = [result.stderr.decode(errors="replace").strip()]
        return result.returncode == 0

    try:
        wait_until(tried, END_S, "%s to be unmounted" % path)
    except Failed as failure:
        held = holders(path)
        subprocess.run(["umount", "-l", path], capture_output=True, check=False)
        raise Failed("%s: %s; held by %s" % (failure, told[0], ", ".join(held) or "nobody that can be seen")) from failure


def say(text, *arguments):
    print(time.strftime("%H:%M:%S ") + text % arguments, flush=True)
