/* What the workload's files share: one operation's state and the clients'. work_draw.c chooses what is done,
 * work_request.c asks it of the core, work_answer.c takes the answers into model and history; workload.c is the actor.
 */
#ifndef CAIRN_SIM_WORK_H
#define CAIRN_SIM_WORK_H

#include "client/client.h"
#include "model.h"
#include "workload.h"

#define WORK_NAME_BYTES 48u
#define WORK_AT_ONCE    16u
#define WORK_OWN_NAMES  32u
#define WORK_SHARED     32u
#define WORK_NOT_OWN    UINT32_MAX

/* A name in a folder. */
struct cell {
    uint32_t folder; /* of workload.folders; 0: the root */
    char name[WORK_NAME_BYTES];
};

struct work {
    enum work_kind kind;
    uint64_t id;
    uint32_t own; /* which of the client's own names, or WORK_NOT_OWN */
    struct cell cell, to;
    bool verifies; /* the verification asked for it */
    uint64_t content;
    uint64_t base; /* version a put replaces, unless any_base; 0: the name must be free */
    bool any_base, recursive, replace;
    uint64_t after; /* the cursor of CHANGES */
    uint8_t *got;   /* of a download, in order */
    uint64_t got_bytes, total_bytes;
    struct history_op *record;
};

struct folder {
    uint64_t id; /* 0 for the root; else of the newest folder under the name that somebody was told of */
    bool known;
};

struct workload_client {
    struct workload *all;
    uint32_t number;
    struct node *node;
    struct model_file own[WORK_OWN_NAMES];
    struct work works[WORK_AT_ONCE];
    uint64_t ids, keys;
    uint64_t cursor; /* of the feed */
    bool verifying, feed_left;
    bool folders_left[WORKLOAD_FOLDERS];
    bool shared_left[WORKLOAD_FOLDERS][WORK_SHARED]; /* to be read by the verification */
};

struct workload {
    struct world *world;
    struct workload_params params;
    struct contents *contents;
    uint32_t sources; /* files that clients put from: one each time */
    struct history *history;
    struct folder folders[WORKLOAD_FOLDERS];
    uint64_t versions[WORKLOAD_FOLDERS][WORK_SHARED]; /* newest that somebody was told of */
    struct workload_client clients[WORKLOAD_CLIENTS];
    struct workload_counts counts;
    bool stopped;
};

/* work_draw.c: false when there is nothing to do just now. */
bool work_draw(struct workload_client *client, struct work *work);
/* The next read of the verification. */
bool work_draw_verification(struct workload_client *client, struct work *work);
/* The number of a shared name, or WORK_SHARED. */
uint32_t work_shared_number(const struct workload *all, const char *name);

/* work_request.c: invokes it in the history and hands it to the client core. */
void work_begin(struct workload_client *client, struct work *work, uint64_t now_ns, struct effects *fx);

/* work_answer.c: takes what the core gives back. */
void work_end(struct workload_client *client, struct work *work, const struct client_op *op, uint64_t now_ns);
/* The client has died: what was under way may have happened or not. */
void work_forget(struct workload_client *client, struct work *work);

#endif
