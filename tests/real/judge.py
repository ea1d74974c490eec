"""The judge: are the records of load.py explained by one order of all mutations? The order is the change feed's, read at the
end, and everything follows from it:

  1. the feed has no gap, and each event was caused by exactly one operation that was invoked;
  2. each acknowledged mutation stands in it at the sequence the answer named; one that failed does not stand in it;
  3. an operation that was answered before another was invoked comes before it (linearizability of writes);
  4. each read (get, list, changes) shows the state at one point of the order that lies between what was answered before it was
     invoked and what was invoked after it was answered, and reads do not go back in time;
  5. what is there at the end is what the feed says, byte for byte.

Points for reads are chosen greedily in the order of their invocation, each the earliest possible: if any choice exists, that
one does."""

import bisect
import collections

from load import EXPECTED
from nodes import Failed

MUTATIONS = ("put", "mv", "rm", "mkdir")


def split(path):
    """(folder, name) of "home:/a/b"."""
    folder, _, name = path.split(":/", 1)[1].rpartition("/")
    return folder, name


class Feed:
    """The events, and the state after each: {(folder, name): version} per sequence as lists of (sequence, version or None)."""

    def __init__(self, events):
        self.events = events
        self.folders = {1: ""}
        self.names = collections.defaultdict(list)
        self.listing = collections.defaultdict(list)  # folder -> [(sequence, {name: version})]
        state = collections.defaultdict(dict)
        for at, event in enumerate(events):
            if event["sequence"] != at + 1:
                raise Failed("the feed has sequence %d at place %d" % (event["sequence"], at + 1))
            self.apply(event, state)

    def folder(self, event, key="parent"):
        if event[key] not in self.folders:
            raise Failed("event %d: folder %d is not in the feed" % (event["sequence"], event[key]))
        return self.folders[event[key]]

    def apply(self, event, state):
        folder, name, sequence = self.folder(event), event["name"], event["sequence"]
        if event["kind"] == "create" and event["entry_kind"] == "folder":
            self.folders[event["id"]] = name if folder == "" else folder + "/" + name
        changed = {(folder, name): None if event["kind"] == "remove" else event["version"]}
        if event["kind"] == "move":
            changed[self.folder(event, "from_parent"), event["from_name"]] = None
        for (where, what), version in changed.items():
            self.names[where, what].append((sequence, version))
            if version is None:
                state[where].pop(what, None)
            else:
                state[where][what] = version
            if where == "hot":
                self.listing[where].append((sequence, dict(state[where])))
        self.state = state

    def key(self, event):
        """What an operation must have asked for to cause this event."""
        target = (self.folder(event), event["name"])
        if event["kind"] == "move":
            return ("mv", (self.folder(event, "from_parent"), event["from_name"]), target)
        if event["kind"] == "remove":
            return ("rm", target, None)
        if event["entry_kind"] == "folder":
            return ("mkdir", target, None)
        return ("put", target, event["bytes"])

    def at(self, where, sequence):
        """The version of a name after this sequence, None when there is none."""
        history = self.names.get(where, [])
        i = bisect.bisect_right(history, sequence, key=lambda entry: entry[0])
        return history[i - 1][1] if i else None

    def listed(self, folder, sequence):
        history = self.listing[folder]
        i = bisect.bisect_right(history, sequence, key=lambda entry: entry[0])
        return history[i - 1][1] if i else {}


def key_of(record):
    if record["op"] == "mv":
        return ("mv", split(record["path"]), split(record["to"]))
    return (record["op"], split(record["path"]), record["bytes"] if record["op"] == "put" else None)


