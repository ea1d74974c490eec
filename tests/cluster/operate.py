#!/usr/bin/env python3
"""What who runs the daemons relies on: the documented configurations are right and whole, --check-config says what a start
would say, each line of a log is one JSON object with its fields, --version, SIGHUP (certificates, limits), directories of
a newer format. Usage: operate.py BIN_DIR SOURCE_DIR"""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

from cluster import running, wait_until
from refused import Certificates

LEVELS = ("debug", "info", "warn", "error", "fatal")


def daemon(bin_dir, role, *arguments):
    return subprocess.run([os.path.join(bin_dir, role), *arguments], capture_output=True, timeout=60, check=False)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def known_keys(source):
    """The keys a daemon declares in its shell/config.c, those of the bootstrap file left out."""
    text = read(source)
    begin = text.find("static enum err read_bootstrap")
    if begin >= 0:
        text = text[:begin] + text[text.find("\n}\n", begin):]
    return set(re.findall(r'\{"(\w+)", CONFIG_', text))


def check_example(bin_dir, source_dir, cluster, role, work):
    """The example, with its paths and identity put to those of a real node, is right; with each optional line taken in too;
    and it has every key."""
    example = read(os.path.join(source_dir, role, "shell", role + ".toml.example"))
    full = re.sub(r"^# (\w+ = )", r"\1", example, flags=re.M)
    have = set(re.findall(r"^(\w+) = ", full, re.M))
    want = known_keys(os.path.join(source_dir, role, "shell", "config.c"))
    assert have == want, "%s.toml.example: lacks %s, has too many %s" % (role, want - have, have - want)
    node = read(os.path.join(cluster.dir, role + "1", "node.toml"))
    for text in (example, full):
        for old, new in (("/etc/cairn/node", os.path.join(cluster.dir, role + "1", "node")), ("/etc/cairn", cluster.dir),
                         ("/var/lib/cairn", work), ("/var/log/cairn", work)):
            text = text.replace(old, new)
        text = re.sub(r"^cluster = .*$", re.search(r"^cluster = .*$", node, re.M).group(0), text, flags=re.M)
        path = os.path.join(work, role + ".toml")
        write(path, text)
        result = daemon(bin_dir, role, "--config", path, "--check-config")
        assert result.returncode == 0 and b"the configuration is right" in result.stdout, result
        assert not result.stderr, result
        assert not os.path.exists(os.path.join(work, "metad")) and not os.path.exists(os.path.join(work, "store1"))
    write(path, full + "max_conections = 5\n")
    checked, started = (daemon(bin_dir, role, "--config", path, *more) for more in (["--check-config"], []))
    for result in (checked, started):
        line = one_line(result.stderr)
        assert result.returncode == 2 and line["level"] == "fatal" and line["code"] == "CONFIG", result
    assert one_line(checked.stderr)["text"] == one_line(started.stderr)["text"], (checked, started)
    assert "unknown key 'max_conections'; did you mean 'max_connections'?" in one_line(checked.stderr)["text"], checked


def one_line(data):
    lines = data.decode().splitlines()
    assert len(lines) == 1, lines
    return json.loads(lines[0])


def check_log(name, text):
    """Every line is an object with the documented fields and nothing else."""
    for line in text.splitlines():
        entry = json.loads(line)
        assert list(entry) in (["time", "level", "code", "node", "text"], ["time", "level", "code", "node", "request", "text"]), (name, line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]) and entry["level"] in LEVELS, (name, line)
        assert entry["node"] == name or entry["node"] == "-", (name, line)


def check_version(bin_dir):
    for program in ("metad", "blockd", "cairn"):
        result = daemon(bin_dir, program, "--version")
        text = result.stdout.decode()
        assert result.returncode == 0 and re.match(program + r" \d+\.\d+\.\d+\n", text), result
        assert re.search(r"^on disk: metad directory \d+, store directory \d+$", text, re.M), text
        assert re.search(r"^wire: version \d+, features 0x[0-9a-f]+$", text, re.M), text


def served_certificate(address):
    """What the node at this address shows to who knocks; it asks for a certificate only afterwards."""
    host, port = address.rsplit(":", 1)
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))


def hang_up(cluster, name):
    """SIGHUP; the entries that the log gets from it."""
    node = next(node for node in cluster.ps() if node["name"] == name)
    seen = len(cluster.log(name))
    os.kill(node["pid"], signal.SIGHUP)

    def told():
        lines = [json.loads(line) for line in cluster.log(name)[seen:].splitlines(keepends=True) if line.endswith("\n")]
        return next((line for line in lines if "read anew" in line["text"] or "nothing was changed" in line["text"]), None)
    return wait_until(told, 20, "%s says what SIGHUP changed" % name)


