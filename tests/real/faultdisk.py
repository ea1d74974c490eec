"""A node's data directory on faultdisk.c: a disk that fails on demand, and loses at a power cut what was not synced."""

import os
import subprocess

from nodes import END_S, Failed, NotPermitted, unmount, wait_until

PROGRAM = "faultdisk"
DEVICE = "/dev/fuse"


def need_faultdisk(bin_dir):
    if not os.access(os.path.join(bin_dir, PROGRAM), os.X_OK):
        raise NotPermitted("faultdisk is not built (it needs libfuse3-dev)")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise NotPermitted("%s cannot be opened" % DEVICE)


class FaultDisk:
    kind = PROGRAM

    def __init__(self, bin_dir, node, random):
        self.program = os.path.join(os.path.abspath(bin_dir), PROGRAM)
        self.node, self.random = node, random
        self.under = node.dir + "/under"
        self.process = None

    def make(self):
        os.rename(self.node.data, self.under)
        os.mkdir(self.node.data, 0o700)
        self.mount()

    def mount(self):
        self.process = subprocess.Popen([self.program, self.under, self.node.data], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until(self.mounted, END_S, "faultdisk on %s" % self.node.data)

    def mounted(self):
        if self.process.poll() is not None:
            raise NotPermitted("faultdisk ended with %d: it may not mount here" % self.process.returncode)
        return os.path.ismount(self.node.data)

    def tell(self, line):
        with open(self.node.data + "/.fault", "wb", buffering=0) as f:
            f.write(line.encode())

    def fault(self, kind, part, count, ms=0):
        self.tell("%s %s %d %d" % (kind, part, count, ms))

    def clear(self):
        self.tell("clear")

    def clear_if_mounted(self):
        """For the end of a trial: what hangs goes on, so that it can end."""
        if self.process is not None and self.process.poll() is None and os.path.ismount(self.node.data):
            self.clear()

    def done(self, kind):
        """How often this fault was done since the disk was mounted."""
        with open(self.node.data + "/.fault", "rb", buffering=0) as f:
            return dict(line.split() for line in f.read(4096).decode().splitlines())[kind]

    def shut_down(self):
        self.tell("cut %d" % self.random.randrange(1, 1 << 60))

    def unmount(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            try:
                unmount(self.node.data)
            except Failed:
                self.process.kill()
                raise
        if self.process.wait(END_S) != 0:
            raise Failed("faultdisk of %s ended with %d" % (self.node.name, self.process.returncode))
        self.process = None
