/* The simulator's Raft checker, over hand-made histories of group 0: a good one, and bad ones that differ from a good
 * one in their last call. */
#include "sim_check.h"

static void append(struct lab *lab, uint32_t from, uint64_t term, struct raft_entry entry)
{
    Cairn__RaftMessage m = lab_message(RAFT_APPEND, term);
    m.log_index = entry.index - 1;
    for (uint32_t to = 1; to <= LAB_NODES; to++) {
        if (to != from) {
            struct raft_entry copy = entry;
            copy.data = slice_copy(entry.data.data, entry.data.bytes);
            lab_send(lab, from, to, m, &copy, 1);
        }
    }
    slice_drop(&entry.data);
}

static void heartbeat(struct lab *lab, uint32_t from, uint64_t term)
{
    lab_send(lab, from, from == 1 ? 2 : 1, lab_message(RAFT_HEARTBEAT, term), NULL, 0);
}

/* The log checker is not asked here: votes are given to the Raft checker alone. */
static void vote_speaks(struct lab *lab, uint32_t from, uint32_t to, Cairn__RaftMessage m)
{
    struct effect effect = {.kind = EFFECT_SEND};
    effect.send.to = address_node(ROLE_METAD, to, ACTOR_GROUP, 0);
    effect.send.type = MESSAGE_RAFT;
    m.from = from;
    raft_check_send(lab->raft, lab->nodes[from], &effect, &m);
}

static void vote_give(struct lab *lab, uint32_t from, uint32_t candidate, uint64_t term)
{
    vote_speaks(lab, from, candidate, lab_message(RAFT_VOTE_REPLY, term));
}

static void apply(struct lab *lab, uint32_t node, struct raft_entry entry)
{
    raft_check_applied(lab->raft, node, 0, &entry);
    slice_drop(&entry.data);
}

static void apply_all(struct lab *lab, uint64_t index, uint64_t term, const char *text)
{
    for (uint32_t node = 1; node <= LAB_NODES; node++) {
        apply(lab, node, lab_entry(index, term, text));
    }
}

static uint64_t propose(struct lab *lab, const char *text)
{
    struct slice data = slice_copy(text, (uint32_t)strlen(text));
    uint64_t proposal = raft_check_propose(lab->raft, 0, data);
    slice_drop(&data);
    return proposal;
}

static void stands(struct lab *lab, uint32_t node, enum raft_role role, uint64_t term, uint64_t commit)
{
    struct raft_status status = {.role = role, .term = term, .commit = commit};
    raft_check_status(lab->raft, lab->nodes[node], 0, &status);
}

/* A refused frame is answered by an ErrorReply, which is no Raft message. */
static void refuse(struct lab *lab, uint32_t from, uint32_t to)
{
    struct effect effect = {.kind = EFFECT_SEND};
    effect.send.to = address_node(ROLE_METAD, to, ACTOR_GROUP, 0);
    effect.send.type = MESSAGE_RAFT;
    effect.send.flags = MESSAGE_REPLY | MESSAGE_ERROR;
    effect.send.header = error_reply_encode(ERR_NOT_MEMBER, err_text(ERR_NOT_MEMBER), 2);
    raft_check_send(lab->raft, lab->nodes[from], &effect, NULL);
    slice_drop(&effect.send.header);
}

