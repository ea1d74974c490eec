#!/usr/bin/env python3
"""Strangers at the live ports of a cluster: no TLS, garbage, certificates of another authority, expired or of the wrong
role, wrong hellos, frames that lie. Each gets its own code in the node's log (or in the answer), and all nodes live on.
Usage: refused.py BIN_DIR"""

import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

from cluster import Failed, running, wait_until

MAGIC, VERSION, FIXED_BYTES = 0x314E5243, 1, 32
HELLO, RAFT, STORE_REGISTER, LOG_APPEND, UNKNOWN = 1, 10, 30, 20, 9999
FLAG_REPLY, FLAG_ERROR = 1, 2
METAD, BLOCKD, DEVICE = 1, 2, 4
CODES = {"UNKNOWN_TYPE": 65, "WRONG_ROLE": 64, "WRONG_GROUP": 70, "BAD_PROTO": 61, "INVALID": 20, "DENIED": 26}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(kind, header=b"", body=b"", flags=0, stream=7, target=0, version=VERSION, magic=MAGIC, header_bytes=None, spoil_crc=0):
    head = struct.pack("<IBBHQIII", magic, version, flags, kind, stream, target, len(header) if header_bytes is None else header_bytes,
                       len(body))
    return head + struct.pack("<I", crc32c(head + header) ^ spoil_crc) + header + body


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def hello(role, id, cluster, version=VERSION, incarnation=1):
    header = b"\x08" + varint(version)
    if cluster:
        header += b"\x1a\x10" + cluster + b"\x20" + varint(incarnation)
    return header + b"\x28" + varint(role) + b"\x30" + varint(id)


class Certificates:
    """Makes certificates with the cluster's own authority or another one."""

    def __init__(self, cluster_dir, work):
        self.cluster_dir, self.work = cluster_dir, work
        self.foreign = self.authority("foreign")

    def openssl(self, *arguments):
        result = subprocess.run(["openssl", *arguments], capture_output=True, check=False)
        if result.returncode:
            raise Failed("openssl %s: %s" % (" ".join(arguments), result.stderr.decode()))

    def authority(self, name):
        base = os.path.join(self.work, name)
        self.openssl("req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", base + ".key",
                     "-out", base + ".crt", "-subj", "/CN=cairn authority", "-days", "10")
        return base

    def make(self, common_name, authority=None, days=10):
        """(certificate, key) paths."""
        base = os.path.join(self.work, "%s-%d-%d" % (common_name.replace(":", ""), bool(authority), days))
        authority = authority or os.path.join(self.cluster_dir, "ca")
        self.openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", base + ".key", "-out",
                     base + ".csr", "-subj", "/CN=" + common_name)
        self.openssl("x509", "-req", "-in", base + ".csr", "-CA", authority + ".crt", "-CAkey", authority + ".key", "-CAcreateserial",
                     "-days", str(days), "-out", base + ".crt")
        return base + ".crt", base + ".key"


