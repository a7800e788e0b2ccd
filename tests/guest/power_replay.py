#!/usr/bin/env python3
"""power_replay.py LOG BASE WORK CHECK - cut the power at points of a disk's write log, and look.

LOG is what QEMU's blklogwrites wrote (the format of dm-log-writes), BASE the disk before it. At a
point k the disk holds: every write before the last flush at or before k, every write with FUA, and of
the others none, each of its pages or not, or a part of a page (in turns: none; pages; pages and
torn pages). That disk is mounted here, so that the file system's journal is recovered, and CHECK looks
at the store on it. The acknowledgements up to k are in the log too: writes at or behind --ack.

The last line: N points, N violations, N durable promises.
"""
import argparse
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
PAGE = 4096


class Log:
    """Entries (byte offset on the disk, bytes, flags, place of the data in the file)."""

    def __init__(self, path):
        self.file = open(path, "rb")
        magic, _version, _count, self.sector = struct.unpack("<QQQI", self.file.read(28))
        if magic != MAGIC:
            sys.exit("power_replay: not a write log")
        size, place, self.entries = os.path.getsize(path), self.sector, []
        while place + 32 <= size:
            self.file.seek(place)
            sector, count, flags, extra = struct.unpack("<QQQQ", self.file.read(32))
            if sector == count == flags == extra == 0:
                break
            place += self.sector
            data = 0 if flags & DISCARD else count * self.sector
            self.entries.append((sector * self.sector, count * self.sector, flags, place))
            place += data

    def data(self, entry):
        self.file.seek(entry[3])
        return self.file.read(entry[1])


def write_whole(log, fd, entry):
    if entry[2] & DISCARD:
        # what a discard leaves is not defined: the old bytes are as good as any
        return
    if entry[1]:
        os.pwrite(fd, log.data(entry), entry[0])


def write_some(log, fd, entry, tear):
    """Each page of a write that nobody waited for is there or not, or torn between two sectors."""
    if entry[2] & DISCARD or not entry[1]:
        return
    data = log.data(entry)
    for at in range(0, len(data), PAGE):
        dice = random.random()
        if dice < 0.45:
            os.pwrite(fd, data[at : at + PAGE], entry[0] + at)
        elif tear and dice < 0.55:
            os.pwrite(fd, data[at : at + 512 * random.randrange(1, 8)], entry[0] + at)


def run(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def unmount(mount):
    """The kernel lets go of a ring's files some time after its process has ended."""
    for _ in range(500):
        if run("umount", mount).returncode == 0:
            return
        time.sleep(0.02)
    sys.exit("power_replay: cannot unmount " + mount)


def look(options, image, events):
    """Mount and check; what is wrong, and how many durable promises there were."""
    mount = os.path.join(options.work, "mnt")
    os.makedirs(mount, exist_ok=True)
    loop = "loop,sizelimit=%d" % options.ack
    mounted = run("mount", "-t", options.fs, "-o", loop, image, mount)
    if mounted.returncode:
        return "mount: " + mounted.stdout, 0
    try:
        store = os.path.join(mount, "store")
        os.makedirs(store, exist_ok=True)
        checked = run("timeout", "-k", "5", "60", options.check, "check", store, events)
    finally:
        unmount(mount)
    promises = re.search(r"durable promises (\d+)", checked.stdout)
    wrong = "" if checked.returncode == 0 else "exit %d: %s" % (checked.returncode, checked.stdout)
    return wrong, int(promises.group(1)) if promises else 0


def replay(options, log):
    durable = os.path.join(options.work, "durable.img")
    cut = os.path.join(options.work, "cut.img")
    events = os.path.join(options.work, "events")
    acks = [i for i, e in enumerate(log.entries) if e[1] and e[0] >= options.ack]
    if not acks:
        sys.exit("power_replay: no acknowledgement in the log")
    first = acks[0]
    points = sorted(random.randrange(first, len(log.entries)) for _ in range(options.points))
    run("cp", "--sparse=always", options.base, durable)
    disk, pending, at, violations, promised = os.open(durable, os.O_RDWR), [], 0, 0, 0
    told = open(events, "wb")
    for number, point in enumerate(points):
        while at <= point:
            entry = log.entries[at]
            if entry[2] & FLUSH:
                for write in pending:
                    write_whole(log, disk, write)
                pending = []
            if entry[1] and entry[0] >= options.ack and not entry[2] & DISCARD:
                told.write(log.data(entry))
            elif entry[2] & FUA:
                write_whole(log, disk, entry)
            elif entry[1]:
                pending.append(entry)
            at += 1
        told.flush()
        run("cp", "--sparse=always", durable, cut)
        fd = os.open(cut, os.O_RDWR)
        for write in pending if number % 3 else []:
            write_some(log, fd, write, number % 3 == 2)
        os.close(fd)
        wrong, durable_promises = look(options, cut, events)
        promised = max(promised, durable_promises)
        if wrong:
            violations += 1
            if violations <= options.tell:
                print("point %d of %d, %d writes pending: %s" % (point, len(log.entries), len(pending), wrong))
    print("%d points, %d violations, %d durable promises" % (len(points), violations, promised))
    return violations


def main():
    parser = argparse.ArgumentParser()
    for name in ("log", "base", "work", "check"):
        parser.add_argument(name)
    parser.add_argument("--fs", default="ext4")
    parser.add_argument("--ack", type=int, required=True, help="where acknowledgements begin, in bytes")
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tell", type=int, default=3, help="violations to print in full")
    options = parser.parse_args()
    random.seed(options.seed)
    log = Log(options.log)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        options.work = work
        violations = replay(options, log)
    sys.exit(1 if violations else 0)


main()
