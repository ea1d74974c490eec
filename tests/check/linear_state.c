/* The sequential model (linear_state.h). */
#include "linear_state.h"

static bool agree(uint64_t *known, uint64_t seen)
{
    if (*known != 0 && seen != 0) {
        return *known == seen;
    }
    *known = *known != 0 ? *known : seen;
    return true;
}

/* An entry was seen in the cell. */
static bool see(struct linear_state *state, enum linear_holds holds, const struct history_entry *entry)
{
    if (holds == HOLDS_NOTHING) {
        holds = HOLDS_SOMETHING; /* a kind that was not told */
    }
    if (state->holds == HOLDS_ANYTHING || (state->holds == HOLDS_SOMETHING && holds != HOLDS_SOMETHING)) {
        state->holds = holds;
    }
    if (state->holds == HOLDS_NOTHING || (holds != HOLDS_SOMETHING && state->holds != holds)) {
        return false;
    }
    return agree(&state->file, entry->file) && agree(&state->version, entry->version) &&
           agree(&state->sequence, entry->sequence) && agree(&state->content, entry->content);
}

static bool see_nothing(struct linear_state *state)
{
    if (state->holds == HOLDS_ANYTHING) {
        state->holds = HOLDS_NOTHING;
    }
    return state->holds == HOLDS_NOTHING;
}

static bool see_something(struct linear_state *state)
{
    static const struct history_entry any = {0};
    return see(state, HOLDS_SOMETHING, &any);
}

static bool see_folder(struct linear_state *state)
{
    static const struct history_entry any = {0};
    return see(state, HOLDS_FOLDER, &any);
}

static bool may_be_version(struct linear_state *state, uint64_t version)
{
    return see_something(state) && agree(&state->version, version);
}

/* An entry that is surely another version than `version` (0: any entry), or none at all. */
static bool other_version(struct linear_state *state, uint64_t version)
{
    if (version == 0) {
        return see_something(state);
    }
    return state->holds == HOLDS_NOTHING || state->version != version;
}

static bool step_read(const struct linear_step *step, struct linear_state *state)
{
    const struct history_op *op = step->op;
    if (op->outcome == HISTORY_OK) {
        return see(state, (enum linear_holds)op->entry.type, &op->entry);
    }
    switch (op->err) {
    case ERR_NOT_FOUND:
        return step->loose || see_nothing(state);
    case ERR_IS_A_FOLDER:
        return see_folder(state);
    default:
        return true;
    }
}

static bool put_refused(const struct linear_step *step, struct linear_state *state)
{
    const struct history_op *op = step->op;
    switch (op->err) {
    case ERR_EXISTS:
        return !op->any_base && op->base == 0 && see_something(state);
    case ERR_CONFLICT:
        return !op->any_base && op->base != 0 && other_version(state, op->base);
    case ERR_IS_A_FOLDER:
        return see_folder(state);
    case ERR_NOT_FOUND:
        return step->loose;
    default:
        return true;
    }
}

static bool step_put(const struct linear_step *step, struct linear_state *state)
{
    const struct history_op *op = step->op;
    if (op->outcome == HISTORY_FAIL) {
        return put_refused(step, state);
    }
    if (state->holds == HOLDS_FOLDER) {
        return false;
    }
    bool fits = op->any_base || (op->base == 0 ? see_nothing(state) : may_be_version(state, op->base));
    if (!fits) {
        return false;
    }
    uint64_t file = state->holds == HOLDS_FILE ? state->file : 0; /* a new version of a file keeps its identity */
    if (!agree(&file, op->entry.file)) {
        return false;
    }
    *state = (struct linear_state){HOLDS_FILE, file, op->entry.version, op->entry.content, op->sequence};
    return true;
}

static bool step_mkdir(const struct linear_step *step, struct linear_state *state)
{
    const struct history_op *op = step->op;
    enum linear_holds made = op->symlink ? HOLDS_SYMLINK : HOLDS_FOLDER;
    if (op->outcome == HISTORY_FAIL) {
        return op->err == ERR_EXISTS ? see_something(state) : op->err != ERR_NOT_FOUND || step->loose;
    }
    if (op->outcome == HISTORY_OK && op->existed) {
        struct history_entry there = {.file = op->entry.file, .sequence = op->sequence};
        return op->exist_ok && see(state, made, &there);
    }
    if (!see_nothing(state)) {
        return false;
    }
    *state = (struct linear_state){made, op->entry.file, op->entry.version, 0, op->sequence};
    return true;
}

static bool step_remove(const struct linear_step *step, struct linear_state *state)
{
    const struct history_op *op = step->op;
    if (op->outcome == HISTORY_FAIL) {
        switch (op->err) {
        case ERR_NOT_FOUND:
            return step->loose || see_nothing(state);
        case ERR_CONFLICT:
            return op->base != 0 && state->holds != HOLDS_NOTHING && other_version(state, op->base);
        case ERR_NOT_EMPTY:
            return see_folder(state);
        default:
            return true;
        }
    }
    if (!(op->base != 0 ? may_be_version(state, op->base) : see_something(state))) {
        return false;
    }
    *state = (struct linear_state){.holds = HOLDS_NOTHING};
    return true;
}

/* Does the entry that is moved replace what stands at its target? */
static bool move_may_replace(const struct history_op *op, const struct linear_state *from, struct linear_state *to)
{
    bool same = from->file != 0 && from->file == to->file; /* two spellings of one cell are one cell: never */
    return to->holds == HOLDS_NOTHING || to->holds == HOLDS_ANYTHING ||
           (!same && op->replace && to->holds != HOLDS_FOLDER && from->holds != HOLDS_FOLDER);
}

static bool step_move(const struct linear_step *step, struct linear_state *from, struct linear_state *to)
{
    const struct history_op *op = step->op;
    if (op->outcome == HISTORY_FAIL) {
        return op->err != ERR_NOT_FOUND || step->loose || see_nothing(from);
    }
    struct history_entry moved = {.file = op->entry.file};
    if (!see(from, HOLDS_SOMETHING, &moved)) {
        return false;
    }
    if (to == NULL || to == from) { /* onto itself: only its sequence is new */
        from->sequence = op->sequence;
        return true;
    }
    if (!move_may_replace(op, from, to)) {
        return false;
    }
    *to = *from;
    to->sequence = op->sequence;
    *from = (struct linear_state){.holds = HOLDS_NOTHING};
    return true;
}

bool linear_step(const struct linear_step *step, struct linear_state *cell, struct linear_state *to)
{
    if (step->page) {
        return step->shown != NULL ? see(cell, (enum linear_holds)step->shown->type, step->shown) : see_nothing(cell);
    }
    switch (step->op->kind) {
    case HISTORY_PUT:
        return step_put(step, cell);
    case HISTORY_MKDIR:
        return step_mkdir(step, cell);
    case HISTORY_REMOVE:
        return step_remove(step, cell);
    case HISTORY_MOVE:
        return step_move(step, cell, to);
    default:
        return step_read(step, cell);
    }
}
