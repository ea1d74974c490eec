/* A leader whose news comes late: what the others say reaches it later and later, so that their answers keep coming
 * when its own words reach nobody any more. It believes that it leads while another one does: until the last late
 * answer has come. What a queue that fills up in one direction does (a modem, a switch) before the link goes. */
#ifndef CAIRN_SIM_LATE_H
#define CAIRN_SIM_LATE_H

#include "world.h"

enum { LATE_OTHERS = 9 };

struct late {
    struct world *world;
    struct node *leader; /* NULL: nothing is under way */
    struct node *others[LATE_OTHERS];
    unsigned count, step, steps;
};

/* Up to `lag_ns` late, and so long alone. Nothing while another one is under way. */
void late_begin(struct late *late, struct world *world, struct node *leader, struct node *const *others, unsigned count,
                uint64_t lag_ns);
/* A node that is killed while its log syncs, starts, and loses power right behind the word of what its log holds: that
 * may have been in a cache only. The state of one node; to be told of each effect of its log. */
enum twice { TWICE_NO, TWICE_WANTED, TWICE_KILLED };
void twice_effect(enum twice *twice, struct node *node, const struct actor *actor, const struct effect *effect);
/* No more of it; world_heal takes away what is left. */
void late_end(struct late *late);

#endif
