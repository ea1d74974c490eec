/* What the commands share. Results go to stdout, everything else to stderr; an error names what failed and the next
 * step, and its class decides the exit code. */
#include "common.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static void usage_print(FILE *out, const struct cli *cli)
{
    fprintf(out, "%s\nOptions:\n%s", cli->usage, CLI_COMMON_HELP);
}

static bool number_parse(const char *text, uint64_t *ret)
{
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    *ret = value;
    return end != text && *end == '\0' && text[0] != '-';
}

/* "N" or "INCARNATION:N". */
static bool cursor_parse(const char *text, struct cli *cli)
{
    char incarnation[32];
    const char *colon = strchr(text, ':');
    if (colon == NULL) {
        return number_parse(text, &cli->cursor);
    }
    if ((size_t)(colon - text) >= sizeof incarnation) {
        return false;
    }
    memcpy(incarnation, text, (size_t)(colon - text));
    incarnation[colon - text] = '\0';
    return number_parse(incarnation, &cli->cursor_incarnation) && number_parse(colon + 1, &cli->cursor);
}

static bool option_take(struct cli *cli, int letter)
{
    uint64_t number = 0;
    switch (letter) {
    case 'C':
        cli->config = optarg;
        return true;
    case 'J':
        cli->json = true;
        return true;
    case 'H':
        cli->history = optarg;
        return true;
    case 'T': {
        char *end = NULL;
        cli->timeout_seconds = strtod(optarg, &end);
        return end != optarg && *end == '\0' && cli->timeout_seconds > 0 && cli->timeout_seconds < 1e6;
    }
    case 'l':
        cli->long_form = true;
        return true;
    case 'R':
    case 'r':
        cli->recursive = true;
        return true;
    case 'p':
        cli->parents = true;
        return true;
    case 'f':
        cli->replace = true;
        return true;
    case 'q':
        cli->no_progress = true;
        return true;
    case 'w':
        cli->follow = true;
        return true;
    case 'g':
        cli->group_given = true;
        return number_parse(optarg, &cli->group) && cli->group <= UINT32_MAX;
    case 'o':
        cli->to = optarg;
        return true;
    case 'W':
        cli->with = optarg;
        return true;
    case 'A':
        cli->address = optarg;
        return true;
    case 'O':
        cli->role = optarg;
        return true;
    case 'X':
        return number_parse(optarg, &cli->expires) && cli->expires > 0;
    case 'n':
        cli->cursor_given = true;
        return cursor_parse(optarg, cli);
    case 't':
        cli->threads = number_parse(optarg, &number) && number > 0 && number <= 64 ? (unsigned)number : 0;
        return cli->threads > 0;
    default:
        return false;
    }
}

bool cli_parse(struct cli *cli, int argc, char **argv, const char *command, const char *usage, const char *letters,
               int least, int most, int *ret_exit)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'C'},
        {"json", no_argument, NULL, 'J'},
        {"history", required_argument, NULL, 'H'},
        {"timeout", required_argument, NULL, 'T'},
        {"help", no_argument, NULL, 'h'},
        {"long", no_argument, NULL, 'l'},
        {"recursive", no_argument, NULL, 'r'},
        {"parents", no_argument, NULL, 'p'},
        {"force", no_argument, NULL, 'f'},
        {"quiet", no_argument, NULL, 'q'},
        {"follow", no_argument, NULL, 'w'},
        {"cursor", required_argument, NULL, 'n'},
        {"transfers", required_argument, NULL, 't'},
        {"group", required_argument, NULL, 'g'},
        {"to", required_argument, NULL, 'o'},
        {"with", required_argument, NULL, 'W'},
        {"address", required_argument, NULL, 'A'},
        {"role", required_argument, NULL, 'O'},
        {"expires", required_argument, NULL, 'X'},
        {0},
    };
    *cli = (struct cli){.command = command, .usage = usage};
    optind = 1;
    opterr = 0;
    int letter;
    while ((letter = getopt_long(argc, argv, "hlRrpfq", options, NULL)) != -1) {
        if (letter == 'h') {
            usage_print(stdout, cli);
            *ret_exit = 0;
            return false;
        }
        bool common = letter == 'C' || letter == 'J' || letter == 'H' || letter == 'T';
        bool mine = letter != '?' && strchr(letters, letter == 'R' ? 'r' : letter) != NULL;
        if ((!common && !mine) || !option_take(cli, letter)) {
            bool value = letter != '?' && optarg != NULL && optind > 2 && optarg == argv[optind - 1];
            fprintf(stderr, "cairn %s: %s%s%s: not an option of it, or a wrong value; see cairn %s --help\n", command,
                    value ? argv[optind - 2] : "", value ? " " : "", argv[optind - 1], command);
            *ret_exit = CLI_EXIT_USAGE;
            return false;
        }
    }
    cli->argc = argc - optind;
    cli->argv = argv + optind;
    if (cli->argc < least || cli->argc > most) {
        fprintf(stderr, "cairn %s: too %s arguments\n", command, cli->argc < least ? "few" : "many");
        usage_print(stderr, cli);
        *ret_exit = CLI_EXIT_USAGE;
        return false;
    }
    return true;
}

