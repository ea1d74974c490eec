/* The checker of what a metad gives up (check_cut.h). */
#include "check_cut.h"

#include "base/bytes.h"
#include "proto/message.h"

/* A number that the group keeps of itself under (group, view, letter); `none` where there is no such pair. */
static uint64_t standing_number(const struct sim_kv *kv, uint32_t group, uint32_t view, char letter, uint64_t none)
{
    uint8_t key[9];
    put_be32(key, group);
    put_be32(key + 4, view);
    key[8] = (uint8_t)letter;
    struct slice value = sim_kv_flushed_get(kv, key, sizeof key);
    uint64_t number = value.bytes >= 8 ? get_u64(value.data) : value.bytes == 4 ? get_u32(value.data) : none;
    slice_drop(&value);
    return number;
}

void cut_check_send(struct world *world, const struct node *node, const struct actor *actor,
                    const struct effect *effect)
{
    uint16_t type = effect->send.type;
    bool cuts = type == MESSAGE_LOG_CUT || type == MESSAGE_LOG_RESET;
    if (!cuts || actor->kind != ACTOR_GROUP || effect->send.to.role != ROLE_LOCAL) {
        return;
    }
    struct reader r = reader_of(effect->send.header.data, effect->send.header.bytes);
    uint32_t group = reader_u32(&r);
    if (type == MESSAGE_LOG_RESET) {
        (void)reader_u64(&r); /* its number */
    }
    uint64_t index = reader_u64(&r);
    (void)reader_u64(&r); /* its term */
    uint64_t view = standing_number(node->kvs[0], group, 0, 'v', 1);
    uint64_t applied = standing_number(node->kvs[0], group, (uint32_t)view, 'a', 0);
    WORLD_REQUIRE(world, !r.failed && index <= applied,
                  "cut: node %u group %u gives up its log up to entry %lu, and its database has %lu durably", node->id,
                  group, (unsigned long)index, (unsigned long)applied);
}
