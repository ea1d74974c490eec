/* What this build is, reads and writes. Announced by `--version` of every program and by the hello. */
#ifndef CAIRN_PROTO_VERSION_H
#define CAIRN_PROTO_VERSION_H

#include <stdio.h>

#define CAIRN_VERSION "0.1.0"

/* On-disk formats. A directory says its own in its identity file (DIR/directory, DIR/store); one that says a greater
 * number than these is refused, one without a number is of format 1. */
#define FORMAT_METAD                                                                                                   \
    3 /* log records PEERS (2: without; 1: log segments "CLG2", without NAMES) and the database of the groups */
#define FORMAT_STORE 1 /* segments "CSR1" and their index */

/* Feature bits of the hello that both sides must know. */
#define WIRE_FEATURES 0u

/* The answer to `--version`: program and version, then a line a format. */
void version_print(FILE *out, const char *program);

#endif
