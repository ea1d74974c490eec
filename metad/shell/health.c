/* Lines about what happens to groups (health.h): who leads; what was applied anew after a start; damaged logs, that
 * they were found and mended; stores that go down and come up. */
#include "health.h"

#include <stdlib.h>

#include "base/check.h"
#include "io/log.h"
#include "metad/root/root.h"

static void leader_tell(uint32_t group, const struct group_health *was, const struct group_health *is)
{
    if (is->leader == 0 && was->leader != 0) {
        io_log(LOG_INFO, ERR_OK, "group %u: no leader in term %llu", group, (unsigned long long)is->term);
    } else if (is->leader != 0 && (is->leader != was->leader || is->term != was->term)) {
        io_log(LOG_INFO, ERR_OK, "group %u: metad:%u leads term %llu", group, is->leader, (unsigned long long)is->term);
    }
}

static void group_tell(uint32_t group, const struct group_health *was, const struct group_health *is)
{
    leader_tell(group, was, is);
    if (is->reapplied > was->reapplied) {
        io_log(LOG_INFO, ERR_OK, "group %u: %llu mutations of the log were applied anew in %.3f s", group,
               (unsigned long long)is->reapplied, (double)is->reapply_ns / 1e9);
    }
    if (is->unsure && !was->unsure) {
        io_log(
            LOG_ERROR, ERR_CORRUPT,
            "group %u: the log lost what this node promised; it takes no part here. Set the directory aside and join "
            "the node anew",
            group);
    }
    if (is->told_stale && !was->told_stale) {
        io_log(
            LOG_WARN, ERR_STALE_PEER,
            "group %u: other members say that this directory holds less than the node had acknowledged (emptied, or an "
            "older copy): it has no vote until it has caught up as a learner",
            group);
    }
    if (is->stale != was->stale && is->stale != 0) {
        io_log(
            LOG_WARN, ERR_STALE_PEER,
            "group %u: metad:%u came back with less than it had acknowledged: what it says is refused until it is made "
            "a learner",
            group, is->stale);
    }
    if (is->rot_behind != was->rot_behind) {
        io_log(LOG_WARN, ERR_CORRUPT, "group %u: %llu entries of the log are damaged; the database holds what they did",
               group, (unsigned long long)is->rot_behind);
    }
    if (is->lost && !was->lost) {
        io_log(
            LOG_ERROR, ERR_CORRUPT,
            "group %u: the database holds less than the log begins behind; the state is fetched from another member, "
            "until then this node does not lead and serves nothing of the group",
            group);
    } else if (is->restored != was->restored) {
        io_log(LOG_INFO, ERR_OK, "group %u: the state is back, as another member had it at entry %llu", group,
               (unsigned long long)is->restored);
    }
    if (is->holes > was->holes) {
        io_log(LOG_WARN, ERR_CORRUPT,
               "group %u: %llu entries of the log are damaged, the first is %llu; they are fetched from other members",
               group, (unsigned long long)is->holes, (unsigned long long)is->hole);
    } else if (is->holes == 0 && was->holes > 0) {
        io_log(LOG_INFO, ERR_OK, "group %u: the log is whole again, %llu entries were written anew", group,
               (unsigned long long)is->mended);
    }
}

void health_tell(struct group_health *told, uint32_t number, const struct group *group)
{
    struct group_health health = group_health(group);
    group_tell(number, told, &health);
    *told = health;
}

static void store_tell(const Cairn__MapStore *store, uint64_t epoch)
{
    unsigned long long at = epoch;
    if (store->state == STORE_DOWN) {
        io_log(LOG_WARN, ERR_UNREACHABLE, "store %u of blockd:%u is not heard: down since map epoch %llu", store->store,
               store->node, at);
    } else if (store->state == STORE_UP) {
        io_log(LOG_INFO, ERR_OK, "store %u of blockd:%u is up again since map epoch %llu", store->store, store->node,
               at);
    } else {
        io_log(LOG_INFO, ERR_OK, "store %u of blockd:%u is gone since map epoch %llu", store->store, store->node, at);
    }
}

void health_tell_stores(struct stores_told *told, const Cairn__ClusterMap *map)
{
    for (size_t i = 0; i < map->n_stores; i++) {
        const Cairn__MapStore *store = map->stores[i];
        told->states = mem_grow(told->states, &told->capacity, store->store, 1);
        while (told->count < store->store) {
            told->states[told->count++] = STORE_UP; /* what is up from the beginning is no news */
        }
        uint8_t *state = &told->states[store->store - 1];
        if (*state != store->state) {
            store_tell(store, map->epoch);
            *state = (uint8_t)store->state;
        }
    }
}

void stores_told_deinit(struct stores_told *told)
{
    free(told->states);
    *told = (struct stores_told){0};
}