class Door:
    """The live port of one node, and what its log says since the last look."""

    def __init__(self, cluster, node):
        self.cluster, self.name = cluster, node["name"]
        host, port = node["addr"].rsplit(":", 1)
        self.address = (host, int(port))
        self.seen = len(cluster.log(self.name))

    def plain(self):
        return socket.create_connection(self.address, timeout=20)

    def tls(self, pair=None, maximum=ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = maximum
        if pair:
            context.load_cert_chain(*pair)
        return context.wrap_socket(self.plain())

    def expect_logged(self, code, what):
        """A line with the code appears behind what was seen before."""
        def found():
            return '"code":"%s"' % code in self.cluster.log(self.name)[self.seen:]
        try:
            wait_until(found, 20, "%s says %s for %s" % (self.name, code, what))
        except Failed as failure:
            raise Failed("%s; it says:\n%s" % (failure, self.cluster.log(self.name)[self.seen:])) from None
        self.seen = len(self.cluster.log(self.name))


def read_to_end(connection):
    """What comes until the other side closes; True when it did, in time."""
    out = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            data = connection.recv(65536)
            if not data:
                return out, True
            out += data
    except (ConnectionError, ssl.SSLError):
        return out, True
    except TimeoutError:
        pass
    return out, False


def read_frame(connection):
    """(type, flags, header) of one frame."""
    data = b""
    while len(data) < FIXED_BYTES:
        more = connection.recv(FIXED_BYTES - len(data))
        if not more:
            raise Failed("closed before a frame came")
        data += more
    _, _, flags, kind, _, _, header_bytes, body_bytes = struct.unpack("<IBBHQIII", data[:28])
    rest = b""
    while len(rest) < header_bytes + body_bytes:
        rest += connection.recv(header_bytes + body_bytes - len(rest))
    return kind, flags, rest[:header_bytes]


def error_code(header):
    """Field 1 of an ErrorReply."""
    assert header[0] == 0x08, header
    value, shift, at = 0, 0, 1
    while True:
        value |= (header[at] & 0x7F) << shift
        if not header[at] & 0x80:
            return value
        shift += 7
        at += 1


def refuse_without_tls(door):
    for what, data in (("HTTP", b"GET / HTTP/1.1\r\n\r\n"), ("a frame without TLS", frame(HELLO)), ("zeros", bytes(4096))):
        with door.plain() as connection:
            connection.sendall(data)
            assert read_to_end(connection)[1], what
        door.expect_logged("PLAIN_TCP", what)
    with door.plain() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00" + bytes(range(256)) * 2)
        assert read_to_end(connection)[1]
    door.expect_logged("TLS_FAILED", "garbage that begins like TLS")
    for _ in range(50):
        door.plain().close()


def refuse_handshake(door, what, code, *arguments, **more):
    try:
        with door.tls(*arguments, **more) as connection:
            connection.sendall(frame(HELLO))
            assert read_to_end(connection)[1], what
    except (ssl.SSLError, ConnectionError):
        pass
    door.expect_logged(code, what)


def refuse_hello(door, what, code, pair, data):
    with door.tls(pair) as connection:
        connection.sendall(data)
        assert read_to_end(connection)[1], what
    door.expect_logged(code, what)


def refuse_frames(door, pair, cluster_id):
    """After a right hello: requests this role may not send are answered with their code and the connection stays."""
    with door.tls(pair) as connection:
        connection.sendall(frame(HELLO, hello(DEVICE, 1, cluster_id)))
        kind, flags, _ = read_frame(connection)
        assert kind == HELLO and not flags & FLAG_ERROR, (kind, flags)
        for kind, code in ((RAFT, "WRONG_ROLE"), (STORE_REGISTER, "WRONG_ROLE"), (LOG_APPEND, "WRONG_ROLE"), (UNKNOWN, "UNKNOWN_TYPE")):
            connection.sendall(frame(kind))
            answered, flags, header = read_frame(connection)
            assert answered == kind and flags == FLAG_REPLY | FLAG_ERROR, (answered, flags)
            assert error_code(header) == CODES[code], "type %d: code %d" % (kind, error_code(header))
        door.seen = len(door.cluster.log(door.name))
        connection.sendall(frame(HELLO, spoil_crc=1))
        assert read_to_end(connection)[1]
    door.expect_logged("BAD_FRAME", "a frame whose checksum does not match")


def strangers(door, certificates, cluster_id):
    right = (os.path.join(certificates.cluster_dir, "client.crt"), os.path.join(certificates.cluster_dir, "client.key"))
    refuse_without_tls(door)
    refuse_handshake(door, "no certificate", "TLS_UNTRUSTED")
    refuse_handshake(door, "TLS 1.2", "TLS_FAILED", right, maximum=ssl.TLSVersion.TLSv1_2)
    refuse_handshake(door, "another authority", "TLS_UNTRUSTED", certificates.make("metad:1", certificates.foreign))
    refuse_handshake(door, "an expired certificate", "TLS_EXPIRED", certificates.make("metad:1", days=-1))
    refuse_handshake(door, "a name that is no role", "WRONG_ROLE", certificates.make("admin:1"))
    refuse_handshake(door, "a role without number", "WRONG_ROLE", certificates.make("metad"))
    good = hello(DEVICE, 1, cluster_id)
    refuse_hello(door, "a device that says it is a metadata node", "WRONG_ROLE", right, frame(HELLO, hello(METAD, 1, cluster_id)))
    refuse_hello(door, "another number than the certificate's", "WRONG_ROLE", right, frame(HELLO, hello(DEVICE, 2, cluster_id)))
    refuse_hello(door, "another cluster", "WRONG_CLUSTER", right, frame(HELLO, hello(DEVICE, 1, bytes(range(16)))))
    refuse_hello(door, "another incarnation", "WRONG_CLUSTER", right, frame(HELLO, hello(DEVICE, 1, cluster_id, incarnation=9)))
    refuse_hello(door, "another version in the hello", "BAD_VERSION", right, frame(HELLO, hello(DEVICE, 1, cluster_id, version=99)))
    refuse_hello(door, "another version in the frame", "BAD_VERSION", right, frame(HELLO, good, version=99))
    refuse_hello(door, "no magic", "BAD_FRAME", right, frame(HELLO, good, magic=0x12345678))
    refuse_hello(door, "a wrong checksum", "BAD_FRAME", right, frame(HELLO, good, spoil_crc=1))
    refuse_hello(door, "no hello first", "BAD_FRAME", right, frame(RAFT))
    refuse_hello(door, "a header of 4 GiB", "TOO_LARGE", right, frame(HELLO, header_bytes=0xFFFFFFFF))
    refuse_hello(door, "a hello of 1 MiB", "TOO_LARGE", right, frame(HELLO, header_bytes=1 << 20))
    refuse_hello(door, "a hello that does not decode", "BAD_PROTO", right, frame(HELLO, b"\xff" * 40))
    refuse_frames(door, right, cluster_id)


def main():
    with tempfile.TemporaryDirectory(prefix="cairn-refused-") as work:
        with running(sys.argv[1], os.path.join(work, "cluster")) as cluster:
            before = {node["name"]: node["pid"] for node in cluster.ps()}
            with open(cluster.config, encoding="utf-8") as f:
                line = next(line for line in f if line.startswith("cluster = "))
            cluster_id = bytes.fromhex(line.split('"')[1])
            certificates = Certificates(cluster.dir, work)
            for name in ("metad2", "blockd3"):
                node = next(node for node in cluster.ps() if node["name"] == name)
                strangers(Door(cluster, node), certificates, cluster_id)
            after = {node["name"]: node["pid"] for node in cluster.ps() if node["alive"]}
            assert before == after, "nodes ended or were replaced: %s, %s" % (before, after)
            cluster.run("ls", "home:/")


if __name__ == "__main__":
    main()
