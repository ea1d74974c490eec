#!/usr/bin/env python3
"""Nine hosts, each a network namespace with an address of its own: a cluster is made on the first, the others join with one-time
tokens (3 metadata nodes, 6 block servers), files go in and come back, a fourth metadata node joins and another one is removed.
Used, expired and foreign tokens are refused. Every daemon listens on all addresses and says another one is its own.
Exits with 77 where network namespaces are not permitted. Usage: join.py BIN_DIR"""

import base64
import json
import os
import signal
import ssl
import struct
import subprocess
import sys
import tempfile
import time

from cluster import Failed, compare, make_tree, tree_sha256, wait_until

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "real"))
from partition import Network  # noqa: E402
from nodes import SKIP, NotPermitted  # noqa: E402

PORT = 7100  # the same on every host: each has an address of its own


class Host:
    """One namespace; at most one daemon, in `dir`."""

    def __init__(self, bin_dir, net, name, work):
        self.bin_dir, self.net, self.name = bin_dir, net, name
        self.dir = os.path.join(work, name)
        self.at = "%s:%d" % (net.address[name], PORT)
        self.log = os.path.join(work, name + ".log")
        self.process = None

    def run(self, program, *arguments, codes=(0,), **more):
        result = subprocess.run([*self.net.inside(self.name), os.path.join(self.bin_dir, program), *arguments], capture_output=True,
                                text=True, timeout=120, check=False, **more)
        if result.returncode not in codes:
            raise Failed("%s: %s %s: exit code %d\n%s%s" % (self.name, program, " ".join(arguments)[:200], result.returncode, result.stdout,
                                                            result.stderr))
        return result.stdout + result.stderr if result.returncode else result.stdout

    def start(self, role):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.net.inside(self.name), os.path.join(self.bin_dir, role), "--config",
                                             os.path.join(self.dir, "node.toml")], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def join(self, token, codes=(0,)):
        return self.run("cairn", "admin", "cluster", "join", "--token", "-", "--dir", self.dir, "--listen", "0.0.0.0:%d" % PORT,
                        "--advertise", self.at, "--host", self.name, codes=codes, input=token)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Operator:
    """Commands on the first host, with its client.toml."""

    def __init__(self, host):
        self.host = host

    def cairn(self, *arguments, codes=(0,)):
        return self.host.run("cairn", *arguments, "--config", os.path.join(self.host.dir, "client.toml"), codes=codes)

    def token(self, role, *more):
        token = self.cairn("admin", "token", "create", "--role", role, *more).strip()
        assert token.startswith("cairn1.") and len(token.split()) == 1, token
        return token

    def members(self):
        lines = [json.loads(line) for line in self.cairn("admin", "groups", "--json").splitlines()]
        return {line["group"]: sorted(m["name"] for m in line["members"] if m["role"] == "voter" and m["answered"]) for line in lines}

    def stores_up(self):
        return json.loads(self.cairn("admin", "status", "--json", codes=(0, 7)).splitlines()[-1]).get("stores_up", 0)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(data, at):
    value = shift = 0
    while True:
        value, shift, at = value | (data[at] & 0x7F) << shift, shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def with_authority(token, der):
    """The token with another authority's certificate in it (field 5 of JoinToken), whole again."""
    raw = base64.urlsafe_b64decode(token[len("cairn1."):] + "=" * (-len(token[len("cairn1."):]) % 4))[4:]
    made, at = b"", 0
    while at < len(raw):
        begin = at
        tag, at = varint(raw, at)
        value, at = varint(raw, at)
        at += value if tag & 7 == 2 else 0
        length = bytes([len(der) & 0x7F | 0x80, len(der) >> 7])
        made += bytes([tag]) + length + der if tag == 5 << 3 | 2 else raw[begin:at]
    whole = struct.pack("<I", crc32c(made)) + made
    return "cairn1." + base64.urlsafe_b64encode(whole).decode().rstrip("=")


def authority_of(directory):
    with open(os.path.join(directory, "ca.crt"), encoding="ascii") as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


def impostor(operator, host, token):
    """Whoever answers where the token says, without a certificate of the authority that the token names, is told nothing."""
    other = Host(host.bin_dir, host.net, host.name, os.path.dirname(host.dir))
    other.dir = host.dir + "-foreign"
    other.run("cairn", "admin", "cluster", "init", "--dir", other.dir, "--listen", "127.0.0.1:1")
    forged = with_authority(token, authority_of(other.dir))
    assert with_authority(forged, authority_of(operator.host.dir)) == token, "the forgery is more than another authority"
    other.dir = host.dir + "-impostor"
    said = other.join(forged, codes=(5,))
    assert "TLS_UNTRUSTED" in said and not os.path.exists(os.path.join(other.dir, "node.crt")), said


