/* Recovery from a lost majority, from the operator's side (R-A10; the group's side: metad/recover.c). The node is not
 * running otherwise, and does not listen.
 *
 *   LOOKING   each group says what it holds; one that cannot be recovered ends it
 *   ASKING    every other metadata node that the configuration or the map names is asked for anything; one that answers
 *             ends it: a majority that lives is not lost. Silence proves nothing: the operator has to know
 *   WRITING   DIR/recovery names the new incarnation; then every group's log gets its two entries, durably
 *   done      DIR/directory is of the new incarnation
 *
 * How it fails: before WRITING nothing was changed. Killed after that, the node refuses to start until the same command
 * has run to its end; it may be run any number of times. What it says to the operator goes to standard output. */
#include "recover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/check.h"
#include "io/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

#define POLL_NS  50000000ull
#define ASK_NS   5000000000ull /* for an answer; connections fail and come back meanwhile */
#define AGAIN_NS 500000000ull
#define OTHERS   LIMIT_METADS_KNOWN

enum recovery_state { RECOVERY_LOOKING, RECOVERY_ASKING, RECOVERY_WRITING, RECOVERY_OVER };

struct recovery {
    struct recovery_params params;
    enum recovery_state state;
    int code;
    uint64_t until_ns, again_ns, streams;
    uint32_t others[OTHERS];
    bool answered[OTHERS];
    uint32_t other_count;
    uint64_t incarnation;
};

static void recovery_end(struct recovery *recovery, int code)
{
    recovery->state = RECOVERY_OVER;
    recovery->code = code;
    runtime_stop(recovery->params.runtime);
}

static void recovery_fail(struct recovery *recovery, enum err err, const char *text)
{
    io_log(LOG_FATAL, err, "%s", text);
    recovery_end(recovery, err_exit_code(err));
}

/* ---- looking ---- */

static void group_tell(uint32_t group, const struct group_recovery *here)
{
    printf("group %u: its log ends with entry %llu of term %llu, %llu are known to be committed; members", group,
           (unsigned long long)here->last, (unsigned long long)here->term, (unsigned long long)here->applied);
    for (uint32_t i = 0; i < here->config.count; i++) {
        printf(" metad%u", here->config.members[i].node);
    }
    printf("%s%s\n", here->wrong != NULL ? ": cannot be recovered here: " : "", here->wrong != NULL ? here->wrong : "");
}

static void other_add(struct recovery *recovery, uint32_t node)
{
    bool known = node == recovery->params.config->node || recovery->other_count == OTHERS;
    for (uint32_t i = 0; i < recovery->other_count; i++) {
        known = known || recovery->others[i] == node;
    }
    if (!known) {
        recovery->others[recovery->other_count++] = node;
    }
}

/* Whoever the configuration, the map and the groups name. Those that are gone too: one that answers is no harm. */
static void others_find(struct recovery *recovery)
{
    const struct recovery_params *params = &recovery->params;
    uint64_t epoch = 0;
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    for (uint32_t i = 0; i < params->config->metad_count; i++) {
        other_add(recovery, params->config->metads[i].node);
    }
    for (uint32_t g = 0; g < params->group_count; g++) {
        const struct raft_config *config = &group_recovery(params->groups[g])->config;
        for (uint32_t i = 0; i < config->count; i++) {
            other_add(recovery, config->members[i].node);
        }
    }
    if (proto_unpack(&cairn__cluster_map__descriptor, group_map(params->groups[0], &epoch), &arena, (void **)&map) ==
        ERR_OK) {
        for (size_t i = 0; i < map->n_nodes; i++) {
            if (map->nodes[i]->role == ROLE_METAD) {
                other_add(recovery, map->nodes[i]->id);
            }
        }
    }
    proto_arena_deinit(&arena);
}

static void look(struct recovery *recovery, uint64_t now_ns)
{
    const struct recovery_params *params = &recovery->params;
    bool sound = true;
    for (uint32_t g = 0; g < params->group_count; g++) {
        if (!group_recovery(params->groups[g])->looked) {
            return;
        }
    }
    printf("metad%u, incarnation %llu of the cluster\n", params->config->node,
           (unsigned long long)params->config->cluster_incarnation);
    for (uint32_t g = 0; g < params->group_count; g++) {
        const struct group_recovery *here = group_recovery(params->groups[g]);
        group_tell(g, here);
        sound = sound && here->wrong == NULL;
    }
    if (!sound) {
        recovery_fail(recovery, ERR_NOT_READY,
                      "a group cannot be recovered on this node; nothing was changed. Take another node that is left");
        return;
    }
    others_find(recovery);
    recovery->state = RECOVERY_ASKING;
    recovery->until_ns = now_ns + ASK_NS;
}

/* ---- asking ---- */

/* Any request of one metadata node to another will do: an answer of any kind is an answer. */
static void ask_all(struct recovery *recovery, uint64_t now_ns, struct effects *fx)
{
    recovery->again_ns = now_ns + AGAIN_NS;
    for (uint32_t i = 0; i < recovery->other_count; i++) {
        Cairn__NodeRegisterRequest request = CAIRN__NODE_REGISTER_REQUEST__INIT;
        request.node = recovery->params.config->node;
        request.address = (char *)(uintptr_t)recovery->params.config->advertise;
        fx_send(fx, address_node(ROLE_METAD, recovery->others[i], ACTOR_GROUP, 0), MESSAGE_NODE_REGISTER,
                ++recovery->streams, proto_pack(&request), (struct slice){0});
    }
}