bool cli_open(struct cli *cli, int *ret_exit)
{
    struct cairn_options options = {
        .config_file = cli->config,
        .history_file = cli->history,
        .timeout_seconds = cli->timeout_seconds,
    };
    if (cairn_open(&options, &cli->cairn, &cli->error) != 0) {
        *ret_exit = cli_fail(cli, &cli->error);
        return false;
    }
    return true;
}

/* What to do next, by error and exit code. */
static const char *next_step(int code, int exit_code)
{
    if (strcmp(cairn_error_name(code), "DISK_FULL") == 0 || strcmp(cairn_error_name(code), "NO_ROOM") == 0) {
        return "; make room, then repeat the command";
    }
    if (strcmp(cairn_error_name(code), "CONFIG") == 0) {
        return "; 'cairn dev up' writes a client.toml and says where";
    }
    switch (exit_code) {
    case 5:
        return "; check the user's rights and client.toml";
    case 6:
        return "; remove something or ask for more quota";
    case 7:
        return "; see 'cairn admin status' or 'cairn dev ps', then repeat the command";
    case 8:
        return "; do not repeat blindly: see the nodes' logs";
    default:
        return "";
    }
}

int cli_fail(struct cli *cli, const struct cairn_error *error)
{
    int exit_code = cairn_exit_code(error->code);
    fprintf(stderr, "cairn %s: %s (%s)%s\n", cli->command, error->text, cairn_error_name(error->code),
            next_step(error->code, exit_code));
    if (cli->json) {
        struct json json;
        json_begin(&json);
        json_text(&json, "error", cairn_error_name(error->code));
        json_text(&json, "text", error->text);
        json_number(&json, "exit", (uint64_t)exit_code);
        json_end(&json);
    }
    return exit_code;
}

int cli_end(struct cli *cli, int code)
{
    int exit_code = 0;
    if (code != 0) {
        cli->error.code = code; /* what failed decides, whether or not it left a text */
        exit_code = cli_fail(cli, &cli->error);
    }
    cairn_close(cli->cairn);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "cairn %s: standard output cannot be written\n", cli->command);
        exit_code = exit_code == 0 ? 1 : exit_code;
    }
    return exit_code;
}

/* ---- JSON ---- */

static void json_quote(const char *text)
{
    putchar('"');
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            printf("\\%c", *p);
        } else if (*p < 0x20) {
            printf("\\u%04x", *p);
        } else {
            putchar(*p);
        }
    }
    putchar('"');
}

static void json_key(struct json *json, const char *key)
{
    if (json->more) {
        putchar(',');
    }
    json->more = true;
    json_quote(key);
    putchar(':');
}

void json_begin(struct json *json)
{
    json->more = false;
    putchar('{');
}

void json_text(struct json *json, const char *key, const char *value)
{
    json_key(json, key);
    json_quote(value);
}

void json_number(struct json *json, const char *key, uint64_t value)
{
    json_key(json, key);
    printf("%llu", (unsigned long long)value);
}

void json_signed(struct json *json, const char *key, int64_t value)
{
    json_key(json, key);
    printf("%lld", (long long)value);
}

void json_real(struct json *json, const char *key, double value)
{
    json_key(json, key);
    printf("%.6f", value);
}

void json_bool(struct json *json, const char *key, bool value)
{
    json_key(json, key);
    fputs(value ? "true" : "false", stdout);
}

void json_raw(struct json *json, const char *key, const char *value)
{
    json_key(json, key);
    fputs(value, stdout);
}

void json_end(struct json *json)
{
    (void)json;
    puts("}");
}

/* ---- entries ---- */

