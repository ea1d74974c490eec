#!/usr/bin/env python3
"""The simulator runs the daemons' own objects: every source of a core is compiled once in the whole build, with the same
definitions and optimisation as its neighbours, and the simulator's own objects come from tests/ alone.

usage: check_objects.py BUILD_DIR SOURCE_DIR"""
import json
import os
import shlex
import sys

CORES = ("base", "proto", "raft", "metad", "blockd", "client")


def flags_of(command):
    """What could make two objects of one source differ: definitions and code generation."""
    return tuple(sorted(word for word in command if word.startswith(("-D", "-U", "-O", "-f", "-m", "-std"))))


def main():
    build, source = (os.path.realpath(path) for path in sys.argv[1:3])
    compiled, flags, faults = {}, {}, []
    with open(os.path.join(build, "compile_commands.json")) as stream:
        commands = json.load(stream)
    for entry in commands:
        path = os.path.relpath(os.path.realpath(os.path.join(entry["directory"], entry["file"])), source)
        words = shlex.split(entry["command"]) if "command" in entry else entry["arguments"]
        output = words[words.index("-o") + 1]
        folder = path.split(os.sep)[0]
        if output.startswith("tests/sim/") and folder != "tests":
            faults.append(f"{path}: compiled for the simulator")
        if folder not in CORES or "/shell/" in path or "/cli/" in path:
            continue
        if path in compiled:
            faults.append(f"{path}: compiled twice, as {compiled[path]} and {output}")
        compiled[path] = output
        own = tuple(flag for flag in flags_of(words) if flag != "-DUTF8PROC_EXPORTS")
        flags.setdefault(own, []).append(path)
    if len(flags) != 1:
        for own, paths in flags.items():
            faults.append(f"{' '.join(own)}: {len(paths)} sources, as {paths[0]}")
    if len(compiled) < 30:
        faults.append(f"only {len(compiled)} sources of cores were found")
    for fault in faults:
        print(fault)
    print(f"{len(compiled)} sources of cores, {len(flags)} set of flags, {len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())
