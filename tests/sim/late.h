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
    unsigned count, step;
};

/* Nothing while another one is under way. */
void late_begin(struct late *late, struct world *world, struct node *leader, struct node *const *others,
                unsigned count);
/* The log says what it holds. A node that was killed, and loses power within LATE_EFFECTS of that word, may have told
 * what was in a cache only. */
enum { LATE_EFFECTS = 25 };
bool late_log_opens(const struct effect *effect);
/* No more of it; world_heal takes away what is left. */
void late_end(struct late *late);

#endif
