#!/usr/bin/env python3
"""Failing disks under load: the data of one metadata node and of one block server lie on faultdisk.c, which fails on demand. The
cluster goes on; the daemon either goes on too or halts with a named error, never by a signal or a broken assertion; what was
acknowledged stays; and a start brings it back, unless its disk lost what it had promised: then it may halt and say so.
Usage: disk.py BIN_DIR [--only PART] [--rounds N] [--quick 1]"""

import contextlib
import json

from cut import CAPACITY_BYTES
from faultdisk import FaultDisk, need_faultdisk
from nodes import START_S, Failed, say, wait_until
from trial import need_root, options, prepared, run_trial

HANG_MS = 600000  # until it is cleared
RUNS, HALTS = "runs", "halts"
EXIT_CODES = {"IO": 1, "CORRUPT": 8}


class Fault:
    """`count` operations of `kind` on files under `part`; the daemon then runs, or halts with one of `codes`. `restart`: it is
    killed and started behind the fault, which is when it reads what it has. `at_start`: the fault is there while it starts.
    `loses`: its disk has lost what it promised, so that it may halt for good. `plain`: the daemon runs without io_uring, because
    Linux (6.18 at least) goes on with a short direct write to FUSE by putting the rest where the write began."""

    def __init__(self, role, kind, part, count, expect, codes=(), restart=False, at_start=False, loses=False, plain=False):
        self.role, self.kind, self.part, self.count, self.expect, self.codes = role, kind, part, count, expect, codes
        self.restart, self.at_start, self.loses, self.plain = restart, at_start, loses, plain

    def __str__(self):
        return "%s %s%s" % (self.role, self.kind, " at start" if self.at_start else "")


FAULTS = (
    Fault("metad", "write-short", "/log/", 3, RUNS, restart=True, plain=True),
    Fault("metad", "write-eio", "/log/", 1, HALTS, ("IO",)),
    Fault("metad", "sync-eio", "/log/", 1, HALTS, ("IO",)),
    Fault("metad", "hang", "/log/", 1, RUNS, restart=True),
    Fault("metad", "read-eio", "/log/", 1, HALTS, ("IO",), at_start=True),
    Fault("metad", "read-rot", "/log/", 1, HALTS, ("CORRUPT",), at_start=True),
    Fault("blockd", "write-short", "/segments/", 3, RUNS, restart=True, plain=True),
    Fault("blockd", "write-eio", "/segments/", 1, RUNS),
    Fault("blockd", "sync-eio", "/segments/", 1, RUNS),
    Fault("blockd", "hang", "/segments/", 1, RUNS),
    Fault("blockd", "read-eio", "/segments/", 4, RUNS),
    Fault("blockd", "read-rot", "/segments/", 4, RUNS),
    Fault("blockd", "write-lost", "/segments/", 2, RUNS, restart=True),
    Fault("blockd", "write-stale", "/segments/", 2, RUNS, restart=True),
    Fault("metad", "write-stale", "/log/", 1, RUNS, ("CORRUPT",), restart=True, loses=True),
    Fault("metad", "write-lost", "/log/", 1, RUNS, ("CORRUPT",), restart=True, loses=True),
)
QUICK = ("metad sync-eio", "metad hang", "blockd sync-eio", "blockd write-stale")


def fatal_code(node):
    """The code it halted with, None when it said nothing of the kind."""
    for line in reversed(node.said().splitlines()):
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if said.get("level") == "fatal":
                return said["code"]
    return None


def expect_halt(node, fault):
    """It has ended, by itself and by name."""
    node.process.wait(START_S)
    code = fatal_code(node)
    if code not in fault.codes or node.process.returncode != EXIT_CODES[code]:
        raise Failed("%s: %s ended with %s and code %s, not one of %s:\n%s" % (fault, node.name, node.process.returncode, code, fault.codes,
                                                                          node.said()[-2000:]))
    return "halted with " + code


def ends_or_listens(node):
    try:
        return node.listens()
    except Failed:
        return True


