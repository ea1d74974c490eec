/* What a client does next: drawn by the weights of the scenario. An own name has one operation at a time; shared names
 * have any number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "work.h"

static struct rng *rng_of_work(struct workload_client *client)
{
    return &client->all->world->rng_scenario;
}

static void cell_own(const struct workload_client *client, uint32_t own, struct cell *ret)
{
    ret->folder = 0;
    snprintf(ret->name, sizeof ret->name, "client-%u-file-%02u", client->number, own);
}

static void cell_shared(uint32_t folder, uint32_t name, struct cell *ret)
{
    ret->folder = folder;
    snprintf(ret->name, sizeof ret->name, "shared-%02u", name);
}

static void cell_folder(uint32_t folder, struct cell *ret)
{
    ret->folder = 0;
    snprintf(ret->name, sizeof ret->name, "folder-%u", folder);
}

uint32_t work_shared_number(const struct workload *all, const char *name)
{
    unsigned number = 0;
    char end = '\0';
    bool shared = sscanf(name, "shared-%u%c", &number, &end) == 1 && number < all->params.shared_names;
    return shared ? number : WORK_SHARED;
}

static uint32_t draw_folder(struct workload_client *client)
{
    uint32_t folder = (uint32_t)rng_below(rng_of_work(client), client->all->params.folders + 1);
    return client->all->folders[folder].known ? folder : 0;
}

static void draw_shared(struct workload_client *client, struct cell *ret)
{
    uint32_t folder = draw_folder(client);
    cell_shared(folder, (uint32_t)rng_below(rng_of_work(client), client->all->params.shared_names), ret);
}

static enum work_kind draw_kind(struct workload_client *client)
{
    const uint32_t *weights = client->all->params.weights;
    uint64_t sum = 0;
    for (int kind = 0; kind < WORK_KINDS; kind++) {
        sum += weights[kind];
    }
    CHECK(sum > 0 && weights[WORK_NONE] == 0);
    uint64_t at = rng_below(rng_of_work(client), sum);
    int kind = 0;
    while (at >= weights[kind]) {
        at -= weights[kind++];
    }
    return (enum work_kind)kind;
}

static uint64_t draw_content(struct workload_client *client)
{
    struct workload *all = client->all;
    struct rng *rng = rng_of_work(client);
    const struct workload_params *params = &all->params;
    uint64_t chunk = params->chunk_bytes, bytes, known = contents_count(all->contents);
    if (known > 0 && rng_chance(rng, 60000)) {
        return 1 + rng_below(rng, known); /* somebody put the very same before */
    }
    if (params->big_bytes > 0 && client->number == 1 && all->counts.begun < 8) {
        bytes = params->big_bytes;
    } else if (rng_chance(rng, params->inline_percent * 10000)) {
        bytes = rng_below(rng, (chunk < LIMIT_INLINE_BYTES ? chunk : LIMIT_INLINE_BYTES) + 1);
    } else if (rng_chance(rng, 200000)) { /* whole chunks, and one byte more or less */
        bytes = chunk * rng_between(rng, 1, params->most_chunks) + rng_below(rng, 3) - 1;
    } else {
        bytes = rng_between(rng, 1, chunk * params->most_chunks);
    }
    return contents_add(all->contents, bytes, rng_chance(rng, 300000));
}

static void draw_put(struct workload_client *client, struct work *work)
{
    struct rng *rng = rng_of_work(client);
    work->content = draw_content(client);
    work->any_base = work->own != WORK_NOT_OWN || rng_chance(rng, 500000);
    uint32_t name = work_shared_number(client->all, work->cell.name);
    if (!work->any_base && name < WORK_SHARED && rng_chance(rng, 700000)) {
        work->base = client->all->versions[work->cell.folder][name];
    }
}

/* A shared file, or (rarely) a whole folder; both may be met by anybody. */
static void draw_move(struct workload_client *client, struct work *work)
{
    struct rng *rng = rng_of_work(client);
    draw_shared(client, &work->to);
    work->replace = rng_chance(rng, 500000);
    if (client->all->params.folders > 0 && rng_chance(rng, 50000)) {
        cell_folder(1 + (uint32_t)rng_below(rng, client->all->params.folders), &work->cell);
    }
}