def refused_tokens(operator, host, used):
    """None of them leaves a node behind."""
    other = Host(host.bin_dir, host.net, host.name, os.path.dirname(host.dir))
    other.dir = host.dir + "-refused"
    assert "TOKEN_USED" in other.join(used, codes=(5,))
    assert "not a whole one" in other.join(used[:-9], codes=(2,))
    assert "not a whole one" in other.join("cairn1.hello", codes=(2,))
    expired, until = operator.token("metad", "--expires", "1"), time.time() + 2
    wait_until(lambda: time.time() > until, 60, "a token of a second to expire")
    assert "EXPIRED" in other.join(expired, codes=(5,))
    assert not os.path.exists(os.path.join(other.dir, "node.toml")) and not os.path.exists(os.path.join(other.dir, "node.crt"))


def make(operator, hosts):
    """The first metadata node, then the others, by tokens."""
    first = operator.host
    first.run("cairn", "admin", "cluster", "init", "--dir", first.dir, "--listen", "0.0.0.0:%d" % PORT, "--advertise", first.at)
    assert "holds a node already" in first.run("cairn", "admin", "cluster", "init", "--dir", first.dir, "--listen", "0.0.0.0:%d" % PORT,
                                               codes=(9,))
    first.start("metad")
    wait_until(lambda: operator.cairn("ls", "home:/", codes=(0, 7)) is not None and operator.members(), 60, "the first node to serve")
    tokens = {}
    for host in hosts[1:]:
        role = "metad" if host.name.startswith("metad") else "blockd"
        tokens[host.name] = operator.token(role)
        if host is hosts[-1]:
            impostor(operator, host, tokens[host.name])  # and the token is as good as before
        said = host.join(tokens[host.name])
        assert "this is %s of the cluster" % host.name in said, said
        host.start(role)
        if role == "metad":
            operator.cairn("admin", "node", "add", host.name)
    assert operator.members() == {group: ["metad1", "metad2", "metad3"] for group in (0, 1)}, operator.members()
    wait_until(lambda: operator.stores_up() == 6, 60, "six stores")
    return tokens


def change_members(operator, hosts, fourth):
    """A metadata node joins, the first one is removed; the client whose configuration names only that one goes on."""
    fourth.join(operator.token("metad"))
    fourth.start("metad")
    operator.cairn("admin", "node", "replace", "metad1", "--with", "metad4")
    assert operator.members() == {group: ["metad2", "metad3", "metad4"] for group in (0, 1)}, operator.members()
    assert hosts[0].process.wait(30) == 0 and "removed from the cluster" in hosts[0].said(), hosts[0].said()


def keys_are_private(hosts):
    for host in hosts:
        for name in ("node.key", "cluster.key", "bootstrap.toml", "node.toml"):
            path = os.path.join(host.dir, name)
            assert not os.path.exists(path) or os.stat(path).st_mode & 0o77 == 0, path
        assert not os.path.exists(os.path.join(host.dir, "join.key")) and not os.path.exists(os.path.join(host.dir, "ca.key"))
        assert os.path.exists(os.path.join(host.dir, "cluster.key")) == host.name.startswith("metad"), host.name


def run(bin_dir, net, work):
    names = net.names
    hosts = [Host(bin_dir, net, name, work) for name in names[:9]]
    fourth = Host(bin_dir, net, "metad4", work)
    operator = Operator(hosts[0])
    source = os.path.join(work, "source")
    expected = make_tree(source, 11)
    try:
        tokens = make(operator, hosts)
        keys_are_private(hosts)
        operator.cairn("put", source, "home:/tree")
        operator.cairn("get", "home:/tree", os.path.join(work, "first"))
        compare(expected, tree_sha256(os.path.join(work, "first")))
        change_members(operator, hosts, fourth)
        operator.cairn("get", "home:/tree", os.path.join(work, "second"))
        compare(expected, tree_sha256(os.path.join(work, "second")))
        operator.cairn("put", source, "home:/again")
        refused_tokens(operator, hosts[8], tokens["blockd6"])
    except BaseException:
        for host in [*hosts, fourth]:
            if os.path.exists(host.log):
                print(*["  %s: %s" % (host.name, line) for line in host.said().splitlines()[-8:]], sep="\n", file=sys.stderr)
        raise
    finally:
        for host in [*hosts, fourth]:
            host.stop()


def main():
    bin_dir = os.path.abspath(sys.argv[1])
    if os.geteuid() != 0:
        print("skipped: network namespaces need root")
        sys.exit(SKIP)
    names = ["metad1", "metad2", "metad3"] + ["blockd%d" % i for i in range(1, 7)] + ["metad4"]
    net = Network(names)
    try:
        net.make()
        with tempfile.TemporaryDirectory(prefix="cairn-join-") as work:
            run(bin_dir, net, work)
    except NotPermitted as reason:
        print("skipped: %s" % reason)
        sys.exit(SKIP)
    finally:
        net.remove()
    print("nine hosts, each node with a token of its own; one added, one removed")


if __name__ == "__main__":
    main()
