/* The simulator's log checker, over hand-made histories of group 0 on node 1: a good one, and bad ones that differ from
 * a good one in their last call. */
#include "sim_check.h"

#include <stdio.h>

#include "base/bytes.h"

/* What a group asks of its log (`answer` false) and what the log says to it. Takes header and body. */
static void local(struct lab *lab, uint32_t node, bool answer, uint16_t type, struct writer *header, struct slice body)
{
    struct actor actor = {.kind = answer ? ACTOR_LOG : ACTOR_GROUP};
    struct effect effect = lab_local(answer ? ACTOR_GROUP : ACTOR_LOG, 0, type, header, body);
    effect.send.flags = answer ? MESSAGE_REPLY : 0;
    log_check_send(lab->log, lab->nodes[node], &actor, &effect, NULL);
    lab_forget(&effect);
}

/* Entries first .. first + count - 1 of a term, their bytes `text` and the index. */
static struct slice entries_pack(uint64_t first, uint32_t count, uint64_t term, const char *text)
{
    struct raft_entry entries[8] = {0};
    struct slice body = {0};
    for (uint32_t i = 0; i < count; i++) {
        char bytes[32];
        snprintf(bytes, sizeof bytes, "%s %lu", text, (unsigned long)(first + i));
        entries[i] = lab_entry(first + i, term, bytes);
    }
    raft_entries_encode(entries, count, &body);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    return body;
}

static void asks(struct lab *lab, uint32_t node, uint64_t number, struct raft_hard_state hard, struct slice body)
{
    struct writer w = {0};
    writer_u32(&w, 0);
    writer_u64(&w, number);
    writer_u8(&w, hard.term > 0);
    writer_u64(&w, hard.term);
    writer_u32(&w, hard.vote);
    local(lab, node, false, MESSAGE_LOG_APPEND, &w, body);
}

static void answers(struct lab *lab, uint32_t node, uint64_t number)
{
    struct writer w = {0};
    writer_u64(&w, number);
    writer_u64(&w, number);
    local(lab, node, true, MESSAGE_LOG_APPEND, &w, (struct slice){0});
}

/* Appends, and it is durable. */
static void appends(struct lab *lab, uint32_t node, uint64_t number, uint64_t first, uint32_t count, uint64_t term)
{
    asks(lab, node, number, (struct raft_hard_state){term, 0}, entries_pack(first, count, term, "entry"));
    answers(lab, node, number);
}

/* Group 0 as the log of node 1 opens it: `last` entries of one term; hole: one of them, 0 none, of hole_term. */
static void opens(struct lab *lab, struct raft_hard_state hard, uint64_t last, uint64_t term, uint64_t hole,
                  uint64_t hole_term)
{
    struct writer w = {0};
    lab_restart(lab, 1);
    writer_u64(&w, hard.term);
    writer_u32(&w, hard.vote);
    writer_u64(&w, last);
    writer_u64(&w, 0);
    writer_u64(&w, 0);
    writer_u32(&w, last > 0);
    if (last > 0) {
        writer_u64(&w, 1);
        writer_u64(&w, term);
    }
    writer_u32(&w, 0); /* configurations */
    writer_u8(&w, 0);  /* not unsure */
    writer_u32(&w, hole > 0);
    if (hole > 0) {
        writer_u64(&w, hole);
        writer_u64(&w, hole_term);
        writer_u8(&w, 0);
    }
    local(lab, 1, true, MESSAGE_LOG_OPEN, &w, (struct slice){0});
}

static void reads(struct lab *lab, uint64_t first, uint32_t count, uint64_t term, const char *text)
{
    struct writer asked = {0}, answered = {0};
    writer_u32(&asked, 0);
    writer_u64(&asked, first);
    writer_u32(&asked, count);
    local(lab, 1, false, MESSAGE_LOG_READ, &asked, (struct slice){0});
    local(lab, 1, true, MESSAGE_LOG_READ, &answered, entries_pack(first, count, term, text));
}

static void heals(struct lab *lab, uint64_t index, uint64_t term, const char *text)
{
    struct writer asked = {0}, answered = {0};
    writer_u32(&asked, 0);
    local(lab, 1, false, MESSAGE_LOG_HEAL, &asked, entries_pack(index, 1, term, text));
    local(lab, 1, true, MESSAGE_LOG_HEAL, &answered, (struct slice){0});
}