static void draw_remove(struct workload_client *client, struct work *work)
{
    struct rng *rng = rng_of_work(client);
    if (client->all->params.folders > 0 && rng_chance(rng, 70000)) {
        cell_folder(1 + (uint32_t)rng_below(rng, client->all->params.folders), &work->cell);
        work->recursive = rng_chance(rng, 500000);
    }
}

static void draw_changes(struct workload_client *client, struct work *work)
{
    struct rng *rng = rng_of_work(client);
    work->after = rng_chance(rng, 800000) ? client->cursor : rng_below(rng, client->cursor + 1);
}

/* The cell: one of the client's own, when it has a free one and the kind is about files, or a shared one. */
static void draw_cell(struct workload_client *client, struct work *work)
{
    const struct workload_params *params = &client->all->params;
    struct rng *rng = rng_of_work(client);
    bool files = work->kind == WORK_PUT || work->kind == WORK_GET || work->kind == WORK_REMOVE;
    work->own = WORK_NOT_OWN;
    if (files && params->own_names > 0 && !rng_chance(rng, params->shared_percent * 10000)) {
        uint32_t own = (uint32_t)rng_below(rng, params->own_names);
        if (!client->own[own].busy) {
            work->own = own;
            cell_own(client, own, &work->cell);
            return;
        }
    }
    draw_shared(client, &work->cell);
}

bool work_draw(struct workload_client *client, struct work *work)
{
    struct workload *all = client->all;
    if (all->stopped || workload_over(all)) {
        return false;
    }
    *work = (struct work){.kind = draw_kind(client)};
    draw_cell(client, work);
    switch (work->kind) {
    case WORK_PUT:
        draw_put(client, work);
        break;
    case WORK_LIST:
        work->cell.folder = draw_folder(client);
        break;
    case WORK_MKDIR:
        cell_folder(1 + (uint32_t)rng_below(rng_of_work(client), all->params.folders), &work->cell);
        break;
    case WORK_MOVE:
        draw_move(client, work);
        break;
    case WORK_REMOVE:
        if (work->own == WORK_NOT_OWN) {
            draw_remove(client, work);
        }
        break;
    case WORK_CHANGES:
        draw_changes(client, work);
        break;
    default:
        break;
    }
    return true;
}

/* ---- the verification ---- */

static bool verify_own(struct workload_client *client, struct work *work)
{
    for (uint32_t i = 0; i < client->all->params.own_names; i++) {
        if (client->own[i].unread && !client->own[i].busy) {
            *work = (struct work){.kind = WORK_GET, .own = i, .verifies = true};
            cell_own(client, i, &work->cell);
            return true;
        }
    }
    return false;
}

static bool verify_shared(struct workload_client *client, struct work *work)
{
    for (uint32_t folder = 0; folder < WORKLOAD_FOLDERS; folder++) {
        for (uint32_t name = 0; name < WORK_SHARED; name++) {
            if (client->shared_left[folder][name]) {
                *work = (struct work){.kind = WORK_GET, .own = WORK_NOT_OWN, .verifies = true};
                cell_shared(folder, name, &work->cell);
                client->shared_left[folder][name] = false;
                return true;
            }
        }
    }
    return false;
}

static bool verify_folders(struct workload_client *client, struct work *work)
{
    for (uint32_t folder = 0; folder < WORKLOAD_FOLDERS; folder++) {
        if (client->folders_left[folder]) {
            *work = (struct work){.kind = WORK_LIST, .own = WORK_NOT_OWN, .verifies = true};
            work->cell.folder = folder;
            client->folders_left[folder] = false;
            return true;
        }
    }
    return false;
}

bool work_draw_verification(struct workload_client *client, struct work *work)
{
    if (verify_own(client, work) || verify_shared(client, work) || verify_folders(client, work)) {
        return true;
    }
    if (client->feed_left) {
        *work = (struct work){.kind = WORK_CHANGES, .own = WORK_NOT_OWN, .after = client->cursor, .verifies = true};
        client->feed_left = false;
        return true;
    }
    return false;
}
