/* The heap of items by (virtual time, order of being planned): a binary heap, deterministic to the last tie. */
#include <stdlib.h>

#include "base/check.h"
#include "inside.h"

static bool item_before(const struct item *a, const struct item *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->sequence < b->sequence);
}

struct item *world_item(struct world *world, uint64_t at_ns, enum item_kind kind, struct node *node)
{
    CHECK(at_ns >= world->now_ns);
    struct item *item = world->spare_items;
    if (item == NULL) {
        item = mem_alloc(sizeof *item);
    } else {
        world->spare_items = item->next;
        *item = (struct item){0};
    }
    item->at_ns = at_ns;
    item->sequence = ++world->item_sequence;
    item->kind = kind;
    item->node = node;
    item->boot = node != NULL ? node->boot : 0;
    world->heap = mem_grow(world->heap, &world->heap_capacity, world->heap_count + 1, sizeof(struct item *));
    unsigned long at = world->heap_count++;
    while (at > 0 && item_before(item, world->heap[(at - 1) / 2])) {
        world->heap[at] = world->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->heap[at] = item;
    return item;
}

struct item *heap_pop(struct world *world)
{
    CHECK(world->heap_count > 0);
    struct item *top = world->heap[0], *last = world->heap[--world->heap_count];
    unsigned long at = 0, count = world->heap_count;
    for (;;) {
        unsigned long child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && item_before(world->heap[child + 1], world->heap[child])) {
            child++;
        }
        if (!item_before(world->heap[child], last)) {
            break;
        }
        world->heap[at] = world->heap[child];
        at = child;
    }
    if (count > 0) {
        world->heap[at] = last;
    }
    return top;
}

void item_spare(struct world *world, struct item *item)
{
    item->next = world->spare_items;
    world->spare_items = item;
}

void items_deinit(struct world *world)
{
    for (struct item *item = world->spare_items, *next; item != NULL; item = next) {
        next = item->next;
        free(item);
    }
    world->spare_items = NULL;
}
