/* The state of one namespace as a replica holds it, in plain records: what references.h and tree.h judge. The simulator
 * fills it from a key-value store; a hand-made file has a record a line (state_read):
 *
 *   namespace ROOT ENTRIES BYTES                          folder ID PARENT ENTRIES BYTES DIGEST
 *   entry PARENT NAME TYPE FILE VERSION BYTES SEQUENCE MANIFEST CHUNKS
 *   past PARENT NAME SEQUENCE MANIFEST CHUNKS             event SEQUENCE KIND PARENT NAME FROM_PARENT FROM_NAME
 *   page NAME VERSIONS CHUNK,CHUNK,...                    link MANIFEST FIRST PAGE ENTRIES
 *   chunk NAME PAGES PINS          pin SESSION CHUNK      session ID
 *
 * NAMEs are words; '-' is none. TYPE: 1 file, 2 folder, 3 symlink; KIND: 1 create, 2 update, 3 remove, 4 move. A
 * session is open, or ended and not yet reaped; a version's manifest is the session that staged it. DIGEST: "sum" for
 * the right one, else 64 hexadecimal digits. */
#ifndef CAIRN_CHECK_STATE_H
#define CAIRN_CHECK_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

struct state_record {
    enum state_kind {
        STATE_NAMESPACE,
        STATE_FOLDER,
        STATE_ENTRY,
        STATE_PAST,
        STATE_EVENT,
        STATE_PAGE,
        STATE_LINK,
        STATE_CHUNK,
        STATE_PIN,
        STATE_SESSION,
        STATE_KINDS,
    } kind;
    char *name, *other; /* owned; entry, page or chunk; page of a link, chunk of a pin, from_name of an event */
    uint64_t id;        /* folder, file, manifest of a link, session, sequence of an event */
    uint64_t parent, type, version, bytes, sequence, manifest, count; /* count: entries, pages, versions, chunks */
    uint64_t pins;
    uint64_t digest[4];
    bool digest_is_right;
    char **refs; /* of a page, owned, `count_refs` */
    unsigned long count_refs;
};

struct state_dump {
    struct state_record *items;
    unsigned long count, capacity;
};

void state_dump_deinit(struct state_dump *dump);
/* A new record, zeroed, valid until the next one; names are copied, NULL is none. */
struct state_record *state_add(struct state_dump *dump, enum state_kind kind, const char *name, const char *other);
void state_add_ref(struct state_record *page, const char *chunk);
/* INVALID at a line that is none. Lines that begin with '#' are comments. */
MUST_CHECK enum err state_read(struct state_dump *dump, FILE *file);

#endif
