/* cairn get and cairn cat: files and folders out of the cluster. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

static const char get_usage[] =
    "usage: cairn get [-q] WORKSPACE:/SRC... DST\n\n"
    "A folder's contents go into DST; a file goes to DST, or into it where DST is a folder\n"
    "or ends in '/'. '-' is standard output. Each file appears whole or not at all.\n"
    "  -q, --quiet      no progress bar\n"
    "  --transfers N    files of a folder at once (16)\n";
static const char cat_usage[] = "usage: cairn cat WORKSPACE:/FILE...\n\nFiles to standard output, one behind the "
                                "other.\n";

static int stdout_write(void *context, const void *data, size_t bytes)
{
    (void)context;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(STDOUT_FILENO, (const char *)data + done, bytes - done);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void summary(const struct cli *cli, const struct cairn_moved *moved, double seconds)
{
    if (cli->json) {
        struct json json;
        json_begin(&json);
        json_number(&json, "files", moved->files);
        json_number(&json, "folders", moved->folders);
        json_number(&json, "symlinks", moved->symlinks);
        json_number(&json, "failed", moved->failed);
        json_number(&json, "bytes", moved->bytes);
        json_number(&json, "chunks", moved->chunks);
        json_number(&json, "wire_bytes", moved->wire_bytes);
        json_real(&json, "seconds", seconds);
        json_end(&json);
        return;
    }
    printf("%llu files, %s in %.2f s (%s/s)\n", (unsigned long long)moved->files, cli_size_text((double)moved->bytes),
           seconds, cli_size_text((double)moved->bytes / (seconds > 0 ? seconds : 1)));
}

int cli_get(int argc, char **argv)
{
    struct cli cli;
    struct mover mover;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "get", get_usage, "qt", 2, 1 << 20, &code)) {
        return code;
    }
    if (!mover_begin(&mover, &cli)) {
        return CLI_EXIT_USAGE;
    }
    if (!cli_open(&cli, &code)) {
        return code;
    }
    bool to_stdout = strcmp(mover.dst, "-") == 0;
    mover.bar.on = mover.bar.on && !to_stdout;
    for (int i = 0; i + 1 < cli.argc; i++) {
        struct cairn_error error = {0};
        code = to_stdout ? cairn_get_stream(cli.cairn, cli.argv[i], stdout_write, NULL, &mover.moved, &error)
                         : cairn_get(cli.cairn, cli.argv[i], mover.dst, &mover.transfer, &mover.moved, &error);
        mover_take(&mover, code, &error);
    }
    return mover_end(&mover, to_stdout ? NULL : summary);
}

int cli_cat(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "cat", cat_usage, "", 1, 1 << 20, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    cli.json = false;
    for (int i = 0; i < cli.argc && code == 0; i++) {
        code = cairn_get_stream(cli.cairn, cli.argv[i], stdout_write, NULL, NULL, &cli.error);
    }
    return cli_end(&cli, code);
}
