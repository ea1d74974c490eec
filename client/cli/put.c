/* cairn put: files, folders or standard input into the cluster. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

static const char usage[] =
    "usage: cairn put [-q] SRC... WORKSPACE:/DST\n\n"
    "A folder's contents go into DST; a file goes to DST, or into it where DST is a folder or\n"
    "ends in '/'; with several SRC DST is a folder. '-' is standard input. Missing folders are\n"
    "made. Ends with what moved.\n"
    "  -q, --quiet      no progress bar\n"
    "  --transfers N    files of a folder at once (16)\n";

static int64_t stdin_read(void *context, void *data, size_t bytes)
{
    (void)context;
    ssize_t n;
    do {
        n = read(STDIN_FILENO, data, bytes);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void summary(const struct cli *cli, const struct cairn_moved *moved, double seconds)
{
    uint32_t safe_losses = moved->safe_losses == UINT32_MAX ? 0 : moved->safe_losses;
    if (cli->json) {
        struct json json;
        json_begin(&json);
        json_number(&json, "files", moved->files);
        json_number(&json, "folders", moved->folders);
        json_number(&json, "symlinks", moved->symlinks);
        json_number(&json, "failed", moved->failed);
        json_number(&json, "bytes", moved->bytes);
        json_number(&json, "chunks", moved->chunks);
        json_number(&json, "chunks_present", moved->chunks_present);
        json_number(&json, "bytes_sent", moved->bytes_sent);
        json_number(&json, "wire_bytes", moved->wire_bytes);
        if (moved->safe_losses == UINT32_MAX) {
            json_raw(&json, "safe_losses", "null");
        } else {
            json_number(&json, "safe_losses", safe_losses);
        }
        json_real(&json, "seconds", seconds);
        json_end(&json);
        return;
    }
    printf("%llu files, %s in %.2f s (%s/s); %llu of %llu chunks were there; %s sent; safe losses: %u\n",
           (unsigned long long)moved->files, cli_size_text((double)moved->bytes), seconds,
           cli_size_text((double)moved->bytes / (seconds > 0 ? seconds : 1)), (unsigned long long)moved->chunks_present,
           (unsigned long long)moved->chunks, cli_size_text((double)moved->bytes_sent), (unsigned)safe_losses);
}

int cli_put(int argc, char **argv)
{
    struct cli cli;
    struct mover mover;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "put", usage, "qt", 2, 1 << 20, &code)) {
        return code;
    }
    if (!mover_begin(&mover, &cli)) {
        return CLI_EXIT_USAGE;
    }
    if (!cli_open(&cli, &code)) {
        return code;
    }
    for (int i = 0; i + 1 < cli.argc; i++) {
        struct cairn_error error = {0};
        code = strcmp(cli.argv[i], "-") == 0
                   ? cairn_put_stream(cli.cairn, stdin_read, NULL, mover.dst, &mover.moved, &error)
                   : cairn_put(cli.cairn, cli.argv[i], mover.dst, &mover.transfer, &mover.moved, &error);
        mover_take(&mover, code, &error);
    }
    return mover_end(&mover, summary);
}
