/* Reading scenario files (plan.h). */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/config.h"
#include "base/limits.h"

const char *fault_name(enum fault_kind kind)
{
    static const char *const names[FAULT_KINDS] = {
        "metad_kill",  "metad_power",   "blockd_kill", "blockd_power", "client_kill",  "all_power",   "cut_node",
        "cut_leader",  "cut_one_way",   "cut_bridge",  "slow_disk",    "hung_disk",    "full_disk",   "failing_disk",
        "rot",         "stale_sectors", "misdirected", "clock_jump",   "log_rot",      "blockd_away", "late_leader",
        "metad_twice", "database_lost", "stale_copy",  "emptied",      "log_rot_live", "slow_flush",
    };
    CHECK(kind < FAULT_KINDS);
    return names[kind];
}

/* What a file gives, as base/config reads it. */
struct values {
    char *about;
    int64_t metads, spares, blockds, coded_percent, tick_ms, clock_ppm, reset_ppm, drop_index_percent;
    struct config_strings pools, operation_mix, fault_mix;
    struct config_integers chunk_bytes, fault_every_ms, fault_lasts_ms, restart_ms;
    int64_t clients, operations, pause_ms, at_once, own_names, shared_names, folders, shared_percent, most_chunks,
        inline_percent, big_kib;
    int64_t faults, most_seconds, steps, forged_percent;
};

static const struct values defaults = {
    .metads = 3,
    .blockds = 6,
    .coded_percent = 50,
    .tick_ms = 50,
    .drop_index_percent = 10,
    .clients = 4,
    .operations = 1000,
    .pause_ms = 80,
    .at_once = 6,
    .own_names = 10,
    .shared_names = 8,
    .folders = 3,
    .shared_percent = 60,
    .most_chunks = 5,
    .inline_percent = 60,
    .most_seconds = 240,
    .steps = 2000000,
};
static const char *const default_operations[] = {"put 32", "get 22",   "stat 12",   "list 3", "mkdir 4",
                                                 "move 6", "remove 5", "changes 6", NULL};
static const char *const default_pools[] = {"rs-4-2", "rs-2-1", "rs-3-2", "rep-3", NULL};

static bool refuse(char *ret_text, const char *text, const char *what)
{
    snprintf(ret_text, PLAN_TEXT, text, what);
    return false;
}

/* "NAME WEIGHT": the two, or false. */
static bool weight_split(const char *text, char name[32], uint32_t *ret_weight)
{
    char end = '\0';
    return sscanf(text, "%31[a-z_] %u%c", name, ret_weight, &end) == 2;
}

static bool take_operations(const struct config_strings *mix, uint32_t *ret_weights, char *ret_text)
{
    for (uint32_t i = 0; mix->count > 0 ? i < mix->count : default_operations[i] != NULL; i++) {
        const char *text = mix->count > 0 ? mix->items[i] : default_operations[i];
        char name[32];
        uint32_t weight = 0;
        enum work_kind kind = weight_split(text, name, &weight) ? work_kind_of(name) : WORK_NONE;
        if (kind == WORK_NONE) {
            return refuse(ret_text, "no operation and weight: '%s'", text);
        }
        ret_weights[kind] = weight;
    }
    return true;
}

static bool take_faults(const struct config_strings *mix, uint32_t *ret_weights, char *ret_text)
{
    for (uint32_t i = 0; i < mix->count; i++) {
        char name[32];
        uint32_t weight = 0;
        int kind = 0;
        bool split = weight_split(mix->items[i], name, &weight);
        while (split && kind < FAULT_KINDS && strcmp(fault_name((enum fault_kind)kind), name) != 0) {
            kind++;
        }
        if (!split || kind == FAULT_KINDS) {
            return refuse(ret_text, "no fault and weight: '%s'", mix->items[i]);
        }
        ret_weights[kind] = weight;
    }
    return true;
}

static bool take_pools(const struct config_strings *pools, struct plan *plan, char *ret_text)
{
    for (uint32_t i = 0; pools->count > 0 ? i < pools->count : default_pools[i] != NULL; i++) {
        const char *pool = pools->count > 0 ? pools->items[i] : default_pools[i];
        if (i == PLAN_POOLS || strlen(pool) >= sizeof plan->pools[0]) {
            return refuse(ret_text, "too many pools, or no pool: '%s'", pool);
        }
        strcpy(plan->pools[plan->pool_count++], pool);
    }
    return true;
}

