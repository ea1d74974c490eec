#!/usr/bin/env python3
"""kill -9 and SIGSTOP under load. Victims are metadata leaders, followers and block servers, never so many at once that no
majority or no safe write is left; each is started again and nothing else is done. After the kill of a leader the time to the
first acknowledged mutation that was invoked after it is taken. Usage: kill.py BIN_DIR [--kills N] [--stops N] [--stop-seconds S]
[--times FILE: each time is appended]"""

import signal
import threading
import time

from nodes import Failed, say, wait_until
from trial import options, prepared, run_trial

PROBE_EVERY_S = 0.1
PROBES_S = 60
LEADER_GOAL_S = 1.5


class Probe:
    """Mutations invoked one after the other after a kill, each by a process of its own, until one is acknowledged: so that the
    pauses between one client's attempts are not taken for the cluster's."""

    def __init__(self, trial, number):
        self.trial, self.number = trial, number
        self.first_ns = None
        self.lock = threading.Lock()

    def one(self, i):
        client = self.trial.client("probe-%d-%d" % (self.number, i))
        path = "home:/probe/k%d-%d" % (self.number, i)
        record = client.run("mkdir", path, path=path)
        if record["outcome"] == "ok":
            with self.lock:
                self.first_ns = min(self.first_ns or record["complete_ns"], record["complete_ns"])

    def seconds(self, since_ns):
        threads = []
        while self.first_ns is None:
            if time.monotonic_ns() > since_ns + PROBES_S * 10**9:
                raise Failed("no mutation acknowledged within %d s of a kill" % PROBES_S)
            threads.append(threading.Thread(target=self.one, args=(len(threads),), daemon=True))
            threads[-1].start()
            time.sleep(PROBE_EVERY_S)
        for thread in threads:
            thread.join(PROBES_S)
        return (self.first_ns - since_ns) / 1e9


def distribution(times):
    ordered = sorted(times)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    within = sum(t <= LEADER_GOAL_S for t in ordered)
    return "%d leaders killed: a mutation acknowledged after %.2f s (least), %.2f (median), %.2f (9 in 10), %.2f (most); %d of %d within %.1f s" % (
        len(ordered), ordered[0], at(0.5), at(0.9), ordered[-1], within, len(ordered), LEADER_GOAL_S)


def choose(trial):
    """(victims, leader or None) of the next kill."""
    live, dice = trial.live, trial.random.random()
    leader = live.leader_node()
    if dice < 0.6:
        victims = [leader]
    elif dice < 0.75:
        victims = [trial.random.choice([n for n in live.metads if n is not leader])]
    else:
        victims = []
    if dice >= 0.75 or dice < 0.2:
        victims += trial.random.sample(live.blockds, trial.random.randint(1, 2))
    return victims, leader if leader in victims else None


def kill_once(trial, number, times):
    victims, leader = choose(trial)
    since_ns = time.monotonic_ns()
    for node in victims:
        node.kill()
    if leader:
        times.append(Probe(trial, number).seconds(since_ns))
    trial.load.progress(trial.random.randint(1, 8))
    trial.live.begin(victims)
    wait_until(trial.live.led, 120, "the killed to follow again")


def stop_once(trial, seconds):
    """The leader stands still; the others go on; it comes back into a world that did."""
    leader = trial.live.leader_node()
    leader.signal(signal.SIGSTOP)
    try:
        begin, before = time.monotonic(), trial.load.acknowledged
        trial.load.progress(4)
        time.sleep(max(0, begin + seconds - time.monotonic()))  # the fault's length, nothing is concluded from it
    finally:
        leader.signal(signal.SIGCONT)
    say("%s stopped for %.0f s: %d acknowledged meanwhile", leader.name, time.monotonic() - begin, trial.load.acknowledged - before)
    wait_until(trial.live.led, 120, "the stopped to follow again")


def kill_campaign(trial, kills, stops, stop_seconds, times):
    for i in range(max(kills, stops)):
        if i < kills:
            kill_once(trial, i, times)
            if (i + 1) % 10 == 0 or i + 1 == kills:
                say("%d kills, %d acknowledged, %d unavailable", i + 1, trial.load.acknowledged, trial.load.unavailable)
        if i < stops:
            stop_once(trial, trial.random.uniform(2, stop_seconds))


def main():
    args = options(__doc__, kills=20, stops=2, stop_seconds=30.0, times="")
    times = []
    with prepared(args.bin, args.seed, args.keep) as trial:
        trial.live.begin()
        trial.live.serve()
        trial.load.begin()
        trial.load.progress(5)
        kill_campaign(trial, args.kills, args.stops, args.stop_seconds, times)
        trial.conclude()
    if times:
        say("%s", distribution(times))
    if args.times:
        with open(args.times, "a", encoding="utf-8") as f:
            f.writelines("%f\n" % t for t in times)


if __name__ == "__main__":
    run_trial(main)