/* The leader's commit index, by members with these roles. */
static void commits(struct lab *lab, uint8_t role_1, uint8_t role_2, uint8_t role_3, uint64_t index)
{
    struct raft_config config = {.count = 3};
    const uint8_t roles[] = {role_1, role_2, role_3};
    for (uint32_t i = 0; i < 3; i++) {
        config.members[i] = (struct raft_member){.node = i + 1, .roles = roles[i]};
    }
    log_check_commit(lab->log, 0, &config, &config, index);
}

static void says(struct lab *lab, enum raft_message_kind kind, uint64_t term, uint64_t index)
{
    Cairn__RaftMessage m = lab_message(kind, term);
    m.log_index = index;
    lab_send(lab, 1, 2, m, NULL, 0);
}

static const struct raft_hard_state term_2 = {2, 0};

/* Three entries, all durable on nodes 1 and 2; node 1 asks for a fourth and loses power. */
static void good(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 2, 1, 1, 3, 2);
    commits(lab, RAFT_VOTER, RAFT_VOTER, RAFT_VOTER, 3);
    commits(lab, RAFT_VOTER | RAFT_OUTGOING, RAFT_VOTER, RAFT_LEARNER, 3);
    says(lab, RAFT_APPEND_REPLY, 2, 3);
    reads(lab, 2, 2, 2, "entry");
    asks(lab, 1, 2, (struct raft_hard_state){3, 2}, entries_pack(4, 2, 2, "entry"));
    opens(lab, (struct raft_hard_state){3, 2}, 4, 2, 2, 2); /* the first part of it arrived; entry 2 is damaged */
    says(lab, RAFT_VOTE_REPLY, 3, 0);
    heals(lab, 2, 2, "entry");
    appends(lab, 1, 3, 3, 2, 4);
    says(lab, RAFT_APPEND_REPLY, 4, 4);
}

static void loses_an_entry(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    opens(lab, term_2, 2, 2, 0, 0);
}

static void has_more_than_it_was_given(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    opens(lab, term_2, 4, 2, 0, 0);
}

static void has_entries_of_another_term(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    opens(lab, term_2, 3, 1, 0, 0);
}

static void brings_back_what_was_cut(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 1, 2, 2, 1, 3);
    lab_turn(lab);
    opens(lab, (struct raft_hard_state){3, 0}, 3, 2, 0, 0);
}

static void forgets_a_vote(struct lab *lab)
{
    asks(lab, 1, 1, (struct raft_hard_state){2, 3}, entries_pack(1, 1, 2, "entry"));
    answers(lab, 1, 1);
    lab_turn(lab);
    opens(lab, term_2, 1, 2, 0, 0);
}

static void has_a_term_nobody_gave(struct lab *lab)
{
    appends(lab, 1, 1, 1, 1, 2);
    asks(lab, 1, 2, (struct raft_hard_state){4, 0}, (struct slice){0});
    lab_turn(lab);
    opens(lab, (struct raft_hard_state){3, 0}, 1, 2, 0, 0);
}

static void acknowledges_out_of_order(struct lab *lab)
{
    asks(lab, 1, 1, term_2, entries_pack(1, 1, 2, "entry"));
    asks(lab, 1, 2, term_2, entries_pack(2, 1, 2, "entry"));
    lab_turn(lab);
    answers(lab, 1, 2);
}

static void acknowledges_what_was_not_asked(struct lab *lab)
{
    appends(lab, 1, 1, 1, 1, 2);
    lab_turn(lab);
    answers(lab, 1, 2);
}

static void reads_other_bytes(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    reads(lab, 2, 1, 2, "rot");
}

static void reads_what_it_does_not_have(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    reads(lab, 4, 1, 2, "entry");
}

static void votes_before_it_is_durable(struct lab *lab)
{
    asks(lab, 1, 1, (struct raft_hard_state){3, 2}, (struct slice){0});
    lab_turn(lab);
    says(lab, RAFT_VOTE_REPLY, 3, 0);
}

static void stands_before_its_vote_is_durable(struct lab *lab)
{
    asks(lab, 1, 1, (struct raft_hard_state){3, 1}, (struct slice){0});
    lab_turn(lab);
    says(lab, RAFT_VOTE, 3, 0);
}

