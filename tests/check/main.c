/* cairn-check: judges the histories that `cairn --history FILE` writes.
 *
 *   cairn-check [--from-empty] [--complete] FILE...      all files together are one history of one cluster
 *   cairn-check --self-test CHECKER BAD_DIR GOOD_DIR     the checker finds what each bad file says, and nothing in a
 * good one
 *
 * --from-empty: the files have every mutation since the workspace was made. --complete: after the last mutation the
 * feed was read to its end and every file was read. Exit code: 0 nothing found, 1 something found or undecided, 2
 * usage. */
#include <stdlib.h>
#include <string.h>

#include "judge.h"

static int usage(void)
{
    fprintf(stderr, "usage: cairn-check [--from-empty] [--complete] FILE...\n");
    return 2;
}

static int judge_files(int count, char **files, struct judge_options options)
{
    struct history *history = history_create();
    int result = 0;
    for (int i = 0; i < count && result == 0; i++) {
        FILE *file = fopen(files[i], "r");
        if (file == NULL || history_read(history, file, files[i]) != ERR_OK) {
            fprintf(stderr, "cairn-check: %s\n", file == NULL ? files[i] : history->error);
            result = 2;
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    if (result == 0) {
        result = judge_history(history, &options, stdout) ? 0 : 1;
    }
    history_destroy(history);
    return result;
}

int main(int argc, char **argv)
{
    struct judge_options options = {0};
    int at = 1;
    if (argc == 5 && strcmp(argv[1], "--self-test") == 0) {
        return judge_self_test(argv[2], argv[3], argv[4]);
    }
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--from-empty") == 0) {
            options.from_empty = true;
        } else if (strcmp(argv[at], "--complete") == 0) {
            options.complete = true;
        } else {
            return usage();
        }
    }
    return at == argc ? usage() : judge_files(argc - at, argv + at, options);
}
