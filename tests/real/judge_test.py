#!/usr/bin/env python3
"""The judge against a history it must accept and against each way to spoil it, which it must not."""

import copy

from judge import Judge
from nodes import Failed


def event(sequence, kind, name, version=0, size=0, entry="file", parent=2, **more):
    return dict({"sequence": sequence, "kind": kind, "entry_kind": entry, "id": 100 + sequence, "parent": parent, "name": name, "version": version,
                 "bytes": size}, **more)


def record(op, path, invoke, complete, outcome="ok", **more):
    return dict({"op": op, "client": "c", "path": path, "to": None, "bytes": None, "tag": None, "value": None, "sequence": None, "version": None,
                 "invoke_ns": invoke, "complete_ns": complete, "outcome": outcome, "hung": False, "code": 0, "text": ""}, **more)


def put(name, tag, invoke, complete, sequence, version, **more):
    return record("put", "home:/hot/" + name, invoke, complete, tag=tag, bytes=50, sequence=sequence, version=version, **more)


EVENTS = [
    event(1, "create", "hot", entry="folder", parent=1, id=2),
    event(2, "create", "a", 10, 50),
    event(3, "update", "a", 11, 50),
    event(4, "move", "b", 11, 50, from_parent=2, from_name="a"),
    event(5, "create", "a", 12, 50),
    event(6, "remove", "b", 11, 50),
]
RECORDS = [
    record("mkdir", "home:/hot", 0, 1, sequence=1),
    put("a", "t1", 10, 20, 2, 10),
    record("get", "home:/hot/a", 21, 25, value="t1", version=10),
    put("a", "t2", 30, 40, 3, 11),
    record("get", "home:/hot/a", 32, 34, value="t2", version=11),
    record("get", "home:/hot/a", 35, 39, value="t2", version=11),
    record("mv", "home:/hot/a", 50, 60, to="home:/hot/b", sequence=4),
    record("get", "home:/hot/a", 61, 65, "fail", code=3),
    put("a", "t3", 70, None, None, None, outcome="unknown", code=7),
    record("list", "home:/hot", 80, 85, value={"a": 12, "b": 11}),
    record("rm", "home:/hot/b", 90, 95, sequence=6),
    record("rm", "home:/hot/b", 96, 99, "fail", code=3),
    record("changes", 3, 100, 110, value=EVENTS[3:]),
]
TREE = {("hot", "a"): "t3"}


def verdict(spoil):
    """The judge's complaint, None when there is none."""
    records, events, tree = copy.deepcopy(RECORDS), copy.deepcopy(EVENTS), dict(TREE)
    spoil(records, events, tree)
    try:
        Judge(records, events).judge(tree)
    except Failed as failure:
        return str(failure)
    return None


def change(at, **values):
    return lambda records, events, tree: records[at].update(values)


SPOILED = {
    "an acknowledged put that is not in the feed": (lambda r, e, t: r.append(put("z", "t9", 200, 210, 7, 13)), "LOST"),
    "a put told a sequence that is another's": (change(1, sequence=3), "given to two"),
    "a gap in the feed": (lambda r, e, t: e.pop(2), "the feed has sequence"),
    "an event nobody asked for": (lambda r, e, t: e.append(event(7, "create", "z", 13, 50)), "asked for by nobody"),
    "an event for what was refused": (change(8, outcome="fail", code=4), "asked for by nobody"),
    "one unanswered put done twice": (lambda r, e, t: e.append(event(7, "update", "a", 13, 50)), "asked for by nobody"),
    "two answered in the wrong order": (change(3, invoke_ns=70, complete_ns=75), "had been answered"),
    "a read of what was overwritten": (change(4, invoke_ns=41, complete_ns=42, value="t1", version=10), "at no point"),
    "a read that goes back in time": (change(5, value="t1", version=10), "at no point"),
    "a read of what is not yet there": (change(2, value="t2", version=11), "at no point"),
    "a read of another's bytes": (change(4, value="t1"), "at no point"),
    "wrong bytes": (change(2, value="WRONG BYTES"), "WRONG BYTES"),
    "absence of what is there": (change(7, invoke_ns=21, complete_ns=25), "at no point"),
    "a listing of no moment": (change(9, value={"a": 11, "b": 11}), "at no point"),
    "a feed that misses an event": (change(12, value=EVENTS[4:]), "not what the feed says"),
    "a feed that ends too early": (change(12, value=EVENTS[3:4]), "at no point"),
    "a file that is gone at the end": (lambda r, e, t: t.clear(), "at the end"),
    "a removed file that is back": (lambda r, e, t: t.update({("hot", "b"): "t2"}), "at the end"),
    "other bytes at the end": (lambda r, e, t: t.update({("hot", "a"): "t1"}), "at the end"),
    "an unexpected exit code": (change(2, code=8), "ended with 8"),
    "a command that hangs": (change(2, hung=True), "HUNG"),
}


def main():
    nothing = verdict(lambda records, events, tree: None)
    assert nothing is None, nothing
    for what, (spoil, text) in SPOILED.items():
        found = verdict(spoil)
        assert found is not None, "accepted: " + what
        assert text in found, "%s: %s" % (what, found)
    print("1 history accepted, %d refused" % len(SPOILED))


if __name__ == "__main__":
    main()
