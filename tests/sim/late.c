/* A leader whose news comes late (late.h). */
#include "late.h"

#include <string.h>

#include "base/check.h"
#include "proto/message.h"

#define TWICE_EFFECTS 25u
#define STEP_NS       (400 * MILLISECOND)
#define LAG_NS        (300 * MILLISECOND) /* more each step: the next answer never stays out for an election timeout */

static void late_step(struct world *world, void *context, uint64_t argument)
{
    struct late *late = context;
    (void)argument;
    if (late->leader == NULL) {
        return;
    }
    late->step++;
    if (late->step > late->steps + 1) {
        late->leader = NULL;
        world_heal(world);
        return;
    }
    for (unsigned i = 0; i < late->count; i++) {
        if (late->step <= late->steps) {
            world_lag(world, late->others[i], late->leader, late->step * LAG_NS);
        } else {
            world_block(world, late->leader, late->others[i]);
        }
    }
    world_at(world, world->now_ns + (late->step <= late->steps ? STEP_NS : 2 * late->steps * LAG_NS), late_step, late,
             0);
}

void late_begin(struct late *late, struct world *world, struct node *leader, struct node *const *others, unsigned count,
                uint64_t lag_ns)
{
    if (late->leader != NULL) {
        return;
    }
    CHECK(count <= LATE_OTHERS);
    *late = (struct late){.world = world, .leader = leader, .count = count};
    late->steps = (unsigned)(lag_ns / LAG_NS);
    memcpy(late->others, others, count * sizeof *others);
    late_step(world, late, 0);
}

void late_end(struct late *late)
{
    late->leader = NULL;
}

void twice_effect(enum twice *twice, struct node *node, const struct actor *actor, const struct effect *effect)
{
    if (actor->kind != ACTOR_LOG) {
        return;
    }
    bool opens = effect->kind == EFFECT_SEND && effect->send.type == MESSAGE_LOG_OPEN &&
                 (effect->send.flags & MESSAGE_REPLY) != 0;
    if (*twice == TWICE_WANTED && effect->kind == EFFECT_DISK_SYNC) {
        *twice = TWICE_KILLED;
        node_crash_after(node, 1, CRASH_KILL);
    } else if (*twice == TWICE_KILLED && opens) {
        *twice = TWICE_NO;
        node_crash_after(node, 1 + rng_below(&node->world->rng_scenario, TWICE_EFFECTS), CRASH_POWER);
    }
}
