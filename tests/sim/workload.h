/* The workload of clusters: on each device one actor (ACTOR_API) beside a real client core. Clients put, read, stat,
 * list, move and remove files and folders and follow the change feed. Some names are a client's own: the model
 * (model.h) says at once when one holds what it must not, and `safe_losses` of 0 is a finding. The others belong to
 * all, few enough that operations meet. Everything asked and answered goes into one history, which the checkers of
 * tests/check judge at the end.
 *
 * `workload` is what all clients have in common and outlives their crashes; `workload_client` is one of them. */
#ifndef CAIRN_SIM_WORKLOAD_H
#define CAIRN_SIM_WORKLOAD_H

#include "check/history.h"
#include "contents.h"
#include "world.h"

#define WORKLOAD_CLIENTS 16u
#define WORKLOAD_FOLDERS 8u

enum work_kind {
    WORK_NONE,
    WORK_PUT,
    WORK_GET,
    WORK_STAT,
    WORK_LIST,
    WORK_MKDIR,
    WORK_MOVE,
    WORK_REMOVE,
    WORK_CHANGES,
    WORK_KINDS,
};
/* "put", ...; WORK_NONE when there is none such. */
enum work_kind work_kind_of(const char *name);

struct workload_params {
    uint32_t clients;
    uint64_t operations;     /* of all clients together; then they rest */
    uint64_t pause_ns;       /* mean, between the operations a client begins */
    uint32_t at_once;        /* operations of one client */
    uint32_t own_names;      /* of each client */
    uint32_t shared_names;   /* in each folder and the root */
    uint32_t folders;        /* below the root */
    uint32_t shared_percent; /* of operations that concern names of all */
    uint32_t chunk_bytes;    /* largest; a file of up to one goes inline */
    uint32_t most_chunks;    /* of a file, of chunk_bytes each */
    uint32_t inline_percent; /* files of at most a chunk */
    uint64_t big_bytes;      /* the first upload of client 1 has so many; 0: none */
    uint32_t weights[WORK_KINDS];
};

struct workload;
struct workload_client;
struct workload *workload_create(struct world *world, const struct workload_params *params);
void workload_destroy(struct workload *workload);
struct workload_client *workload_client_of(struct workload *workload, uint32_t client); /* from 1 */
/* The node a client runs on, for the files it uploads from. */
void workload_node(struct workload_client *client, struct node *node);
actor_step workload_step; /* self: struct workload_client */

/* All operations have begun. */
bool workload_over(const struct workload *workload);
/* No more of them. */
void workload_stop(struct workload *workload);
bool workload_idle(const struct workload *workload);
/* Once stopped and idle: reads every name that may hold something, lists every folder, follows the feed to its end. */
void workload_verify(struct workload *workload);
bool workload_verified(const struct workload *workload);
/* Lets the checkers judge the history; what they find is a finding of the world. */
void workload_judge(struct workload *workload);

struct workload_counts {
    uint64_t begun, acknowledged, reads, refused, unknown;
};
struct workload_counts workload_counts(const struct workload *workload);

#endif
