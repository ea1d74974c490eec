/* A leader whose news comes late (late.h). */
#include "late.h"

#include <string.h>

#include "base/check.h"
#include "proto/message.h"

#define STEPS   8u
#define STEP_NS (250 * MILLISECOND)
#define LAG_NS  (200 * MILLISECOND) /* more each step: the next answer never stays out for an election timeout */

static void late_step(struct world *world, void *context, uint64_t argument)
{
    struct late *late = context;
    (void)argument;
    if (late->leader == NULL) {
        return;
    }
    late->step++;
    if (late->step > STEPS + 1) {
        late->leader = NULL;
        world_heal(world);
        return;
    }
    for (unsigned i = 0; i < late->count; i++) {
        if (late->step <= STEPS) {
            world_lag(world, late->others[i], late->leader, late->step * LAG_NS);
        } else {
            world_block(world, late->leader, late->others[i]);
        }
    }
    world_at(world, world->now_ns + (late->step <= STEPS ? STEP_NS : 2 * STEPS * LAG_NS), late_step, late, 0);
}

void late_begin(struct late *late, struct world *world, struct node *leader, struct node *const *others, unsigned count)
{
    if (late->leader != NULL) {
        return;
    }
    CHECK(count <= LATE_OTHERS);
    *late = (struct late){.world = world, .leader = leader, .count = count};
    memcpy(late->others, others, count * sizeof *others);
    late_step(world, late, 0);
}

void late_end(struct late *late)
{
    late->leader = NULL;
}

bool late_log_opens(const struct effect *effect)
{
    return effect->kind == EFFECT_SEND && effect->send.type == MESSAGE_LOG_OPEN &&
           (effect->send.flags & MESSAGE_REPLY) != 0;
}
