/* The search (linear_search.h). Depth first over an explicit stack; a frame is one operation that took effect, what its
 * cells held before, and which candidate comes next. */
#include "linear_search.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct step { /* of the search */
    struct linear_step step;
    uint64_t invoke_ns, complete_ns; /* HISTORY_NEVER: of unknown outcome */
    bool done;
    uint32_t rank; /* among the acknowledged mutations, by sequence; UINT32_MAX: none */
};

struct frame {
    uint32_t taken;               /* step that took effect; UINT32_MAX: none yet */
    bool forced;                  /* no other choice has to be tried here */
    uint32_t phase, next;         /* candidates: first those with an end, then those of unknown outcome */
    struct linear_state cell, to; /* before */
};

struct seen { /* configurations, open hash table of 128-bit names; 0: free */
    uint64_t (*names)[2];
    uint64_t capacity, count;
};

struct linear_search {
    struct step *steps; /* by invocation */
    unsigned long count, capacity;
    struct linear_state *states;
    uint32_t cells;
    uint64_t bound;
    uint32_t definite, definite_done, best, ranks_done;
    uint32_t first;   /* all steps before it are done */
    uint64_t name[2]; /* of the set of steps done */
    struct frame *frames;
    unsigned long depth, frame_capacity;
    struct seen seen;
    const struct history_op *stuck;
};

struct linear_search *linear_search_create(uint32_t cells, bool starts_empty, uint64_t bound)
{
    struct linear_search *s = mem_alloc(sizeof *s);
    s->cells = cells;
    s->bound = bound;
    s->states = mem_alloc((cells + 1ul) * sizeof *s->states);
    for (uint32_t i = 0; i < cells; i++) {
        s->states[i].holds = starts_empty ? HOLDS_NOTHING : HOLDS_ANYTHING;
    }
    s->seen.capacity = 256;
    s->seen.names = mem_alloc(s->seen.capacity * sizeof *s->seen.names);
    return s;
}

void linear_search_destroy(struct linear_search *s)
{
    free(s->seen.names);
    free(s->frames);
    free(s->states);
    free(s->steps);
    free(s);
}

void linear_search_add(struct linear_search *s, const struct linear_step *step)
{
    CHECK(step->cell < s->cells && (step->to == CELL_NONE || step->to < s->cells));
    s->steps = mem_grow(s->steps, &s->capacity, s->count + 1, sizeof *s->steps);
    bool open = step->op->outcome == HISTORY_UNKNOWN;
    s->steps[s->count++] = (struct step){.step = *step,
                                         .invoke_ns = step->op->invoke_ns,
                                         .complete_ns = open ? HISTORY_NEVER : step->op->complete_ns,
                                         .rank = UINT32_MAX};
    s->definite += !open;
}

uint64_t linear_search_count(const struct linear_search *s)
{
    return s->count;
}

static bool is_open(const struct step *step)
{
    return step->complete_ns == HISTORY_NEVER;
}

/* The step that took effect `back` frames below the top one; NULL: none, or one of known outcome stands between. */
static const struct step *waiting(const struct linear_search *s, unsigned long back)
{
    if (back >= s->depth) {
        return NULL;
    }
    const struct step *step = &s->steps[s->frames[s->depth - 1 - back].taken];
    return is_open(step) ? step : NULL;
}

/* ---- names of configurations ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a ^ b * 0x9fb21c651e98df25ull) + 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void name_flip(struct linear_search *s, uint32_t step)
{
    s->name[0] ^= mix(step, 1);
    s->name[1] ^= mix(step, 2);
}

static void configuration_name(const struct linear_search *s, uint64_t ret[2])
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t name = s->name[i];
        for (uint32_t c = 0; c < s->cells; c++) {
            const struct linear_state *state = &s->states[c];
            name = mix(name, state->holds + 11 * (i + 1));
            name = mix(mix(name, state->file), state->version);
            name = mix(mix(name, state->content), state->sequence);
        }
        for (unsigned long back = 0; waiting(s, back) != NULL; back++) { /* they bind what may come next */
            name += mix(s->frames[s->depth - 1 - back].taken, i + 3);
        }
        ret[i] = name | 1;
    }
}

