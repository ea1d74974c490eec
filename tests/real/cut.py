#!/usr/bin/env python3
"""Power cuts of real file systems under load. Each daemon's data lie on an image of their own, mounted by a loop device: ext4 and
XFS in turn. A cut is the file system's shutdown ioctl without a flush of its log, on one node, a few or all at once; then the
processes are killed, the images unmounted and mounted (which recovers the file system), the daemons started, and nothing else
is done. Every acknowledged operation is judged at the end.

A loop device keeps what was written and never synced; --disks faultdisk takes faultdisk.c instead, which loses it: any sector
written since its file's last sync may be back at any of its contents since then. With --lie 1 those disks say "synced" and do
nothing, which no program survives: then the trial passes only when that is found.
Usage: cut.py BIN_DIR [--cuts N] [--disks images|faultdisk] [--lie 1]"""

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time

from faultdisk import FaultDisk, need_faultdisk
from nodes import END_S, Failed, NotPermitted, say, unmount
from trial import need_root, options, prepared, run_trial

IOC_GOINGDOWN = 0x8004587D  # _IOR('X', 125, __u32): EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are the same call
NO_LOG_FLUSH = 2
IMAGE_BYTES = 2 << 30
CAPACITY_BYTES = 1 << 30  # of a store on an image


def command(*arguments, check=True):
    result = subprocess.run(arguments, capture_output=True, check=False)
    if check and result.returncode != 0:
        raise Failed("%s: exit code %d: %s" % (" ".join(arguments), result.returncode, result.stderr.decode(errors="replace").strip()))
    return result


class Image:
    """A node's data directory on an image file. `make` moves what is there onto it."""

    kinds = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}

    def __init__(self, node, kind):
        self.node, self.kind = node, kind
        self.path = node.dir + "/image"
        self.mounted = self.mounted_once = False

    def make(self):
        with open(self.path, "wb") as f:
            f.truncate(IMAGE_BYTES)
        command(*self.kinds[self.kind], self.path)
        aside = self.node.data + ".before"
        os.rename(self.node.data, aside)
        os.mkdir(self.node.data, 0o700)
        self.mount()
        for name in os.listdir(aside):
            source = os.path.join(aside, name)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(self.node.data, name))
        os.chmod(self.node.data, 0o700)
        os.sync()
        shutil.rmtree(aside)

    def mount(self):
        result = command("mount", "-o", "loop", self.path, self.node.data, check=False)
        if result.returncode != 0 and not self.mounted_once:
            raise NotPermitted("loop-mounted %s: %s" % (self.kind, result.stderr.decode(errors="replace").strip()))
        if result.returncode != 0:
            raise Failed("%s does not mount again: %s" % (self.path, result.stderr.decode(errors="replace").strip()))
        self.mounted_once = True
        self.mounted = True

    def shut_down(self):
        """From here on nothing reaches the image any more, what the file system held in memory neither."""
        fd = os.open(self.node.data, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, IOC_GOINGDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self):
        if self.mounted:
            self.mounted = False
            unmount(self.node.data)


def need_images():
    missing = [tool for tool in ("mkfs.ext4", "mkfs.xfs", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        raise NotPermitted("lacks %s (e2fsprogs, xfsprogs)" % ", ".join(missing))
    if not os.path.exists("/dev/loop-control"):
        raise NotPermitted("no loop devices")


@contextlib.contextmanager
def disks(trial, kind):
    """{name: disk} of every node, each on an image, both kinds of file system in turn, or on a faultdisk; unmounted at the end."""
    need_root()
    need_images() if kind == "images" else need_faultdisk(trial.bin_dir)
    made = {}
    try:
        for i, node in enumerate(trial.live.nodes.values()):
            disk = Image(node, ("ext4", "xfs")[i % 2]) if kind == "images" else FaultDisk(trial.bin_dir, node, trial.random)
            made[node.name] = disk
            if node.role == "blockd":
                node.setting("capacity_bytes", str(CAPACITY_BYTES))
            disk.make()
        yield made
    finally:
        trial.live.end()
        with contextlib.ExitStack() as stack:  # all of them, whichever fails
            for disk in made.values():
                stack.callback(disk.unmount)


def cut(trial, made, nodes):
    """The power of these goes at one instant: either nothing of them runs any more, or they see their disks fail first."""
    sudden = trial.random.random() < 0.5
    if sudden:
        for node in nodes:
            node.signal(signal.SIGSTOP)
    for node in nodes:
        made[node.name].shut_down()
    if not sudden:
        time.sleep(trial.random.uniform(0, 0.5))  # what they do meanwhile is part of the fault
    for node in nodes:
        node.signal(signal.SIGKILL)
    for node in nodes:
        node.process.wait(END_S)
        made[node.name].unmount()
        made[node.name].mount()


def choose(trial):
    live, dice = trial.live, trial.random.random()
    if dice < 0.35:
        return list(live.nodes.values())
    if dice < 0.6:
        return [live.leader_node()]
    if dice < 0.75:
        return [trial.random.choice(live.metads), *trial.random.sample(live.blockds, 2)]
    if dice < 0.85:
        return list(live.metads)
    return trial.random.sample(live.blockds, trial.random.randint(1, 3))


def cut_campaign(trial, made, cuts):
    everything = 0
    for i in range(cuts):
        nodes = choose(trial)
        everything += len(nodes) == len(trial.live.nodes)
        cut(trial, made, nodes)
        trial.live.begin(nodes)
        trial.live.serve()
        trial.load.progress(trial.random.randint(2, 12))
        if (i + 1) % 5 == 0 or i + 1 == cuts:
            say("%d cuts (%d of all nodes at once), %d acknowledged, %d unavailable", i + 1, everything, trial.load.acknowledged,
                trial.load.unavailable)


def one_lie(trial, made):
    """Every disk of the metadata nodes lies, then the power of all goes: what was acknowledged since is lost and must be missed."""
    for node in trial.live.metads:
        made[node.name].fault("sync-lost", "/log/", 1 << 30)
    trial.load.progress(30)
    nodes = list(trial.live.nodes.values())
    for node in nodes:
        node.signal(signal.SIGSTOP)
    try:
        cut(trial, made, nodes)
        trial.live.begin(nodes)
        trial.conclude()
    except Failed as failure:
        say("found, as it must be: %s", str(failure).splitlines()[0])
        return
    raise Failed("disks lied and nobody found out")


def main():
    args = options(__doc__, cuts=10, disks="images", lie=0)
    with prepared(args.bin, args.seed, args.keep) as trial, disks(trial, args.disks) as made:
        trial.live.begin()
        trial.live.serve()
        trial.load.begin()
        trial.load.progress(5)
        if args.lie:
            one_lie(trial, made)
            return
        cut_campaign(trial, made, args.cuts)
        trial.conclude()


if __name__ == "__main__":
    run_trial(main)
