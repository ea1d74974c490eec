#!/usr/bin/env python3
"""The arrows between folders, as STYLE.md names them: who may include whom, and who may touch the system.

Reads all C sources below the folder given (default: the repository) and prints each line that breaks a rule. First it
holds itself against lines known to be wrong, so that a rule which no longer bites fails too.
"""

import os
import re
import sys

PROGRAMS = {"metad": {"base", "proto", "raft"}, "blockd": {"base", "proto"}, "client": {"base", "proto"}}
LIBRARIES = {"base": set(), "proto": {"base"}, "raft": {"base"}, "io": {"base", "proto"}}
FOLDERS = set(PROGRAMS) | set(LIBRARIES)

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SYSTEM_CALL = re.compile(r"\b(uv_[a-z]\w*|io_uring_\w+|rocksdb_\w+|SSL_\w+)\s*\(")
SYSTEM_HEADER = re.compile(r"^(uv\.h|liburing\.h|rocksdb/.*|openssl/ssl\.h)$")
# What the versions we link to do wrong: nobody calls it. RocksDB 7.8's rate limiter loses a wakeup (io/README.md).
BROKEN_CALL = re.compile(r"\b(rocksdb_options_set_ratelimiter)\s*\(")
# A core performs no input or output, reads no clock, starts no thread.
CORE_HEADER = re.compile(r"^(unistd|fcntl|pthread|time|poll|signal|dirent|threads)\.h$|^(sys|netinet|arpa|linux)/.*")
CORE_CALL = re.compile(r"(?<![\w.>])(open|openat|fopen|read|write|pread|pwrite|socket|connect|clock_gettime|gettimeofday|time|getrandom"
                       r"|rand|random|usleep|nanosleep|pthread_\w+)\s*\(")
# What is no code: comments and strings.
NO_COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)


def place(path):
    """(folder, part): part is core, shell or cli for programs, else empty."""
    steps = path.split("/")
    folder = steps[0]
    if folder not in PROGRAMS:
        return folder, ""
    part = steps[1] if len(steps) > 2 and steps[1] in ("shell", "cli", "include") else "core"
    return folder, part


def allowed(folder, part):
    if folder in LIBRARIES:
        return LIBRARIES[folder] | {folder}
    extra = {"io"} if part == "shell" else set()
    return PROGRAMS[folder] | {folder} | extra


def target_of(path, name, exists):
    """The folder an #include "name" means, or None for a system or unknown header."""
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if exists(beside):
        return beside.split("/")[0]
    first = name.split("/")[0]
    return first if first in FOLDERS and "/" in name else None


def check(path, text, exists):
    """Broken rules of one source, as "PATH:LINE: what"."""
    folder, part = place(path)
    if folder not in FOLDERS:
        return []
    broken = []
    may = allowed(folder, part)
    core = part == "core" or folder in ("raft", "proto")
    for number, line in enumerate(text.split("\n"), 1):
        include = INCLUDE.match(line)
        if not include:
            continue
        name = include.group(2)
        target = target_of(path, name, exists)
        if target and target not in may:
            broken.append("%s:%d: %s may not include %s/" % (path, number, "/".join(filter(None, (folder, part))), target))
        if target in PROGRAMS and target == folder and part == "core" and "/shell/" in "/" + name:
            broken.append("%s:%d: a core may not include its shell" % (path, number))
        if not target and folder != "io" and SYSTEM_HEADER.match(name):
            broken.append("%s:%d: only io/ includes <%s>" % (path, number, name))
        if not target and core and CORE_HEADER.match(name):
            broken.append("%s:%d: a core may not include <%s>" % (path, number, name))
    code = NO_COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for number, line in enumerate(code.split("\n"), 1):
        call = SYSTEM_CALL.search(line)
        if call and folder != "io":
            broken.append("%s:%d: only io/ calls %s" % (path, number, call.group(1)))
        call = BROKEN_CALL.search(line)
        if call:
            broken.append("%s:%d: nobody calls %s" % (path, number, call.group(1)))
        call = CORE_CALL.search(line)
        if call and core and path.endswith(".c"):
            broken.append("%s:%d: a core may not call %s" % (path, number, call.group(1)))
    return broken


WRONG = [
    ("raft/raft.c", '#include "proto/frame.h"'),
    ("base/slice.c", '#include "io/runtime.h"'),
    ("proto/frame.c", '#include "metad/metad.h"'),
    ("io/kv.c", '#include "metad/metad.h"'),
    ("metad/group.c", '#include "io/runtime.h"'),
    ("metad/namespace/put.c", '#include "blockd/blockd.h"'),
    ("metad/host/log.c", '#include "metad/shell/config.h"'),
    ("blockd/store.c", '#include "raft/raft.h"'),
    ("client/cli/put.c", '#include "io/runtime.h"'),
    ("client/call.c", "#include <uv.h>"),
    ("metad/shell/main.c", "#include <rocksdb/c.h>"),
    ("metad/shell/main.c", "    rocksdb_open(options, path, &error);"),
    ("blockd/shell/main.c", "    uv_run(loop, 0);"),
    ("base/hash.c", "    SSL_read(ssl, data, 1);"),
    ("blockd/store.c", "#include <unistd.h>"),
    ("blockd/store.c", "    fd = open(path, 0);"),
    ("raft/raft.c", "    now = time(NULL);"),
    ("io/kv.c", "    rocksdb_options_set_ratelimiter(options, limiter);"),
]
RIGHT = [
    ("metad/group.c", '#include "raft/raft.h"'),
    ("metad/shell/main.c", '#include "io/runtime.h"'),
    ("blockd/store.c", "    kv->ops->open(path); /* uv_run(x) open(x) */"),
    ("io/loop.c", "    uv_run(loop, 0);"),
    ("base/config.c", '#include "err.h"'),
]


def self_test():
    def exists(path):
        return path == "base/err.h"

    for path, line in WRONG:
        assert len(check(path, line, exists)) == 1, "a rule no longer bites: %s: %s" % (path, line)
    for path, line in RIGHT:
        assert not check(path, line, exists), "a rule bites too much: %s: %s" % (path, line)


def main():
    self_test()
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
    broken, count = [], 0
    for folder in sorted(FOLDERS):
        for here, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(here, name), root)
                with open(os.path.join(root, path), encoding="utf-8") as f:
                    broken += check(path, f.read(), lambda p: os.path.exists(os.path.join(root, p)))
                count += 1
    assert count > 10, "found only %d sources below %s" % (count, root)
    for line in broken:
        print(line)
    print("%d sources, %d broken rules" % (count, len(broken)))
    sys.exit(1 if broken else 0)


main()