static void note_answer(struct recovery *recovery, const struct message *message)
{
    for (uint32_t i = 0; i < recovery->other_count; i++) {
        recovery->answered[i] |= message->peer.role == ROLE_METAD && message->peer.id == recovery->others[i];
    }
}

static const char lost_text[] =
    "\n"
    "LOST, for good, by going on from here: whatever the other metadata nodes acknowledged and this one never heard.\n"
    "Files, versions, names, moves and removals of that time are as if they had not been; bytes of such files may lie\n"
    "on block servers, and nothing names them any more. The change feed may give other events under numbers that were\n"
    "given before: every cursor becomes void, and devices have to list anew.\n"
    "Of several nodes that are left, take the one whose logs end with the highest term, then the highest entry. The\n"
    "others that are left must not run again: stop them, and set their directories aside.\n";

static const char unsafe_text[] =
    "\nNothing was changed. If the majority is lost for good, run this again with --unsafe-lose-majority.\n";

static void asked(struct recovery *recovery)
{
    bool alive = false;
    for (uint32_t i = 0; i < recovery->other_count; i++) {
        printf("metad%u: %s\n", recovery->others[i], recovery->answered[i] ? "ANSWERS" : "does not answer");
        alive = alive || recovery->answered[i];
    }
    fputs(lost_text, stdout);
    if (alive) {
        recovery_fail(recovery, ERR_CONFLICT,
                      "another metadata node answers; nothing was changed. Bring the majority back, or stop that node "
                      "for good first");
    } else if (!recovery->params.unsafe) {
        fputs(unsafe_text, stdout);
        recovery_end(recovery, 0);
    } else {
        recovery->state = RECOVERY_WRITING;
    }
}

/* ---- writing ---- */

static void write_begin(struct recovery *recovery)
{
    const struct recovery_params *params = &recovery->params;
    char text[METAD_TEXT_BYTES] = "";
    uint32_t random = 0;
    uint8_t packed[8];
    enum err err = ERR_OK;
    if (!metad_recovery_begun(params->config->data, &recovery->incarnation) || recovery->incarnation == 0) {
        if (getrandom(&random, sizeof random, 0) != sizeof random) {
            recovery_fail(recovery, ERR_IO, "no random bytes; nothing was changed");
            return;
        }
        recovery->incarnation = incarnation_next(params->config->cluster_incarnation, random);
        err = metad_recovery_begin(params->config->data, recovery->incarnation, text);
    }
    if (err != ERR_OK) {
        recovery_fail(recovery, err, text);
        return;
    }
    put_u64(packed, recovery->incarnation);
    for (uint32_t g = 0; g < params->group_count; g++) {
        runtime_post(params->runtime, address_local(ACTOR_GROUP, g), MESSAGE_GROUP_RECOVER, 0,
                     slice_copy(packed, sizeof packed), (struct slice){0});
    }
}

static void write_end(struct recovery *recovery)
{
    const struct recovery_params *params = &recovery->params;
    char text[METAD_TEXT_BYTES] = "";
    for (uint32_t g = 0; g < params->group_count; g++) {
        if (!group_recovery(params->groups[g])->done) {
            return;
        }
    }
    enum err err = metad_recovery_end(params->config, &params->directory, recovery->incarnation, text);
    if (err != ERR_OK) {
        recovery_fail(recovery, err, text);
        return;
    }
    io_log(LOG_WARN, ERR_OK, "recovered from a lost majority into incarnation %llu; this node is the only one of it",
           (unsigned long long)recovery->incarnation);
    printf("\nmetad%u is the only metadata node now, in incarnation %llu. Next:\n"
           "  start it as ever; block servers follow it by themselves, older metadata nodes are refused and end\n"
           "  'cairn admin token create --role metad' and 'cairn admin node add' for each new one: until there are\n"
           "  three, the loss of this one is the loss of everything\n",
           params->config->node, (unsigned long long)recovery->incarnation);
    recovery_end(recovery, 0);
}

static void recovery_step(void *actor, const struct event *event, struct effects *fx)
{
    struct recovery *recovery = actor;
    if (event->kind == EVENT_MESSAGE) {
        note_answer(recovery, &event->message);
        return;
    }
    if (event->kind != EVENT_TIMER || recovery->state == RECOVERY_OVER) {
        return;
    }
    if (recovery->state == RECOVERY_LOOKING) {
        look(recovery, event->now_ns);
    } else if (recovery->state == RECOVERY_ASKING) {
        if (event->now_ns >= recovery->until_ns || recovery->other_count == 0) {
            asked(recovery);
            if (recovery->state == RECOVERY_WRITING) {
                write_begin(recovery);
            }
        } else if (event->now_ns >= recovery->again_ns) {
            ask_all(recovery, event->now_ns, fx);
        }
    } else {
        write_end(recovery);
    }
    if (recovery->state != RECOVERY_OVER) {
        fx_timer(fx, 1, event->now_ns + POLL_NS);
    }
}

int recovery_run(const struct recovery_params *params)
{
    struct recovery *recovery = mem_alloc(sizeof *recovery);
    recovery->params = *params;
    runtime_add_actor(params->runtime, 0, ACTOR_API, 0, recovery_step, recovery, NULL, NULL);
    int code = runtime_run(params->runtime, 1);
    code = code == 0 && recovery->state != RECOVERY_OVER ? err_exit_code(ERR_CLOSED) : code;
    code = code == 0 ? recovery->code : code;
    fflush(stdout);
    free(recovery);
    return code;
}
