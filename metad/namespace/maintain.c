/* Behind the requests: sessions that nobody staged to for long are expired, and what ended sessions left is reaped, a
 * bounded piece a command. Proposed by the leader when there is something to do; decided by ticks of cluster time alone
 * (R-C7). */
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "metad/namespace/session.h"

#define REAP_KEYS       512u
#define EXPIRE_SESSIONS 64u /* a command */

/* The first session under the mark 'R' (ended, not yet reaped). */
static bool ended_session_find(struct state *state, uint64_t ns, uint64_t *ret_session, bool *ret_pages)
{
    struct key prefix = key_begin(state->group, 'R');
    key_u64(&prefix, ns);
    struct slice key = {0};
    struct slice value = {0};
    enum err err = kv_next(&state->kv->view, prefix.bytes, prefix.count, false, &key, &value);
    bool found = err == ERR_OK && key.bytes == prefix.count + 8 && memcmp(key.data, prefix.bytes, prefix.count) == 0;
    if (found) {
        *ret_session = get_be64(key.data + prefix.count);
        *ret_pages = value.bytes > 0;
    }
    slice_drop(&key);
    slice_drop(&value);
    return found;
}

bool maintain_due(struct state *state, uint64_t ns, uint64_t tick, struct proto_arena *arena)
{
    uint64_t session = 0;
    bool pages = false;
    return ended_session_find(state, ns, &session, &pages) || session_most_idle(state, ns, tick, arena) != NULL;
}

static struct key key_ended(struct prefix group, uint64_t ns, uint64_t session)
{
    struct key key = key_begin(group, 'R');
    key_u64(&key, ns);
    key_u64(&key, session);
    return key;
}

/* One page list entry of an expired session goes; a page that no list names any more lets go of its chunks. */
static void page_unref(struct apply *apply, uint64_t ns, const Cairn__PageLink *link)
{
    struct key key = key_page(apply->state->group, ns, link->page.data);
    Cairn__PageRecord *page = NULL;
    enum err err = state_get(apply->state, &key, &cairn__page_record__descriptor, apply->arena, &page);
    CHECK(err == ERR_OK && page->versions > 0);
    if (--page->versions > 0) {
        state_put(apply->state, &key, page);
        return;
    }
    for (size_t i = 0; i < page->refs.len; i += CHUNK_REF_BYTES) {
        struct chunk_ref ref;
        Cairn__ChunkRecord *chunk = NULL;
        chunk_ref_decode(page->refs.data + i, &ref);
        struct key chunk_key = key_chunk(apply->state->group, ns, &ref);
        err = state_get(apply->state, &chunk_key, &cairn__chunk_record__descriptor, apply->arena, &chunk);
        CHECK(err == ERR_OK && chunk->pages > 0);
        chunk->pages--;
        state_put(apply->state, &chunk_key, chunk);
    }
    state_delete(apply->state, &key);
}

/* The first page link of a session that never completed; false when there is none left. */
static bool page_link_drop(struct apply *apply, uint64_t ns, uint64_t session)
{
    struct key prefix = key_page_link(apply->state->group, ns, session, 0);
    struct slice key = {0};
    struct slice value = {0};
    enum err err = kv_next(&apply->state->kv->view, prefix.bytes, prefix.count, false, &key, &value);
    bool inside = err == ERR_OK && key.bytes == prefix.count && memcmp(key.data, prefix.bytes, prefix.count - 8) == 0;
    if (inside) {
        void *link = NULL;
        err = proto_unpack(&cairn__page_link__descriptor, value, apply->arena, &link);
        CHECK(err == ERR_OK);
        page_unref(apply, ns, link);
        kv_batch_delete(apply->state->kv->batch, key.data, key.bytes);
    }
    slice_drop(&key);
    slice_drop(&value);
    return inside;
}

enum err maintain_apply(struct apply *apply)
{
    uint64_t ns = NAMESPACE_FIRST;
    uint64_t session = 0;
    bool pages = false;
    for (unsigned i = 0; i < EXPIRE_SESSIONS; i++) {
        Cairn__SessionRecord *idle = session_most_idle(apply->state, ns, apply->command->tick, apply->arena);
        if (idle == NULL) {
            break;
        }
        struct key key = key_ended(apply->state->group, ns, idle->session);
        session_close(apply->state, ns, idle);
        state_put_bytes(apply->state, &key, "x", 1);
    }
    if (!ended_session_find(apply->state, ns, &session, &pages)) {
        return ERR_OK;
    }
    bool links_left = pages && page_link_drop(apply, ns, session);
    if (!links_left && session_reap(apply->state, ns, session, apply->arena, REAP_KEYS)) {
        struct key key = key_ended(apply->state->group, ns, session);
        state_delete(apply->state, &key);
    }
    return ERR_OK;
}