class Judge:
    """`judge` raises Failed with what is wrong, all of it up to a few lines; otherwise `summary` says what was believed."""

    def __init__(self, records, events):
        self.records = records
        self.feed = Feed(events)
        self.wrong = []
        self.owner = {}  # sequence -> record
        self.tags = {}  # version -> tag
        self.reads = 0

    def complain(self, text, *arguments):
        self.wrong.append(text % arguments)

    def match_acknowledged(self):
        for record in self.records:
            if record["op"] not in MUTATIONS or record["outcome"] != "ok":
                continue
            sequence = record["sequence"]
            if not sequence or sequence > len(self.feed.events):
                self.complain("LOST: %s %s acknowledged at sequence %s, the feed ends at %d", record["op"], record["path"], sequence,
                              len(self.feed.events))
                continue
            found = self.feed.key(self.feed.events[sequence - 1])
            if found != key_of(record):
                self.complain("LOST: %s acknowledged at sequence %d, where the feed has %s", key_of(record), sequence, found)
            elif sequence in self.owner:
                self.complain("sequence %d was given to two: %s and %s", sequence, record["client"], self.owner[sequence]["client"])
            self.owner[sequence] = record

    def match_unknown(self):
        """Events nobody was told of: each belongs to the earliest unanswered operation that asked for it."""
        waiting = collections.defaultdict(list)
        for record in sorted(self.records, key=lambda r: r["invoke_ns"]):
            if record["op"] in MUTATIONS and record["outcome"] == "unknown":
                waiting[key_of(record)].append(record)
        for event in self.feed.events:
            sequence = event["sequence"]
            if sequence in self.owner:
                continue
            key = self.feed.key(event)
            if not waiting[key]:
                self.complain("event %d (%s) was asked for by nobody, or more often than asked", sequence, key)
                continue
            self.owner[sequence] = waiting[key].pop(0)

    def bounds(self):
        """floor(t): the highest sequence answered before t; ceiling(t): one below the lowest invoked after t."""
        done = sorted((r["complete_ns"], s) for s, r in self.owner.items() if r["outcome"] == "ok")
        begun = sorted((r["invoke_ns"], s) for s, r in self.owner.items())
        times_done, times_begun = [t for t, _ in done], [t for t, _ in begun]
        highest, lowest = [0], [len(self.feed.events) + 1]
        for _, sequence in done:
            highest.append(max(highest[-1], sequence))
        for _, sequence in reversed(begun):
            lowest.append(min(lowest[-1], sequence))
        lowest.reverse()
        self.floor = lambda t: highest[bisect.bisect_left(times_done, t)]
        self.ceiling = lambda t: lowest[bisect.bisect_right(times_begun, t)] - 1

    def check_order(self):
        for sequence, record in self.owner.items():
            before = self.floor(record["invoke_ns"])
            if before >= sequence:
                self.complain("%s at sequence %d was invoked after sequence %d had been answered", key_of(record), sequence, before)
            if record["op"] == "put":
                version = self.feed.events[sequence - 1]["version"]
                if record["outcome"] == "ok" and record["version"] != version:
                    self.complain("put at sequence %d was told version %s, the feed says %s", sequence, record["version"], version)
                self.tags[version] = record["tag"]

    def shows(self, record, sequence):
        """Whether a read's answer is the state after this sequence."""
        if record["op"] == "list":
            return record["value"] == self.feed.listed("hot", sequence)
        if record["op"] == "changes":
            last = record["value"][-1]["sequence"] if record["value"] else record["path"]
            return last == sequence
        version = self.feed.at(split(record["path"]), sequence)
        if record["outcome"] == "fail":
            return version is None
        return version is not None and version == record["version"] and self.tags.get(version) == record["value"]

    def check_changes(self, record):
        if record["value"] != self.feed.events[record["path"]:record["path"] + len(record["value"])]:
            self.complain("changes behind %d are not what the feed says in the end", record["path"])

    def check_reads(self):
        chosen = []  # (complete_ns, highest point so far), by completion
        reads = [r for r in self.records if r["op"] in ("get", "list", "changes") and r["outcome"] != "unknown"]
        reads += [r for r in self.records if r["op"] == "rm" and r["outcome"] == "fail" and r["code"] == 3]
        for record in sorted(reads, key=lambda r: r["invoke_ns"]):
            self.reads += 1
            if record["value"] == "WRONG BYTES":
                self.complain("WRONG BYTES: get %s", record["path"])
                continue
            if record["op"] == "changes":
                self.check_changes(record)
            low, high = self.floor(record["invoke_ns"]), self.ceiling(record["complete_ns"])
            at = bisect.bisect_left(chosen, record["invoke_ns"], key=lambda entry: entry[0])
            low = max(low, chosen[at - 1][1] if at else 0)
            point = next((s for s in range(low, high + 1) if self.shows(record, s)), None)
            if point is None:
                self.complain("%s %s by %s answered %.200r (version %s, %s), which it was at no point of sequences %d to %d", record["op"],
                              record["path"], record["client"], record["value"], record["version"], record["outcome"], low, high)
                continue
            self.insert(chosen, record["complete_ns"], point)

    @staticmethod
    def insert(chosen, when, point):
        """Keeps `chosen` sorted by time with points that never fall."""
        at = bisect.bisect_left(chosen, when, key=lambda entry: entry[0])
        chosen.insert(at, (when, max(point, chosen[at - 1][1] if at else 0)))
        for i in range(at + 1, len(chosen)):
            if chosen[i][1] >= point:
                break
            chosen[i] = (chosen[i][0], point)

    def check_codes(self):
        for record in self.records:
            if record["hung"]:
                self.complain("HUNG: %s %s by %s", record["op"], record["path"], record["client"])
            elif record["code"] not in EXPECTED[record["op"]]:
                self.complain("%s %s ended with %s: %s", record["op"], record["path"], record["code"], record["text"])

    def check_end(self, tree):
        """`tree`: {(folder, name): tag or None for wrong bytes} of everything read back at the end."""
        expected = {(folder, name): self.tags.get(version) for folder, names in self.feed.state.items() for name, version in names.items()
                    if version}
        for where in sorted(set(expected) | set(tree)):
            if tree.get(where, "nothing") != expected.get(where, "nothing"):
                self.complain("%s holds %s at the end, the feed says %s", where, tree.get(where, "nothing"), expected.get(where, "nothing"))
        self.files = len(expected)

    def judge(self, tree):
        self.check_codes()
        self.match_acknowledged()
        self.match_unknown()
        self.bounds()
        self.check_order()
        self.check_reads()
        self.check_end(tree)
        if self.wrong:
            raise Failed("%d things are wrong, the first:\n  %s" % (len(self.wrong), "\n  ".join(self.wrong[:12])))

    def summary(self):
        mutations = [r for r in self.records if r["op"] in MUTATIONS]
        count = collections.Counter(r["outcome"] for r in mutations)
        return "%d events, %d mutations acknowledged, %d refused, %d unanswered; %d reads; %d files read back at the end: all explained" % (
            len(self.feed.events), count["ok"], count["fail"], count["unknown"], self.reads, self.files)
