#!/usr/bin/env python3
"""Runs a test of a real cluster in a network namespace of its own, so that two of them never meet on a port: a node that
is down for a moment finds its port free when it comes back. Where namespaces are not permitted, one such test runs at a
time. Usage: apart.py SCRIPT ARGS..."""

import ctypes
import fcntl
import os
import socket
import struct
import sys
import tempfile

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def own_network():
    """True when this process, and what it starts, has a network of its own with a loopback that is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    return True


def main():
    if not own_network():
        lock = os.open(os.path.join(tempfile.gettempdir(), "cairn-cluster-tests-%d.lock" % os.getuid()), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock, True)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


main()