/* [least, most] in milliseconds. */
static bool take_range(const struct config_integers *range, uint64_t least_ms, uint64_t most_ms, uint64_t *ret_min_ns,
                       uint64_t *ret_max_ns)
{
    bool given = range->count == 2;
    *ret_min_ns = (given ? (uint64_t)range->items[0] : least_ms) * MILLISECOND;
    *ret_max_ns = (given ? (uint64_t)range->items[1] : most_ms) * MILLISECOND;
    return (given || range->count == 0) && *ret_min_ns <= *ret_max_ns;
}

static bool take_lists(const struct values *v, struct plan *plan, char *ret_text)
{
    static const uint32_t default_chunks[] = {1024};
    plan->chunk_count = v->chunk_bytes.count > 0 ? v->chunk_bytes.count : 1;
    if (plan->chunk_count > sizeof plan->chunk_bytes / sizeof plan->chunk_bytes[0]) {
        return refuse(ret_text, "%s names too many sizes", "cluster.chunk_bytes");
    }
    for (uint32_t i = 0; i < plan->chunk_count; i++) {
        plan->chunk_bytes[i] = v->chunk_bytes.count > 0 ? (uint32_t)v->chunk_bytes.items[i] : default_chunks[i];
    }
    if (!take_range(&v->fault_every_ms, 400, 1600, &plan->fault_min_ns, &plan->fault_max_ns) ||
        !take_range(&v->fault_lasts_ms, 100, 2000, &plan->lasts_min_ns, &plan->lasts_max_ns) ||
        !take_range(&v->restart_ms, 1, 1200, &plan->restart_min_ns, &plan->restart_max_ns)) {
        return refuse(ret_text, "%s must be [least, most]", "faults.every_ms, lasts_ms and restart_ms");
    }
    return take_pools(&v->pools, plan, ret_text) &&
           take_operations(&v->operation_mix, plan->workload.weights, ret_text) &&
           take_faults(&v->fault_mix, plan->weights, ret_text);
}

static bool take_values(const struct values *v, struct plan *plan, char *ret_text)
{
    snprintf(plan->about, sizeof plan->about, "%s", v->about != NULL ? v->about : "");
    plan->metads = (uint32_t)v->metads;
    plan->spares = (uint32_t)v->spares;
    if (plan->metads + plan->spares > PLAN_METADS) {
        return refuse(ret_text, "%s are too many together", "cluster.metads and cluster.spares");
    }
    plan->blockds = (uint32_t)v->blockds;
    plan->forged_percent = (uint32_t)v->forged_percent;
    plan->coded_percent = (uint32_t)v->coded_percent;
    plan->tick_ms = (uint32_t)v->tick_ms;
    plan->clock_ppm = (uint32_t)v->clock_ppm;
    plan->reset_ppm = (uint32_t)v->reset_ppm;
    plan->drop_index_percent = (uint32_t)v->drop_index_percent;
    plan->fault_count = (uint32_t)v->faults;
    plan->most_ns = (uint64_t)v->most_seconds * SECOND;
    plan->steps = (uint64_t)v->steps;
    plan->workload = (struct workload_params){
        .clients = (uint32_t)v->clients,
        .operations = (uint64_t)v->operations,
        .pause_ns = (uint64_t)v->pause_ms * MILLISECOND,
        .at_once = (uint32_t)v->at_once,
        .own_names = (uint32_t)v->own_names,
        .shared_names = (uint32_t)v->shared_names,
        .folders = (uint32_t)v->folders,
        .shared_percent = (uint32_t)v->shared_percent,
        .most_chunks = (uint32_t)v->most_chunks,
        .inline_percent = (uint32_t)v->inline_percent,
        .big_bytes = (uint64_t)v->big_kib << 10,
    };
    return take_lists(v, plan, ret_text);
}