def meet(node, disk, fault, load):
    """The fault happens while the daemon runs; what became of it."""
    disk.fault(fault.kind, fault.part, fault.count, HANG_MS)
    wait_until(lambda: not node.alive() or int(disk.done(fault.kind)) >= fault.count, START_S, "%s to happen" % fault)
    load.progress(5)
    if fault.expect == HALTS:
        return expect_halt(node, fault)
    if not node.alive():
        raise Failed("%s: %s ended with %s:\n%s" % (fault, node.name, node.process.returncode, node.said()[-2000:]))
    return "went on"


def meet_at_start(node, disk, fault, load):
    """The fault is there while the daemon starts; what became of it."""
    node.kill()
    disk.fault(fault.kind, fault.part, fault.count)
    node.start()
    wait_until(lambda: ends_or_listens(node) and (not node.alive() or int(disk.done(fault.kind)) >= fault.count), START_S, "%s to happen" % fault)
    load.progress(5)
    if fault.expect == HALTS and not node.alive():
        return expect_halt(node, fault)
    return "went on"


def come_back(live, node, fault):
    """Started if need be; it takes part again, or halts by name where its disk lost what it had promised."""
    node.environment.clear()
    if fault.restart:
        node.kill()
    if not node.alive():
        node.start()
    wait_until(lambda: ends_or_listens(node), START_S, "%s to start" % node.name)
    if fault.loses:
        wait_until(lambda: not node.alive() or live.led(), START_S, "%s to take part or to halt" % node.name)
    if not node.alive() and fault.loses:
        live.lost.add(node.name)
        return "; then it stays down: %s" % expect_halt(node, fault)
    live.serve()
    return "; takes part again"


def lead(live, node):
    """Lets others be killed until this one leads the namespaces' group, or gives up after a few."""
    for _ in range(4):
        leader = live.leader_node()
        if leader is node:
            return
        leader.kill()
        live.leader_node()
        live.begin([leader])
        live.serve()


def run_plain(live, node):
    node.kill()
    node.environment["CAIRN_NO_URING"] = "1"
    live.begin([node])
    live.serve()


def disk_campaign(trial, made, only="", rounds=1, quick=0):
    for _ in range(rounds):
        for fault in FAULTS:
            node, disk = made[fault.role]
            if only not in str(fault) or (quick and str(fault) not in QUICK):
                continue
            if node.name in trial.live.lost:
                say("%s: not tried, %s is down", fault, node.name)
                continue
            if fault.plain:
                run_plain(trial.live, node)
            if node.role == "metad":
                lead(trial.live, node)
            leads = node is trial.live.leader_node()
            act = meet_at_start if fault.at_start else meet
            became = act(node, disk, fault, trial.load)
            disk.clear()
            say("%s%s: %s%s", fault, " (leads)" if leads else "", became, come_back(trial.live, node, fault))


@contextlib.contextmanager
def failing_disks(trial):
    """{role: (node, disk)} of one metadata node and one block server; unmounted at the end."""
    need_root()
    need_faultdisk(trial.bin_dir)
    made = {}
    try:
        for node in (trial.live.metads[0], trial.live.blockds[0]):
            disk = FaultDisk(trial.bin_dir, node, trial.random)
            made[node.role] = (node, disk)
            if node.role == "blockd":
                node.setting("capacity_bytes", str(CAPACITY_BYTES))
            disk.make()
        yield made
    finally:
        for _, disk in made.values():
            disk.clear_if_mounted()
        trial.live.end()
        for _, disk in made.values():
            disk.unmount()


def main():
    args = options(__doc__, only="", rounds=1, quick=0)
    with prepared(args.bin, args.seed, args.keep) as trial, failing_disks(trial) as made:
        trial.live.begin()
        trial.live.serve()
        trial.load.begin()
        trial.load.progress(5)
        disk_campaign(trial, made, args.only, args.rounds, args.quick)
        trial.conclude()


if __name__ == "__main__":
    run_trial(main)
