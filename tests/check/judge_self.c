/* The checkers over their hand-made files (judge.h). */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "feed.h"
#include "judge.h"
#include "linear.h"
#include "references.h"
#include "replicas.h"
#include "tree.h"
#include "versions.h"

struct hand { /* what a hand-made file says of itself */
    char finds[256];
    bool empty, complete;
};

static void hand_read(FILE *file, struct hand *ret)
{
    char *line = NULL;
    size_t capacity = 0;
    *ret = (struct hand){0};
    while (getline(&line, &capacity, file) > 0 && line[0] == '#') {
        if (strncmp(line, "# finds: ", 9) == 0) {
            snprintf(ret->finds, sizeof ret->finds, "%.*s", (int)strcspn(line + 9, "\n"), line + 9);
        } else if (strncmp(line, "# options:", 10) == 0) {
            ret->empty = strstr(line, "empty") != NULL;
            ret->complete = strstr(line, "complete") != NULL;
        }
    }
    free(line);
    rewind(file);
}

static enum err nothing_get(struct kv_view *view, const void *key, size_t bytes, struct slice *ret_value)
{
    (void)view, (void)key, (void)bytes, (void)ret_value;
    return ERR_NOT_FOUND;
}

static enum err nothing_next(struct kv_view *view, const void *from, size_t bytes, bool after, struct slice *ret_key,
                             struct slice *ret_value)
{
    (void)after, (void)ret_key;
    return nothing_get(view, from, bytes, ret_value);
}

static enum err nothing_prev(struct kv_view *view, const void *before, size_t bytes, struct slice *ret_key,
                             struct slice *ret_value)
{
    (void)ret_key;
    return nothing_get(view, before, bytes, ret_value);
}

enum { REPLICAS = 3 };

/* Lines "REPLICA KEY VALUE", replicas from 1 to 3. */
static bool check_replicas(FILE *file, struct report *report)
{
    static const struct kv_view_ops ops = {.get = nothing_get, .next = nothing_next, .prev = nothing_prev};
    struct kv_view nothing = {&ops};
    struct replica replicas[REPLICAS] = {0};
    struct kv_overlay overlays[REPLICAS];
    char line[512], key[128], value[128];
    bool good = true;
    for (unsigned i = 0; i < REPLICAS; i++) {
        kv_overlay_init(&overlays[i], kv_batch_create(), &nothing);
        replicas[i].view = &overlays[i].view;
        memset(replicas[i].prefix, (int)i, sizeof replicas[i].prefix);
    }
    while (good && fgets(line, sizeof line, file) != NULL) {
        unsigned replica = 0;
        if (line[0] != '#') {
            good = sscanf(line, "%u %127s %127s", &replica, key, value) == 3 && replica >= 1 && replica <= REPLICAS;
        }
        if (good && replica > 0) {
            char full[sizeof key + REPLICA_PREFIX_BYTES];
            memcpy(full, replicas[replica - 1].prefix, REPLICA_PREFIX_BYTES);
            memcpy(full + REPLICA_PREFIX_BYTES, key, strlen(key));
            kv_batch_put(overlays[replica - 1].batch, full, REPLICA_PREFIX_BYTES + strlen(key), value, strlen(value));
        }
    }
    struct sha256 digest;
    replicas_check(replicas, REPLICAS, report, &digest);
    for (unsigned i = 0; i < REPLICAS; i++) {
        kv_batch_destroy(overlays[i].batch);
    }
    return good;
}

static bool check_state(const char *checker, FILE *file, struct report *report)
{
    struct state_dump dump = {0};
    bool read = state_read(&dump, file) == ERR_OK;
    if (read && strcmp(checker, "tree") == 0) {
        tree_check(&dump, report);
    } else if (read) {
        references_check(&dump, report);
    }
    state_dump_deinit(&dump);
    return read;
}

static bool check_file(const char *checker, FILE *file, const char *path, const struct hand *hand,
                       struct report *report)
{
    if (strcmp(checker, "references") == 0 || strcmp(checker, "tree") == 0) {
        return check_state(checker, file, report);
    }
    if (strcmp(checker, "replicas") == 0) {
        return check_replicas(file, report);
    }
    struct history *history = history_create();
    if (history_read(history, file, path) != ERR_OK) {
        printf("%s\n", history->error);
        history_destroy(history);
        return false;
    }
    if (strcmp(checker, "linear") == 0) {
        linear_check(history, &(struct linear_options){.starts_empty = hand->empty}, report);
    } else if (strcmp(checker, "feed") == 0) {
        feed_check(history, &(struct feed_options){.starts_empty = hand->empty, .complete = hand->complete}, report);
    } else {
        versions_check(history, &(struct versions_options){.complete = hand->complete}, report);
    }
    history_destroy(history);
    return true;
}

static bool judge_file(const char *checker, const char *path, bool bad)
{
    FILE *file = fopen(path, "r");
    struct hand hand;
    struct report report = {0};
    if (file == NULL) {
        return false;
    }
    hand_read(file, &hand);
    bool read = check_file(checker, file, path, &hand, &report);
    fclose(file);
    bool right = read && report.undecided == 0 && report.looked > 0;
    right = right && (bad ? report.findings > 0 && hand.finds[0] != '\0' && strstr(report.text, hand.finds) != NULL
                          : report.findings == 0);
    printf("%s %s: %s\n", right ? "ok  " : "FAIL", path, report.findings > 0 ? report.text : "nothing found");
    return right;
}

/* Counts the files; *ret_failed those judged wrongly. */
static int judge_dir(const char *checker, const char *dir, bool bad, int *ret_failed)
{
    struct dirent **names = NULL;
    int count = scandir(dir, &names, NULL, alphasort), files = 0;
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            files++;
            *ret_failed += !judge_file(checker, path, bad);
        }
        free(names[i]);
    }
    free(names);
    return files;
}

int judge_self_test(const char *checker, const char *bad_dir, const char *good_dir)
{
    int failed = 0;
    int bad = judge_dir(checker, bad_dir, true, &failed), good = judge_dir(checker, good_dir, false, &failed);
    printf("%s: %d bad, %d good, %d judged wrongly\n", checker, bad, good, failed);
    return failed == 0 && bad >= 10 && good >= 1 ? 0 : 1;
}