/* Node 1 leads term 2 and commits two entries; node 2 takes over in term 3. */
static void good(struct lab *lab)
{
    vote_speaks(lab, 1, 2, lab_message(RAFT_VOTE, 2));
    vote_give(lab, 2, 1, 2);
    stands(lab, 1, RAFT_LEADER, 2, 0);
    append(lab, 1, 2, lab_entry(1, 2, ""));
    uint64_t proposal = propose(lab, "a");
    append(lab, 1, 2, lab_entry(2, 2, "a"));
    stands(lab, 1, RAFT_LEADER, 2, 2);
    apply_all(lab, 1, 2, "");
    apply_all(lab, 2, 2, "a");
    raft_check_acknowledged(lab->raft, 0, proposal, 2);
    uint64_t read = raft_check_read_asked(lab->raft, 0);
    raft_check_read_answered(lab->raft, 0, read, 2);
    lab_restart(lab, 1);
    raft_check_opened(lab->raft, 1, 0, 2);
    vote_speaks(lab, 2, 3, lab_message(RAFT_VOTE, 3));
    vote_give(lab, 3, 2, 3);
    append(lab, 2, 3, lab_entry(3, 3, ""));
    refuse(lab, 3, 1);
    refuse(lab, 1, 3); /* it promised term 2 before it was restarted */
    apply_all(lab, 3, 3, "");
}

static void two_lead(struct lab *lab)
{
    heartbeat(lab, 1, 2);
    heartbeat(lab, 2, 3);
    lab_turn(lab);
    heartbeat(lab, 3, 2);
}

static void two_votes(struct lab *lab)
{
    vote_give(lab, 3, 1, 2);
    lab_restart(lab, 3);
    vote_give(lab, 3, 1, 2); /* said again: no other vote */
    lab_turn(lab);
    vote_give(lab, 3, 2, 2);
}

static void votes_for_another_than_itself(struct lab *lab)
{
    vote_speaks(lab, 1, 2, lab_message(RAFT_VOTE, 4));
    lab_turn(lab);
    vote_give(lab, 1, 2, 4);
}

static void forgets_its_term(struct lab *lab)
{
    vote_give(lab, 3, 1, 5);
    lab_restart(lab, 3);
    lab_turn(lab);
    vote_give(lab, 3, 2, 4);
}

static void forgets_what_it_acknowledged(struct lab *lab)
{
    vote_speaks(lab, 2, 1, lab_message(RAFT_APPEND_REPLY, 6));
    lab_restart(lab, 2);
    lab_turn(lab);
    vote_speaks(lab, 2, 3, lab_message(RAFT_PRE_VOTE, 5));
}

static void entries_differ(struct lab *lab)
{
    append(lab, 1, 2, lab_entry(1, 2, "a"));
    lab_turn(lab);
    append(lab, 1, 2, lab_entry(1, 2, "b"));
}

static void entries_out_of_order(struct lab *lab)
{
    struct raft_entry entries[2] = {lab_entry(1, 2, "a"), lab_entry(3, 2, "b")};
    lab_turn(lab);
    lab_send(lab, 1, 2, lab_message(RAFT_APPEND, 2), entries, 2);
}

static void an_entry_of_a_coming_term(struct lab *lab)
{
    struct raft_entry entry = lab_entry(1, 3, "a");
    lab_turn(lab);
    lab_send(lab, 1, 2, lab_message(RAFT_APPEND, 2), &entry, 1);
}

static void applies_another(struct lab *lab)
{
    append(lab, 1, 2, lab_entry(1, 2, "a"));
    append(lab, 3, 3, lab_entry(1, 3, "b"));
    apply(lab, 1, lab_entry(1, 2, "a"));
    apply(lab, 2, lab_entry(1, 2, "a"));
    lab_turn(lab);
    apply(lab, 3, lab_entry(1, 3, "b"));
}

static void applies_past_one(struct lab *lab)
{
    apply_all(lab, 1, 2, "a");
    lab_turn(lab);
    apply(lab, 2, lab_entry(3, 2, "c"));
}

static void applies_twice(struct lab *lab)
{
    apply_all(lab, 1, 2, "a");
    lab_turn(lab);
    apply(lab, 2, lab_entry(1, 2, "a"));
}

static void opens_with_what_was_never_committed(struct lab *lab)
{
    apply_all(lab, 1, 2, "a");
    lab_restart(lab, 1);
    lab_turn(lab);
    raft_check_opened(lab->raft, 1, 0, 2);
}

