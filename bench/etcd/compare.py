#!/usr/bin/env python3
"""cairn-bench raft beside etcd, in turn, in one run: three nodes each on this machine, 256-byte proposals, synced. etcd
speaks gRPC without TLS, Cairn its own frames over TLS 1.3. Both begin with nothing. One JSON object a run, then the
medians.

usage: compare.py BIN [--runs N] [--in-flight N] [--proposals N] [--machine null|key]

Needs Debian's etcd-server, golang-go and golang-etcd-server-dev; says so when they are not there."""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.realpath(__file__))
PACKAGES = "etcd-server golang-go golang-etcd-server-dev"
TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP = 2000  # proposals before the group is measured: it has a leader and connections


def need_packages():
    if not (shutil.which("etcd") and shutil.which("go") and os.path.isdir("/usr/share/gocode/src/go.etcd.io/etcd")):
        sys.exit(f"Missing packages. Run:\n\n  apt-get install -y --no-install-recommends {PACKAGES}")


def client_build(directory):
    target = os.path.join(directory, "client")
    env = dict(os.environ, GO111MODULE="off", GOPATH=f"{directory}/go:/usr/share/gocode", GOCACHE=f"{directory}/cache")
    subprocess.run(["go", "build", "-o", target, os.path.join(HERE, "client.go")], env=env, check=True)
    return target


def ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat") as stream:
        fields = stream.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def leads(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as reply:
            return b"\netcd_server_is_leader 1" in reply.read()
    except OSError:
        return False


def leader_of(client_ports):
    for _ in range(600):
        for port in client_ports:
            if leads(port):
                return port
        time.sleep(0.05)
    sys.exit("etcd has no leader after 30 s")


def etcd_run(client, options):
    with tempfile.TemporaryDirectory(prefix="cairn-etcd-", dir=options.dir) as directory:
        found = ports(6)
        client_ports, peer_ports = found[:3], found[3:]
        cluster = ",".join(f"n{i}=http://127.0.0.1:{port}" for i, port in enumerate(peer_ports))
        nodes = []
        try:
            for i in range(3):
                serve, peer = f"http://127.0.0.1:{client_ports[i]}", f"http://127.0.0.1:{peer_ports[i]}"
                nodes.append(subprocess.Popen(
                    ["etcd", "--name", f"n{i}", "--data-dir", f"{directory}/n{i}", "--initial-cluster", cluster,
                     "--listen-client-urls", serve, "--advertise-client-urls", serve,
                     "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            port = leader_of(client_ports)
            before = sum(cpu_seconds(node) for node in nodes)
            asked = [client, f"127.0.0.1:{port}", str(options.proposals), str(options.in_flight)]
            row = json.loads(subprocess.run(asked, stdout=subprocess.PIPE, check=True, text=True).stdout)
            used = sum(cpu_seconds(node) for node in nodes) - before
            row["nodes_cpu_s_per_100000"] = round(used * 100000 / options.proposals, 2)
            return row
        finally:
            for node in nodes:
                node.kill()
                node.wait()


def cairn_run(options):
    asked = [os.path.join(options.bin, "cairn-bench"), "raft", "--proposals", str(options.proposals), "--in-flight",
             str(options.in_flight), "--machine", options.machine, "--dir", options.dir, "--warm-up", str(WARM_UP)]
    lines = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    row = json.loads(lines.splitlines()[-1])
    used = (row["cpu_s"] - row["client_cpu_s"]) * 100000 / options.proposals
    return {"per_second": row["per_second"], "p50_us": row["p50_us"], "p99_us": row["p99_us"],
            "nodes_cpu_s_per_100000": round(used, 2)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--proposals", type=int, default=10000)
    parser.add_argument("--machine", default="null", choices=["null", "key"])
    parser.add_argument("--dir", default=tempfile.gettempdir())
    options = parser.parse_args()
    need_packages()
    rows = {"etcd": [], "cairn": []}
    with tempfile.TemporaryDirectory(prefix="cairn-etcd-client-") as directory:
        client = client_build(directory)
        for _ in range(options.runs):
            rows["etcd"].append(etcd_run(client, options))
            print(json.dumps({"system": "etcd", **rows["etcd"][-1]}), flush=True)
            rows["cairn"].append(cairn_run(options))
            print(json.dumps({"system": "cairn", **rows["cairn"][-1]}), flush=True)
    for system, runs in rows.items():
        medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(json.dumps({"median_of": options.runs, "in_flight": options.in_flight, "system": system, **medians}))


main()