const char *cli_kind_name(enum cairn_kind kind)
{
    return kind == CAIRN_FILE      ? "file"
           : kind == CAIRN_FOLDER  ? "folder"
           : kind == CAIRN_SYMLINK ? "symlink"
                                   : "unknown";
}

void cli_print_entry_json(const struct cairn_entry *entry, const char *path)
{
    struct json json;
    char mode[8];
    snprintf(mode, sizeof mode, "%04o", (unsigned)entry->mode & 07777);
    json_begin(&json);
    json_text(&json, "path", path);
    json_text(&json, "name", entry->name);
    json_text(&json, "kind", cli_kind_name(entry->kind));
    json_number(&json, "bytes", entry->bytes);
    json_text(&json, "mode", mode);
    json_signed(&json, "mtime_ns", entry->mtime_ns);
    json_number(&json, "id", entry->id);
    json_number(&json, "parent", entry->parent);
    json_number(&json, "version", entry->version);
    json_number(&json, "sequence", entry->sequence);
    if (entry->kind == CAIRN_FILE) {
        json_number(&json, "safe_losses", entry->safe_losses);
    }
    if (entry->kind == CAIRN_SYMLINK) {
        json_text(&json, "target", entry->target);
    }
    json_end(&json);
}

void cli_print_entry_long(const struct cairn_entry *entry, const char *path)
{
    static const char rwx[] = "rwxrwxrwx";
    char mode[11];
    mode[0] = entry->kind == CAIRN_FOLDER ? 'd' : entry->kind == CAIRN_SYMLINK ? 'l' : '-';
    for (unsigned i = 0; i < 9; i++) {
        mode[i + 1] = (entry->mode >> (8 - i) & 1) != 0 ? rwx[i] : '-';
    }
    mode[10] = '\0';
    char when[32] = "-";
    time_t seconds = (time_t)(entry->mtime_ns / 1000000000);
    struct tm parts;
    if (entry->mtime_ns != 0 && localtime_r(&seconds, &parts) != NULL) {
        strftime(when, sizeof when, "%Y-%m-%d %H:%M", &parts);
    }
    printf("%s %12llu %16s %s%s%s%s\n", mode, (unsigned long long)entry->bytes, when, path,
           entry->kind == CAIRN_FOLDER ? "/" : "", entry->kind == CAIRN_SYMLINK ? " -> " : "",
           entry->kind == CAIRN_SYMLINK ? entry->target : "");
}

const char *cli_size_text(double bytes)
{
    static _Thread_local char text[4][32];
    static _Thread_local unsigned next;
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;
    while (bytes >= 1024 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    char *at = text[next++ % 4];
    snprintf(at, sizeof text[0], unit == 0 ? "%.0f %s" : "%.1f %s", bytes, units[unit]);
    return at;
}

/* ---- progress ---- */

uint64_t cli_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

void bar_begin(struct bar *bar, const struct cli *cli)
{
    struct winsize size;
    *bar = (struct bar){.begin_ns = cli_now_ns(), .width = 79};
    bar->on = !cli->json && !cli->no_progress && isatty(STDERR_FILENO);
    if (bar->on && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) {
        bar->width = size.ws_col - 1u;
    }
}

void bar_progress(void *context, const struct cairn_progress *progress)
{
    struct bar *bar = context;
    uint64_t now = cli_now_ns();
    if (!bar->on || now - bar->shown_ns < 100000000ull) {
        return;
    }
    bar->shown_ns = now;
    char line[512], filled[21];
    double share = progress->bytes_known > 0 ? (double)progress->bytes / (double)progress->bytes_known : 0;
    unsigned full = share >= 1 ? 20 : (unsigned)(share * 20);
    memset(filled, '.', sizeof filled - 1);
    memset(filled, '#', full);
    filled[20] = '\0';
    double seconds = (double)(now - bar->begin_ns) / 1e9;
    int n = snprintf(line, sizeof line, "[%s] %3.0f%% %s of %s, %s/s, %llu of %llu files  %s", filled, share * 100,
                     cli_size_text((double)progress->bytes), cli_size_text((double)progress->bytes_known),
                     cli_size_text((double)progress->bytes / (seconds > 0 ? seconds : 1)),
                     (unsigned long long)progress->files, (unsigned long long)progress->files_known, progress->path);
    fprintf(stderr, "\r%.*s\033[K", n < (int)bar->width ? n : (int)bar->width, line);
}

void bar_end(struct bar *bar)
{
    if (bar->on && bar->shown_ns > 0) {
        fputs("\r\033[K", stderr);
    }
}