def check_reload(cluster, name, certificates):
    """A renewed certificate is shown on new connections, without a restart; a limit changes; a wrong file changes nothing."""
    directory = os.path.join(cluster.dir, name)
    node = next(node for node in cluster.ps() if node["name"] == name)
    common_name = re.sub(r"(\d+)$", r":\1", name)
    pair = certificates.make(common_name, days=11)
    before = served_certificate(node["addr"])
    said = hang_up(cluster, name)
    assert "the certificate is the same" in said["text"] and said["level"] == "info", said
    for source, target in zip(pair, ("node.crt", "node.key")):
        shutil.copyfile(source, os.path.join(directory, target))
    said = hang_up(cluster, name)
    assert "a new certificate" in said["text"], said
    after = served_certificate(node["addr"])
    assert after != before and after == ssl.PEM_cert_to_DER_cert(read(pair[0])), "%s still shows its old certificate" % name
    config = os.path.join(directory, "node.toml")
    text = read(config)
    write(config, text + "max_connections = 500\n")
    assert "max_connections 500, was 0" in hang_up(cluster, name)["text"]
    for wrong, part in ((text + "lisen = 1\n", "did you mean 'listen'?"), (re.sub(r"^node = 1$", "node = 2", text, flags=re.M), "")):
        write(config, wrong)
        said = hang_up(cluster, name)
        assert said["level"] == "error" and said["code"] == "CONFIG" and part in said["text"], said
    write(config, text)
    hang_up(cluster, name)
    assert served_certificate(node["addr"]) == after
    now = next(node for node in cluster.ps() if node["name"] == name)
    assert now["alive"] and now["pid"] == node["pid"], now


def check_refusals(cluster, name):
    """What a node refuses at its door is counted by reason and shown; groups show their indexes."""
    address = next(node["addr"] for node in cluster.ps() if node["name"] == name)
    host, port = address.rsplit(":", 1)

    def plain_refused():
        line = next(line for line in cluster.lines("admin", "nodes") if line["name"] == name)
        return (line["refused"] or {}).get("PLAIN_TCP", 0)
    before = plain_refused()
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while connection.recv(4096):
                pass
    wait_until(lambda: plain_refused() == before + 3, 20, "%s shows three refusals more" % name)
    cluster.run("mkdir", "home:/%s" % name)  # a node that has just started has nothing in its log's counters yet

    def members_wrote():
        return all(member["answered"] and member["log_syncs"] > 0 and member["entries_per_sync"] > 0
                   for group in cluster.groups() for member in group["members"])
    wait_until(members_wrote, 20, "every metadata node shows entries and fsyncs of its log")
    for group in cluster.groups():
        assert group["leader"] and group["term"] > 0 and group["commit"] > 0 and len(group["members"]) == 3, group
        for member in group["members"]:
            assert member["in_flight"] >= 0 and isinstance(member["refused"], dict), member


def check_newer_format(bin_dir, cluster, role, identity):
    """A directory that a newer program wrote is refused, and left as it is."""
    name = role + "1"
    path = os.path.join(cluster.dir, name, identity)
    text = read(path)
    now = int(re.search(r"^format = (\d+)$", text, re.M).group(1))
    write(path, text.replace("format = %d\n" % now, "format = %d\n" % (now + 1)))
    result = daemon(bin_dir, role, "--config", os.path.join(cluster.dir, name, "node.toml"))
    line = one_line(result.stderr)
    assert result.returncode == 1 and line["code"] == "UNSUPPORTED", result
    assert "format %d" % (now + 1) in line["text"], line
    write(path, text.replace("format = %d\n" % now, ""))  # as before formats were written down: format 1
    cluster.start_node(name)
    assert now == 1 or "format = %d\n" % now in read(path), read(path)  # read, and written on as what it is now


def main():
    bin_dir, source_dir = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    check_version(bin_dir)
    with tempfile.TemporaryDirectory(prefix="cairn-operate-") as work:
        with running(bin_dir, os.path.join(work, "cluster")) as cluster:
            certificates = Certificates(cluster.dir, work)
            for role, identity in (("metad", "data/directory"), ("blockd", "store1/store")):
                check_example(bin_dir, source_dir, cluster, role, work)
                check_reload(cluster, role + "1", certificates)
                check_refusals(cluster, role + "1")
                cluster.kill(role + "1")
                check_newer_format(bin_dir, cluster, role, identity)
            cluster.run("ls", "home:/")
            cluster.down()
            for node in cluster.ps():
                check_log(re.sub(r"(\d+)$", r":\1", node["name"]), cluster.log(node["name"]))


if __name__ == "__main__":
    main()