static bool seen_insert(struct seen *seen, const uint64_t name[2])
{
    uint64_t at = name[0] % seen->capacity;
    for (; seen->names[at][0] != 0; at = (at + 1) % seen->capacity) {
        if (seen->names[at][0] == name[0] && seen->names[at][1] == name[1]) {
            return false;
        }
    }
    memcpy(seen->names[at], name, sizeof seen->names[at]);
    seen->count++;
    return true;
}

/* False: this configuration was tried before. */
static bool configuration_is_new(struct linear_search *s)
{
    uint64_t name[2];
    configuration_name(s, name);
    if (s->seen.count * 2 > s->seen.capacity) {
        struct seen grown = {.capacity = s->seen.capacity * 2};
        grown.names = mem_alloc(grown.capacity * sizeof *grown.names);
        for (uint64_t i = 0; i < s->seen.capacity; i++) {
            if (s->seen.names[i][0] != 0) {
                (void)seen_insert(&grown, s->seen.names[i]);
            }
        }
        free(s->seen.names);
        s->seen = grown;
    }
    return seen_insert(&s->seen, name);
}

/* ---- taking effect, and back ---- */

static struct linear_state *state_of(struct linear_search *s, uint32_t cell)
{
    return cell == CELL_NONE ? NULL : &s->states[cell];
}

static bool touches(const struct step *a, const struct step *b)
{
    return a->step.cell == b->step.cell || a->step.cell == b->step.to ||
           (a->step.to != CELL_NONE && (a->step.to == b->step.cell || a->step.to == b->step.to));
}

/* What has an unknown outcome never had to be done by some time, so it may as well be done later, past all that is
 * about other cells. Hence it is tried only right before what touches it: each step of unknown outcome since the last
 * one of known outcome must be touched by one behind it, and no step touches more than two that are not.
 */
static bool may_follow(const struct linear_search *s, const struct step *step)
{
    unsigned untouched = 0;
    for (unsigned long back = 1; waiting(s, back) != NULL; back++) {
        bool touched = touches(step, waiting(s, back));
        for (unsigned long between = 1; !touched && between < back; between++) {
            touched = touches(waiting(s, between), waiting(s, back));
        }
        untouched += !touched;
    }
    return untouched == 0 || (is_open(step) && untouched == 1);
}

/* Lets step `i` take effect if it may; fills the top frame for going back. */
static bool take(struct linear_search *s, uint32_t i, struct frame *frame)
{
    struct step *step = &s->steps[i];
    if (!may_follow(s, step)) {
        return false;
    }
    struct linear_state *cell = state_of(s, step->step.cell), *to = state_of(s, step->step.to);
    frame->cell = *cell;
    frame->to = to != NULL ? *to : (struct linear_state){0};
    bool in_turn = step->rank == UINT32_MAX || step->rank == s->ranks_done;
    if (!in_turn || !linear_step(&step->step, cell, to)) {
        if (to != NULL) {
            *to = frame->to;
        }
        *cell = frame->cell;
        return false;
    }
    frame->taken = i;
    step->done = true;
    s->ranks_done += step->rank != UINT32_MAX;
    s->definite_done += !is_open(step);
    name_flip(s, i);
    while (s->first < s->count && s->steps[s->first].done) {
        s->first++;
    }
    return true;
}

static void take_back(struct linear_search *s, struct frame *frame)
{
    struct step *step = &s->steps[frame->taken];
    CHECK(step->done);
    if (step->step.to != CELL_NONE) {
        s->states[step->step.to] = frame->to;
    }
    s->states[step->step.cell] = frame->cell;
    step->done = false;
    s->ranks_done -= step->rank != UINT32_MAX;
    s->definite_done -= !is_open(step);
    name_flip(s, frame->taken);
    s->first = frame->taken < s->first ? frame->taken : s->first;
    frame->taken = UINT32_MAX;
}

/* ---- the search ---- */

static bool state_same(const struct linear_state *a, const struct linear_state *b)
{
    return a->holds == b->holds && a->file == b->file && a->version == b->version && a->content == b->content &&
           a->sequence == b->sequence;
}

/* The steps that may come next are those invoked before any that is not done has completed: indexes first .. end - 1.
 */
static uint32_t candidates_end(const struct linear_search *s)
{
    uint64_t least = HISTORY_NEVER;
    uint32_t i = s->first;
    for (; i < s->count && s->steps[i].invoke_ns <= least; i++) {
        if (!s->steps[i].done && s->steps[i].complete_ns < least) {
            least = s->steps[i].complete_ns;
        }
    }
    return i;
}