static void acknowledges_before_it_is_durable(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    asks(lab, 1, 2, term_2, entries_pack(4, 1, 2, "entry"));
    lab_turn(lab);
    says(lab, RAFT_APPEND_REPLY, 2, 4);
}

static void acknowledges_past_a_hole(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    opens(lab, term_2, 3, 2, 2, 2);
    says(lab, RAFT_APPEND_REPLY, 2, 1);
    lab_turn(lab);
    says(lab, RAFT_APPEND_REPLY, 2, 2);
}

static void leads_with_a_hole(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    opens(lab, term_2, 3, 2, 2, 2);
    lab_turn(lab);
    says(lab, RAFT_HEARTBEAT, 2, 0);
}

static void heals_with_something_else(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    opens(lab, term_2, 3, 2, 2, 2);
    lab_turn(lab);
    heals(lab, 2, 2, "another");
}

static void names_a_hole_it_does_not_have(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    lab_turn(lab);
    opens(lab, term_2, 3, 2, 2, 1);
}

static void commits_on_one_of_three(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 2, 1, 1, 2, 2);
    commits(lab, RAFT_VOTER, RAFT_VOTER, RAFT_VOTER, 2);
    lab_turn(lab);
    commits(lab, RAFT_VOTER, RAFT_VOTER, RAFT_VOTER, 3);
}

static void commits_by_a_learner(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 2, 1, 1, 3, 2);
    lab_turn(lab);
    commits(lab, RAFT_VOTER, RAFT_LEARNER, RAFT_VOTER, 3);
}

/* Both halves must have it: who comes has, who leaves has not. */
static void commits_by_one_half(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 2, 1, 1, 3, 2);
    lab_turn(lab);
    commits(lab, RAFT_VOTER, RAFT_VOTER, RAFT_OUTGOING, 3);
}

/* Both had it for committed: an older copy of a directory had voted. */
static void applies_another_entry(struct lab *lab)
{
    appends(lab, 1, 1, 1, 3, 2);
    appends(lab, 2, 1, 1, 2, 2);
    appends(lab, 2, 2, 3, 1, 3);
    log_check_agree(lab->log, 1, 0, 0, 3);
    log_check_agree(lab->log, 2, 0, 0, 2);
    lab_turn(lab);
    log_check_agree(lab->log, 2, 0, 0, 3);
}

static void test_histories(void **state)
{
    (void)state;
    static const struct bad_history bad[] = {
        {"a durable entry lost", loses_an_entry, "which no part of what it was given explains"},
        {"an entry too many", has_more_than_it_was_given, "which no part of what it was given explains"},
        {"entries of another term", has_entries_of_another_term, "which no part of what it was given explains"},
        {"a cut undone", brings_back_what_was_cut, "which no part of what it was given explains"},
        {"a vote forgotten", forgets_a_vote, "opens group 0 with term 2 vote 0"},
        {"a term nobody gave", has_a_term_nobody_gave, "opens group 0 with term 3"},
        {"the second before the first", acknowledges_out_of_order, "out of order"},
        {"an answer nobody asked for", acknowledges_what_was_not_asked, "out of order"},
        {"other bytes read back", reads_other_bytes, "reads back entry 2"},
        {"an entry read that is not there", reads_what_it_does_not_have, "reads back entry 4"},
        {"a vote before its sync", votes_before_it_is_durable, "promises: node 1 group 0 votes for 2"},
        {"a candidate before its sync", stands_before_its_vote_is_durable, "promises: node 1 group 0 votes for 1"},
        {"an acknowledgement before its sync", acknowledges_before_it_is_durable, "acknowledges entry 4"},
        {"an acknowledgement past a hole", acknowledges_past_a_hole, "cannot read entry 2"},
        {"a leader with a hole", leads_with_a_hole, "asks for votes or leads"},
        {"a hole filled with another entry", heals_with_something_else, "healed with something else"},
        {"a hole of another name", names_a_hole_it_does_not_have, "names a hole"},
        {"a commit on one of three", commits_on_one_of_three, "not durable on a majority"},
        {"a commit by a learner", commits_by_a_learner, "not durable on a majority"},
        {"two entries applied at one index", applies_another_entry,
         "applies entry 3 of group 0 with term 3, and another did with term 2"},
        {"a commit by one half of two", commits_by_one_half, "not durable on a majority"},
    };
    lab_judge(good, bad, sizeof bad / sizeof *bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
