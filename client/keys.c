/* The idempotency numbers a client may use (R-D6, R-F10). The shell takes them from the device's file in blocks; here
 * the next one is asked for while half of the last is left, and is twice as large, from CLIENT_KEYS_FIRST on to
 * CLIENT_KEYS_MOST.
 *
 * A number is too old once its device is ANSWER_WINDOW numbers further, whoever of it took them. So a process that does
 * one thing takes few, and what is left of a block is dropped when the block is CLIENT_KEYS_AGE_NS old: an upload of
 * hours takes a new one for what it says next. Only a request whose answer is awaited has an older number. */
#include "base/check.h"
#include "client/internal.h"

static void keys_want(struct client *c, struct effects *fx)
{
    struct client_keys *keys = &c->keys;
    uint64_t left = keys->block.end - keys->block.next;
    if (keys->wanted || keys->spare.next < keys->spare.end || left > keys->block.count / 2) {
        return;
    }
    uint32_t count = keys->asked == 0 ? CLIENT_KEYS_FIRST : 2 * keys->asked;
    keys->asked = count < CLIENT_KEYS_MOST ? count : CLIENT_KEYS_MOST;
    keys->wanted = true;
    uint8_t header[4];
    put_u32(header, keys->asked);
    client_post(fx, MESSAGE_CLIENT_KEYS_WANTED, 0, header, sizeof header, (struct slice){0});
}

static bool block_is_good(struct key_block *block, uint64_t now_ns)
{
    if (block->next < block->end && now_ns - block->since_ns > CLIENT_KEYS_AGE_NS) {
        block->next = block->end;
    }
    return block->next < block->end;
}

bool keys_take(struct client *c, uint64_t *ret_key, struct effects *fx)
{
    struct client_keys *keys = &c->keys;
    if (!block_is_good(&keys->block, c->now_ns) && block_is_good(&keys->spare, c->now_ns)) {
        keys->block = keys->spare;
        keys->spare.next = keys->spare.end;
    }
    bool taken = keys->block.next < keys->block.end;
    if (taken) {
        *ret_key = keys->block.next++;
    }
    keys_want(c, fx);
    return taken;
}

void keys_hear(struct client *c, uint64_t first, uint64_t end)
{
    struct client_keys *keys = &c->keys;
    CHECK(keys->wanted && first < end && keys->spare.next == keys->spare.end);
    keys->wanted = false;
    keys->spare =
        (struct key_block){.next = first, .end = end, .count = (uint32_t)(end - first), .since_ns = c->now_ns};
}