bool plan_read(const char *dir, const char *name, struct plan *ret_plan, char *ret_text)
{
    char path[4096];
    bool is_path = strchr(name, '/') != NULL;
    snprintf(path, sizeof path, is_path ? "%s%s" : "%s/%s.toml", is_path ? "" : dir, name);
    struct values v = defaults;
    const struct config_key keys[] = {
        {"about", CONFIG_STRING, true, &v.about, 0, 0},
        {"cluster.metads", CONFIG_INTEGER, false, &v.metads, 1, PLAN_METADS},
        {"cluster.spares", CONFIG_INTEGER, false, &v.spares, 0, PLAN_METADS},
        {"cluster.blockds", CONFIG_INTEGER, false, &v.blockds, 1, PLAN_BLOCKDS},
        {"cluster.pools", CONFIG_STRINGS, false, &v.pools, 0, 0},
        {"cluster.chunk_bytes", CONFIG_INTEGERS, false, &v.chunk_bytes, 64, LIMIT_CHUNK_BYTES},
        {"cluster.coded_percent", CONFIG_INTEGER, false, &v.coded_percent, 0, 100},
        {"cluster.tick_ms", CONFIG_INTEGER, false, &v.tick_ms, 1, 1000},
        {"cluster.clock_ppm", CONFIG_INTEGER, false, &v.clock_ppm, 0, 200000},
        {"cluster.reset_ppm", CONFIG_INTEGER, false, &v.reset_ppm, 0, 100000},
        {"cluster.drop_index_percent", CONFIG_INTEGER, false, &v.drop_index_percent, 0, 100},
        {"workload.clients", CONFIG_INTEGER, false, &v.clients, 1, WORKLOAD_CLIENTS},
        {"workload.operations", CONFIG_INTEGER, false, &v.operations, 1, 1000000},
        {"workload.forged_percent", CONFIG_INTEGER, false, &v.forged_percent, 0, 100},
        {"workload.pause_ms", CONFIG_INTEGER, false, &v.pause_ms, 1, 100000},
        {"workload.at_once", CONFIG_INTEGER, false, &v.at_once, 1, 16},
        {"workload.own_names", CONFIG_INTEGER, false, &v.own_names, 0, 32},
        {"workload.shared_names", CONFIG_INTEGER, false, &v.shared_names, 1, 32},
        {"workload.folders", CONFIG_INTEGER, false, &v.folders, 1, WORKLOAD_FOLDERS - 1},
        {"workload.shared_percent", CONFIG_INTEGER, false, &v.shared_percent, 0, 100},
        {"workload.most_chunks", CONFIG_INTEGER, false, &v.most_chunks, 1, 10000},
        {"workload.inline_percent", CONFIG_INTEGER, false, &v.inline_percent, 0, 100},
        {"workload.big_kib", CONFIG_INTEGER, false, &v.big_kib, 0, 1 << 20},
        {"workload.mix", CONFIG_STRINGS, false, &v.operation_mix, 0, 0},
        {"faults.count", CONFIG_INTEGER, false, &v.faults, 0, 10000},
        {"faults.every_ms", CONFIG_INTEGERS, false, &v.fault_every_ms, 0, 1000000},
        {"faults.lasts_ms", CONFIG_INTEGERS, false, &v.fault_lasts_ms, 0, 1000000},
        {"faults.restart_ms", CONFIG_INTEGERS, false, &v.restart_ms, 0, 1000000},
        {"faults.mix", CONFIG_STRINGS, false, &v.fault_mix, 0, 0},
        {"most_seconds", CONFIG_INTEGER, false, &v.most_seconds, 1, 100000},
        {"steps", CONFIG_INTEGER, false, &v.steps, 1, INT64_MAX},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    *ret_plan = (struct plan){0};
    const char *slash = strrchr(name, '/');
    snprintf(ret_plan->name, sizeof ret_plan->name, "%s", slash != NULL && !is_path ? slash + 1 : name);
    char text[CONFIG_TEXT_BYTES];
    bool good = config_read(path, keys, count, text) == ERR_OK;
    if (!good) {
        snprintf(ret_text, PLAN_TEXT, "%s", text);
    }
    good = good && take_values(&v, ret_plan, ret_text);
    config_free(keys, count);
    return good;
}