static void acknowledges_another(struct lab *lab)
{
    uint64_t proposal = propose(lab, "a");
    apply_all(lab, 1, 2, "");
    apply_all(lab, 2, 2, "b");
    lab_turn(lab);
    raft_check_acknowledged(lab->raft, 0, proposal, 2);
}

static void acknowledges_twice(struct lab *lab)
{
    uint64_t proposal = propose(lab, "a");
    apply_all(lab, 1, 2, "a");
    apply_all(lab, 2, 2, "a");
    raft_check_acknowledged(lab->raft, 0, proposal, 1);
    lab_turn(lab);
    raft_check_acknowledged(lab->raft, 0, proposal, 2);
}

static void acknowledges_in_another_group(struct lab *lab)
{
    uint64_t proposal = propose(lab, "a");
    struct raft_entry entry = lab_entry(1, 2, "a");
    raft_check_applied(lab->raft, 1, 1, &entry);
    slice_drop(&entry.data);
    lab_turn(lab);
    raft_check_acknowledged(lab->raft, 1, proposal, 1);
}

static void reads_the_past(struct lab *lab)
{
    uint64_t proposal = propose(lab, "a");
    apply_all(lab, 1, 2, "");
    apply_all(lab, 2, 2, "a");
    uint64_t early = raft_check_read_asked(lab->raft, 0);
    raft_check_acknowledged(lab->raft, 0, proposal, 2);
    raft_check_read_answered(lab->raft, 0, early, 1); /* asked before: may miss it */
    uint64_t late = raft_check_read_asked(lab->raft, 0);
    lab_turn(lab);
    raft_check_read_answered(lab->raft, 0, late, 1);
}

static void commit_goes_back(struct lab *lab)
{
    stands(lab, 2, RAFT_FOLLOWER, 2, 7);
    lab_turn(lab);
    stands(lab, 2, RAFT_FOLLOWER, 3, 6);
}

/* Figure 8: what a leader of term 4 counts is of term 2, its own entry is not there yet. */
static void commits_an_older_term_by_counting(struct lab *lab)
{
    append(lab, 1, 2, lab_entry(1, 2, "a"));
    append(lab, 1, 2, lab_entry(2, 2, "b"));
    append(lab, 1, 4, lab_entry(3, 4, ""));
    stands(lab, 1, RAFT_LEADER, 4, 0);
    lab_turn(lab);
    stands(lab, 1, RAFT_LEADER, 4, 2);
}

static void test_histories(void **state)
{
    (void)state;
    static const struct bad_history bad[] = {
        {"two lead one term", two_lead, "election safety"},
        {"two votes in a term", two_votes, "votes: group 0 node 3"},
        {"a candidate votes for another", votes_for_another_than_itself, "votes: group 0 node 1"},
        {"a vote forgotten over a crash", forgets_its_term, "promises: group 0 node 3"},
        {"an acknowledgement forgotten over a crash", forgets_what_it_acknowledged, "promises: group 0 node 2"},
        {"one index and term, two entries", entries_differ, "log matching"},
        {"a gap among entries", entries_out_of_order, "out of order"},
        {"an entry newer than its leader", an_entry_of_a_coming_term, "out of order"},
        {"two nodes apply different entries", applies_another, "committed was another"},
        {"an entry passed over", applies_past_one, "applies entry 3 after 1"},
        {"an entry applied twice", applies_twice, "applies entry 1 after 1"},
        {"a state nobody committed", opens_with_what_was_never_committed, "were ever committed"},
        {"acknowledged where another entry is", acknowledges_another, "holds something else"},
        {"acknowledged twice", acknowledges_twice, "acknowledged twice"},
        {"acknowledged in another group", acknowledges_in_another_group, "holds something else"},
        {"a stale read", reads_the_past, "stale read"},
        {"a commit index that falls", commit_goes_back, "goes back"},
        {"an old term committed by counting", commits_an_older_term_by_counting, "by counting"},
    };
    lab_judge(good, bad, sizeof bad / sizeof *bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
