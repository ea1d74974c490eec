/* Where nodes are: per node the address that was given (a person's configuration) and the one that was learned (the
 * cluster's map, a refusal that names the leader, a file that remembers either). Stands before node.c, which connects.
 *
 * Neither wins for good: an old configuration names hosts that are gone, and an old map, which a node reads from its
 * own disk before it has met anybody, names addresses from before the hosts moved. So the later news is tried first,
 * and after an attempt that did not open the other is: no wrong address keeps a node away that the right one reaches.
 * What is learned first, after a start, is no news; only another one after it is. Who answers must show the node's
 * certificate, so a wrong address costs an attempt and nothing else. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "io/internal.h"

/* Under the lock. NULL: nothing is known. */
static struct node_addresses *addresses_find(struct runtime *runtime, uint8_t role, uint32_t node)
{
    for (unsigned long i = 0; i < runtime->address_count; i++) {
        if (runtime->addresses[i].role == role && runtime->addresses[i].id == node) {
            return &runtime->addresses[i];
        }
    }
    return NULL;
}

static void address_put(struct runtime *runtime, uint8_t role, uint32_t node, unsigned kind, const char *host,
                        uint16_t port)
{
    CHECK(port != 0 && kind < ADDRESS_KINDS);
    pthread_mutex_lock(&runtime->lock);
    struct node_addresses *row = addresses_find(runtime, role, node);
    if (row == NULL) {
        runtime->addresses = mem_grow(runtime->addresses, &runtime->address_capacity, runtime->address_count + 1,
                                      sizeof *runtime->addresses);
        row = &runtime->addresses[runtime->address_count++];
        *row = (struct node_addresses){.role = role, .id = node, .newest = kind};
    }
    struct node_address *at = &row->at[kind];
    bool first = at->port == 0;
    if (first || at->port != port || strcmp(at->host, host) != 0) {
        at->port = port;
        snprintf(at->host, sizeof at->host, "%s", host);
        row->newest = first && kind == ADDRESS_LEARNED ? row->newest : kind;
        row->changes++;
    }
    pthread_mutex_unlock(&runtime->lock);
}

void runtime_set_address(struct runtime *runtime, enum role role, uint32_t node, const char *host, uint16_t port)
{
    address_put(runtime, (uint8_t)role, node, ADDRESS_GIVEN, host, port);
}

void runtime_learn_address(struct runtime *runtime, enum role role, uint32_t node, const char *host, uint16_t port)
{
    address_put(runtime, (uint8_t)role, node, ADDRESS_LEARNED, host, port);
}

bool address_find(struct runtime *runtime, struct principal who, struct address_try *attempt,
                  struct node_address *ret_address)
{
    pthread_mutex_lock(&runtime->lock);
    const struct node_addresses *row = addresses_find(runtime, who.role, who.id);
    if (row != NULL) {
        if (attempt->changes != row->changes) {
            attempt->changes = row->changes;
            attempt->kind = row->newest;
        }
        unsigned kind = row->at[attempt->kind].port != 0 ? attempt->kind : ADDRESS_KINDS - 1 - attempt->kind;
        *ret_address = row->at[kind];
    }
    pthread_mutex_unlock(&runtime->lock);
    return row != NULL;
}
