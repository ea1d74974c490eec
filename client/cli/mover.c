/* What put and get share: the bar while files move, failures as they come, the first of which decides the exit code,
 * and the line at the end. */
#include <string.h>

#include "common.h"

static void mover_progress(void *context, const struct cairn_progress *progress)
{
    struct mover *mover = context;
    bar_progress(&mover->bar, progress);
}

static void mover_failure(void *context, const char *path, const struct cairn_error *error)
{
    const struct mover *mover = context;
    (void)path;
    fprintf(stderr, "cairn %s: %s (%s)\n", mover->cli->command, error->text, cairn_error_name(error->code));
}

bool mover_begin(struct mover *mover, struct cli *cli)
{
    *mover = (struct mover){.cli = cli, .moved = {.safe_losses = UINT32_MAX}};
    mover->transfer = (struct cairn_transfer){
        .progress = mover_progress,
        .failure = mover_failure,
        .context = mover,
        .threads = cli->threads,
    };
    const char *dst = cli->argv[cli->argc - 1];
    size_t n = strlen(dst);
    bool slash = n == 0 || dst[n - 1] == '/' || strcmp(dst, "-") == 0;
    bar_begin(&mover->bar, cli);
    if (snprintf(mover->dst, sizeof mover->dst, cli->argc > 2 && !slash ? "%s/" : "%s", dst) >=
        (int)sizeof mover->dst) {
        fprintf(stderr, "cairn %s: DST is too long\n", cli->command);
        return false;
    }
    return true;
}

void mover_take(struct mover *mover, int code, const struct cairn_error *error)
{
    if (code != 0 && mover->first == 0) {
        mover->first = code;
        mover->cli->error = *error;
    } else if (code != 0) {
        mover_failure(mover, NULL, error);
    }
}

int mover_end(struct mover *mover, mover_summary *summary)
{
    bar_end(&mover->bar);
    mover->moved.wire_bytes = cairn_wire_bytes(mover->cli->cairn);
    if (summary != NULL && (mover->first == 0 || mover->moved.files > 0)) {
        summary(mover->cli, &mover->moved, (double)(cli_now_ns() - mover->bar.begin_ns) / 1e9);
    }
    return cli_end(mover->cli, mover->first);
}
