/* Hand-made histories for the simulator's checkers: a world whose nodes run nothing, and messages as their actors would
 * send them. A bad history is a good one up to its last call. */
#ifndef CAIRN_TESTS_SIM_CHECK_H
#define CAIRN_TESTS_SIM_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "metad/host/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "tests/sim/check_log.h"
#include "tests/sim/check_raft.h"
#include "tests/sim/check_safe.h"
#include "tests/sim/inside.h"

enum { LAB_NODES = 3 };

struct lab {
    struct world *world;
    struct node *nodes[LAB_NODES + 1]; /* from 1 */
    struct raft_check *raft;
    struct log_check *log;
    struct safe_check *safe;
};

struct bad_history {
    const char *name;
    void (*make)(struct lab *lab);
    const char *finding; /* words of it */
};

static inline void lab_boot(struct world *world, struct node *node, void *context)
{
    (void)world, (void)node, (void)context;
}

static inline void lab_init(struct lab *lab)
{
    *lab = (struct lab){.world = world_create(1, false)};
    for (uint32_t i = 1; i <= LAB_NODES; i++) {
        lab->nodes[i] = world_node_add(lab->world, ROLE_METAD, i, 1, lab_boot, lab);
        node_start(lab->nodes[i]);
    }
    lab->raft = raft_check_create(lab->world);
    lab->log = log_check_create(lab->world);
    lab->safe = safe_check_create(lab->world, 0);
}

static inline void lab_deinit(struct lab *lab)
{
    raft_check_destroy(lab->raft);
    log_check_destroy(lab->log);
    safe_check_destroy(lab->safe);
    world_destroy(lab->world);
}

static inline void lab_restart(struct lab *lab, uint32_t node)
{
    node_crash(lab->nodes[node], CRASH_POWER);
    node_start(lab->nodes[node]);
}

/* All that came before was good: what follows is the last call of a bad history. */
static inline void lab_turn(struct lab *lab)
{
    if (lab->world->failed) {
        fail_msg("found too early: %s", lab->world->finding);
    }
}

static inline struct raft_entry lab_entry(uint64_t index, uint64_t term, const char *text)
{
    return (struct raft_entry){index, term, RAFT_ENTRY_COMMANDS, slice_copy(text, (uint32_t)strlen(text))};
}

/* A message to an actor of the same node; header and body are given. */
static inline struct effect lab_local(enum actor_kind to, uint32_t index, uint16_t type, struct writer *header,
                                      struct slice body)
{
    struct effect effect = {.kind = EFFECT_SEND};
    effect.send.to = address_local(to, index);
    effect.send.type = type;
    effect.send.header = writer_take(header);
    effect.send.body = body;
    writer_deinit(header);
    return effect;
}

static inline void lab_forget(struct effect *effect)
{
    slice_drop(&effect->send.header);
    slice_drop(&effect->send.body);
}

static inline Cairn__RaftMessage lab_message(enum raft_message_kind kind, uint64_t term)
{
    Cairn__RaftMessage m = CAIRN__RAFT_MESSAGE__INIT;
    m.kind = kind;
    m.term = term;
    return m;
}

/* A Raft message of group 0 with entries (their data is taken), seen by both checkers. */
static inline void lab_send(struct lab *lab, uint32_t from, uint32_t to, Cairn__RaftMessage m,
                            struct raft_entry *entries, uint32_t count)
{
    m.from = from;
    struct effect effect = {.kind = EFFECT_SEND};
    effect.send.to = address_node(ROLE_METAD, to, ACTOR_GROUP, 0);
    effect.send.type = MESSAGE_RAFT;
    effect.send.header = proto_pack(&m);
    if (count > 0) {
        raft_entries_encode(entries, count, &effect.send.body);
    }
    struct actor actor = {.kind = ACTOR_GROUP};
    metad_check_send(lab->raft, lab->log, lab->nodes[from], &actor, &effect);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    lab_forget(&effect);
}

/* Each is found, by its words, and not before its last call; the good one stays good. */
static inline void lab_judge(void (*good)(struct lab *lab), const struct bad_history *bad, unsigned long count)
{
    struct lab lab;
    lab_init(&lab);
    good(&lab);
    lab_turn(&lab);
    lab_deinit(&lab);
    for (unsigned long i = 0; i < count; i++) {
        lab_init(&lab);
        bad[i].make(&lab);
        if (!lab.world->failed || strstr(lab.world->finding, bad[i].finding) == NULL) {
            fail_msg("%s: found \"%s\", not \"%s\"", bad[i].name, lab.world->finding, bad[i].finding);
        }
        lab_deinit(&lab);
    }
}

#endif
