/* The checkers over their hand-made files (judge.h). */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "feed.h"
#include "judge.h"
#include "linear.h"
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

static bool check_file(const char *checker, FILE *file, const char *path, const struct hand *hand,
                       struct report *report)
{
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
