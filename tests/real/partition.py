#!/usr/bin/env python3
"""Partitions of real networks under load. Each daemon, and the clients, have a network namespace of their own on one bridge; a
rule of nft in the receiver's namespace drops what another sends, so that each direction is cut by itself, or resets connections.
With each partition the load must go on; then it heals. Usage: partition.py BIN_DIR [--rounds N] [--quick 1]"""

import contextlib
import json
import os
import shutil
import subprocess

from nodes import Failed, NotPermitted, rewrite, say
from trial import need_root, options, prepared, run_trial

NET = "10.91.0."
CLIENTS = "clients"
TRIES = 3  # the lead may move between asking who leads and cutting him off


def command(*arguments):
    result = subprocess.run(arguments, capture_output=True, check=False)
    if result.returncode != 0:
        raise Failed("%s: exit code %d: %s" % (" ".join(arguments), result.returncode, result.stderr.decode(errors="replace").strip()))
    return result.stdout


class Network:
    """Namespaces by name, each with an address, all on a bridge in one more."""

    def __init__(self, names):
        self.names = list(names)
        self.made = []
        self.address = {name: NET + str(i + 1) for i, name in enumerate(self.names)}

    def space(self, name):
        return "cairn%d-%s" % (os.getpid(), name)

    def inside(self, name):
        """The words before a command that runs there."""
        return ["ip", "netns", "exec", self.space(name)]

    def make_space(self, name):
        command("ip", "netns", "add", self.space(name))
        self.made.append(name)
        command(*self.inside(name), "ip", "link", "set", "lo", "up")

    def make(self):
        try:
            self.make_space("switch")
            switch = self.inside("switch")
            command(*switch, "ip", "link", "add", "name", "br0", "type", "bridge")
            command(*switch, "nft", "add table ip cut")
        except Failed as failure:
            raise NotPermitted("network namespaces, bridges, nft: %s" % failure) from failure
        command(*switch, "ip", "link", "set", "br0", "up")
        for i, name in enumerate(self.names):
            self.make_space(name)
            command(*switch, "ip", "link", "add", "name", "v%d" % i, "type", "veth", "peer", "name", "eth0", "netns", self.space(name))
            command(*switch, "ip", "link", "set", "v%d" % i, "master", "br0", "up")
            command(*self.inside(name), "ip", "address", "add", self.address[name] + "/24", "dev", "eth0")
            command(*self.inside(name), "ip", "link", "set", "eth0", "up")
            command(*self.inside(name), "nft", "add table ip cut; add chain ip cut in { type filter hook input priority 0; }")

    def deafen(self, name, others):
        """Nothing that `others` send arrives at `name` any more."""
        for other in others:
            if other != name:
                command(*self.inside(name), "nft", "add rule ip cut in ip saddr %s counter drop" % self.address[other])

    def reset(self, name, others, one_in):
        """Of what `others` send to `name` one packet in so many resets its connection instead."""
        for other in others:
            if other != name:
                command(*self.inside(name), "nft", "add rule ip cut in ip saddr %s meta l4proto tcp numgen random mod %d == 0 counter "
                        "reject with tcp reset" % (self.address[other], one_in))

    def separate(self, some, others):
        for name in some:
            self.deafen(name, others)
        for name in others:
            self.deafen(name, some)

    def dropped(self):
        """Packets that the rules dropped since they were made."""
        packets = 0
        for name in self.names:
            for rule in json.loads(command(*self.inside(name), "nft", "-j", "list chain ip cut in"))["nftables"]:
                packets += sum(part["counter"]["packets"] for part in rule.get("rule", {}).get("expr", []) if "counter" in part)
        return packets

    def heal(self):
        for name in self.names:
            command(*self.inside(name), "nft", "flush chain ip cut in")

    def remove(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", self.space(name)], capture_output=True, check=False)


@contextlib.contextmanager
def network(trial):
    """The cluster in namespaces of its own, its configurations changed to their addresses."""
    need_root()
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            raise NotPermitted("lacks %s (iproute2, nftables)" % tool)
    live = trial.live
    made = Network([*live.nodes, CLIENTS])
    try:
        made.make()
        settle(live, made)
        yield made
    finally:
        live.end()
        made.remove()


def settle(live, made):
    ports = {node["name"]: node["addr"].rsplit(":", 1)[1] for node in live.ps()}
    where = {name: "%s:%s" % (made.address[name], ports[name]) for name in live.nodes}
    metads = "[%s]" % ", ".join('"%s@%s"' % (node.name[len("metad"):], where[node.name]) for node in live.metads)
    for node in live.nodes.values():
        node.prefix = made.inside(node.name)
        node.setting("listen", '"%s"' % where[node.name])
        node.setting("metads", metads)
    rewrite(live.config, "metads", metads)
    live.prefix = made.inside(CLIENTS)


# ---- partitions: each takes (trial, network) and says what it did ----


def isolated_leader(trial, net):
    leader = trial.live.leader_node().name
    net.separate([leader], net.names)
    return leader


def bridge(trial, net):
    """The leader and one other do not hear each other, the third and everybody else hears both."""
    leader = trial.live.leader_node()
    other = trial.random.choice([node for node in trial.live.metads if node is not leader])
    net.separate([leader.name], [other.name])
    return "%s | %s" % (leader.name, other.name)


def deaf_leader(trial, net):
    leader = trial.live.leader_node().name
    net.deafen(leader, [node.name for node in trial.live.metads])
    return leader


def mute_leader(trial, net):
    leader = trial.live.leader_node().name
    for node in trial.live.metads:
        net.deafen(node.name, [leader] if node.name != leader else [])
    return leader


def follower_without_clients(trial, net):
    """Whom clients may ask first is one that they cannot hear, while its peers can. It leads no group: clients are not told
    by others what a leader says that they do not reach."""
    leaders = {trial.live.leader_node(group) for group in (0, 1)}
    follower = next(n.name for n in trial.live.metads if n not in leaders)
    net.separate([follower], [CLIENTS])
    return follower


def stores_without_metads(trial, net):
    """They hear of no new map and give no heartbeats, while clients reach them."""
    names = [node.name for node in trial.random.sample(trial.live.blockds, 2)]
    net.separate(names, [node.name for node in trial.live.metads])
    return " and ".join(names)


def stores_gone(trial, net):
    names = [node.name for node in trial.random.sample(trial.live.blockds, 2)]
    net.separate(names, net.names)
    return " and ".join(names)


def deaf_store(trial, net):
    name = trial.random.choice(trial.live.blockds).name
    net.deafen(name, net.names)
    return name


def resets(trial, net):
    """The connections between metads are reset: by chance one packet in fifty, whoever sent it."""
    names = [node.name for node in trial.live.metads]
    for name in names:
        net.reset(name, names, 50)
    return ", ".join(names)


PARTITIONS = (isolated_leader, bridge, deaf_leader, mute_leader, follower_without_clients, stores_without_metads, stores_gone, deaf_store,
              resets)
QUICK = (isolated_leader, bridge, mute_leader)


def endure(trial, net, partition):
    """(what it was, packets dropped, acknowledged meanwhile) of one partition, healed again."""
    what = partition(trial, net)
    before = trial.load.acknowledged
    trial.load.progress(12, 240)
    acknowledged = trial.load.acknowledged - before
    dropped = net.dropped()
    net.heal()
    trial.live.serve()
    return what, dropped, acknowledged


def partition_campaign(trial, net, rounds, partitions=PARTITIONS):
    for _ in range(rounds):
        for partition in partitions:
            name = partition.__name__.replace("_", " ")
            for _ in range(TRIES):
                what, dropped, acknowledged = endure(trial, net, partition)
                if dropped > 0:
                    break
                say("%s (%s): dropped nothing; once more", name, what)
            else:
                raise Failed("%s (%s) dropped nothing, %d times" % (name, what, TRIES))
            say("%s (%s): %d packets dropped, %d acknowledged meanwhile, %d unavailable so far", name, what, dropped, acknowledged,
                trial.load.unavailable)


def main():
    args = options(__doc__, rounds=1, quick=0)
    with prepared(args.bin, args.seed, args.keep) as trial, network(trial) as net:
        trial.live.begin()
        trial.live.serve()
        trial.load.begin()
        trial.load.progress(5)
        partition_campaign(trial, net, args.rounds, QUICK if args.quick else PARTITIONS)
        trial.conclude()


if __name__ == "__main__":
    run_trial(main)
