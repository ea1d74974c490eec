#!/usr/bin/env python3
"""Writes configuration documents, each with what Python's tomllib reads from it, for tests/unit/test_config.c.

A stream of records on stdout: "D KIND BYTES\n", the document, then "E LINES\n" and so many sorted lines "NAME TYPE HEX..."
or "R\n" where tomllib refuses it. KIND is `subset` (our reader must accept and agree) or `mutant` (where our reader
accepts, tomllib must accept and agree). Usage: config_oracle.py SEED COUNT
"""

import random
import sys

try:
    import tomllib
except ImportError:
    print("SKIP python3 %d.%d has no tomllib (3.11 has)" % sys.version_info[:2])
    sys.exit(0)

BARE = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_-"
ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def name(r):
    return "".join(r.choice(BARE) for _ in range(r.randint(1, 8)))


def string(r):
    out = []
    for _ in range(r.choice((0, 1, 3, 12, 60))):
        c = r.choice(("a", "Z", " ", "#", "[", "'", "=", "\t", "\n", '"', "\\", "\b", "\r", "\f", "\x01", "\x7f", "é", "漢", "😀", "\u07ff",
                      "\uffff", "\ud7ff", "\ue000", "\U0010ffff"))
        if c in ESCAPES and (c in '"\\\n\r\b\f' or r.random() < 0.5):
            out.append(ESCAPES[c])
        elif ord(c) < 0x20 and c != "\t" or c == "\x7f" or r.random() < 0.2:
            out.append("\\U%08x" % ord(c) if ord(c) > 0xffff or r.random() < 0.3 else "\\u%04X" % ord(c))
        else:
            out.append(c)
    return '"' + "".join(out) + '"'


def integer(r):
    value = r.choice((0, 1, -1, 7, 65535, 1000000, 2**63 - 1, -2**63, r.randint(-2**63, 2**63 - 1), r.randint(-999, 999)))
    style = r.random()
    if style < 0.2 and value >= 0:
        return "0x%x" % value if style < 0.1 else "0x%X" % value
    if style < 0.4:
        return format(value, "_")
    return ("+" if value >= 0 and style > 0.9 else "") + str(value)


def space(r):
    return r.choice(("", "", " ", "\t", "  "))


def comment(r):
    return "#" + r.choice(("", " a comment", ' = "[', " é漢😀", "\ttab"))


def gap(r, eol):
    return space(r) + "".join(r.choice((eol, comment(r) + eol)) + space(r) for _ in range(r.choice((0, 0, 0, 1, 2))))


def array(r, eol):
    make = r.choice((string, integer))
    items = [make(r) for _ in range(r.choice((0, 1, 2, 5)))]
    body = ("," .join(gap(r, eol) + item + gap(r, eol) for item in items))
    if items and r.random() < 0.4:
        body += "," + gap(r, eol)
    return "[" + (body or gap(r, eol)) + "]"


def document(r):
    eol = r.choice(("\n", "\n", "\r\n"))
    lines, tables, names = [], set(), set()
    table = ""
    for _ in range(r.randint(0, 12)):
        kind = r.random()
        if kind < 0.2:
            lines.append(space(r) + (comment(r) if r.random() < 0.7 else ""))
        elif kind < 0.35:
            parts = [name(r) for _ in range(r.choice((1, 1, 2, 3)))]
            whole = ".".join(parts)
            if whole in tables or any(whole == n or whole.startswith(n + ".") for n in names):
                continue
            tables.add(whole)
            table = whole + "."
            dot = r.choice((".", " . "))
            lines.append(space(r) + "[" + space(r) + dot.join(parts) + space(r) + "]" + space(r) + r.choice(("", comment(r))))
        else:
            key = name(r)
            whole = table + key
            if whole in names or any(t == whole or t.startswith(whole + ".") for t in tables):
                continue
            names.add(whole)
            value = r.choice((string, integer, lambda q: q.choice(("true", "false")), lambda q: array(q, eol)))(r)
            lines.append(space(r) + key + space(r) + "=" + space(r) + value + space(r) + r.choice(("", comment(r))))
    return eol.join(lines) + r.choice(("", eol))


def mutate(r, data):
    data = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 4))):
        at = r.randrange(len(data) + 1)
        what = r.random()
        if what < 0.3 and data:
            del data[at:at + r.randint(1, 4)]
        elif what < 0.6:
            data[at:at] = r.choice((b"'", b'"', b'"""', b"\n", b"\r", b"=", b"[", b"]", b"[[", b"{}", b",", b".", b"_", b"0", b"-", b"1e3",
                                    b"\\", b"\\u00", b"\x00", b"\x80", b"\xed\xa0\x80", b"\xc0\x80", b"#", b"inf", b"1979-05-27", b" "))
        elif what < 0.8 and at < len(data):
            data[at] = r.randrange(256)
        else:
            begin = r.randrange(len(data) + 1)
            data[at:at] = data[begin:begin + r.randint(1, 40)]
    return bytes(data)


def flatten(prefix, value, out):
    for key, item in value.items():
        whole = prefix + key
        if isinstance(item, dict):
            flatten(whole + ".", item, out)
        elif isinstance(item, bool):
            out.append("%s b %d" % (whole, item))
        elif isinstance(item, int):
            out.append("%s i %d" % (whole, item))
        elif isinstance(item, str):
            out.append("%s s %s" % (whole, item.encode().hex()))
        elif isinstance(item, list) and all(isinstance(x, str) for x in item):
            out.append("%s S%s" % (whole, "".join(" " + x.encode().hex() for x in item)))
        elif isinstance(item, list) and all(isinstance(x, int) and not isinstance(x, bool) for x in item):
            out.append("%s I%s" % (whole, "".join(" %d" % x for x in item)))
        else:
            out.append("%s ? %s" % (whole, type(item).__name__))


def emit(kind, data):
    w = sys.stdout.buffer
    w.write(b"D %s %d\n" % (kind.encode(), len(data)))
    w.write(data)
    try:
        lines = []
        flatten("", tomllib.loads(data.decode()), lines)
        w.write(b"E %d\n" % len(lines))
        for line in sorted(lines):
            w.write(line.encode() + b"\n")
    except (ValueError, RecursionError):
        w.write(b"R\n")


def main():
    r = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        data = document(r).encode()
        if len(data) > 200000:
            continue
        emit("subset", data)
        emit("mutant", mutate(r, data))


main()