/* What fits and changes nothing: a read, a refusal, a folder that was there. */
static bool take_forced(struct linear_search *s, uint32_t end, struct frame *frame)
{
    for (uint32_t i = s->first; i < end; i++) {
        if (s->steps[i].done || is_open(&s->steps[i]) || s->steps[i].rank != UINT32_MAX || !take(s, i, frame)) {
            continue;
        }
        if (state_same(&frame->cell, &s->states[s->steps[i].step.cell])) {
            frame->forced = true;
            return true;
        }
        take_back(s, frame);
    }
    return false;
}

/* The next candidate of this frame that leads to a configuration nobody tried. */
static bool take_next(struct linear_search *s, uint32_t end, struct frame *frame)
{
    for (; frame->phase < 2; frame->phase++, frame->next = 0) {
        uint32_t from = s->first > frame->next ? s->first : frame->next;
        for (uint32_t i = from; i < end; i++) {
            bool open = is_open(&s->steps[i]);
            if (s->steps[i].done || open != (frame->phase == 1) || !take(s, i, frame)) {
                continue;
            }
            if (configuration_is_new(s)) {
                frame->next = i + 1;
                return true;
            }
            take_back(s, frame);
        }
    }
    return false;
}

static void note_stuck(struct linear_search *s, uint32_t end)
{
    if (s->stuck != NULL && s->definite_done <= s->best) {
        return;
    }
    s->best = s->definite_done;
    uint64_t least = HISTORY_NEVER;
    for (uint32_t i = s->first; i < end; i++) {
        if (!s->steps[i].done && s->steps[i].complete_ns < least) {
            least = s->steps[i].complete_ns;
            s->stuck = s->steps[i].step.op;
        }
    }
}

static int by_invocation(const void *a, const void *b)
{
    const struct step *x = a, *y = b;
    if (x->invoke_ns != y->invoke_ns) {
        return x->invoke_ns < y->invoke_ns ? -1 : 1;
    }
    return x->step.op->number < y->step.op->number ? -1 : x->step.op->number > y->step.op->number;
}

static bool is_ranked(const struct step *step)
{
    const struct history_op *op = step->step.op;
    return !step->step.page && history_is_mutation(op->kind) && op->outcome == HISTORY_OK && op->sequence != 0 &&
           !op->existed;
}

static void rank_steps(struct linear_search *s)
{
    for (unsigned long i = 0; i < s->count; i++) {
        if (!is_ranked(&s->steps[i])) {
            continue;
        }
        s->steps[i].rank = 0;
        for (unsigned long j = 0; j < s->count; j++) {
            uint64_t mine = s->steps[i].step.op->sequence, other = s->steps[j].step.op->sequence;
            s->steps[i].rank += is_ranked(&s->steps[j]) && (other < mine || (other == mine && j < i));
        }
    }
}

static struct frame *frame_push(struct linear_search *s)
{
    s->frames = mem_grow(s->frames, &s->frame_capacity, s->depth + 1, sizeof *s->frames);
    s->frames[s->depth] = (struct frame){.taken = UINT32_MAX};
    return &s->frames[s->depth++];
}

/* Takes the last effect back; frames that left no choice go with it. */
static bool go_back(struct linear_search *s)
{
    s->depth--;
    while (s->depth > 0) {
        struct frame *frame = &s->frames[s->depth - 1];
        take_back(s, frame);
        if (!frame->forced) {
            return true;
        }
        s->depth--;
    }
    return false;
}

enum linear_verdict linear_search_run(struct linear_search *s, const struct history_op **ret_stuck)
{
    if (s->count > 0) {
        qsort(s->steps, s->count, sizeof *s->steps, by_invocation);
    }
    rank_steps(s);
    struct frame *frame = frame_push(s);
    while (s->definite_done < s->definite) {
        uint32_t end = candidates_end(s);
        bool fresh = frame->phase == 0 && frame->next == 0;
        if ((fresh && take_forced(s, end, frame)) || take_next(s, end, frame)) {
            frame = frame_push(s);
            continue;
        }
        note_stuck(s, end);
        if (!go_back(s)) {
            *ret_stuck = s->stuck;
            return LINEAR_NO;
        }
        frame = &s->frames[s->depth - 1];
        if (s->seen.count > s->bound) {
            return LINEAR_UNDECIDED;
        }
    }
    return LINEAR_YES;
}
