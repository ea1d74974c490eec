/* The node's database is set aside when its bytes are damaged (database.h). No byte passes here; it stands before the
 * groups read a state, and behind each read that fails.
 *
 * Happy path at the start: opening says CORRUPT -> DIR/kv is renamed, the directory synced, an empty database opened ->
 * the groups find that their log begins behind what they hold, and fetch it (host/heal.c). Found by a running node: the
 * same rename, then the program is executed anew, because everything in memory may rest on what was read. A crash
 * between the two finds no database, which is the same as an empty one.
 *
 * How it fails: after LIMIT_DATABASES_ASIDE of them the disk or the memory of this host is not to be trusted, and an
 * operator decides. A rename that fails halts the node. */
#include "database.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/limits.h"
#include "config.h"
#include "io/log.h"

#define PATH_BYTES (CONFIG_STRING_BYTES + 64)

/* The name that a damaged database gets next. False: too many lie there. */
static bool aside_name(const char *dir, char ret_path[PATH_BYTES])
{
    for (unsigned i = 1; i <= LIMIT_DATABASES_ASIDE; i++) {
        snprintf(ret_path, PATH_BYTES, "%s/kv.damaged-%u", dir, i);
        if (access(ret_path, F_OK) != 0 && errno == ENOENT) {
            return true;
        }
    }
    return false;
}

static bool sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return synced;
}

static enum err set_aside(const char *dir, const char *why, char *ret_text)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    snprintf(from, sizeof from, "%s/kv", dir);
    if (!aside_name(dir, to)) {
        snprintf(ret_text, METAD_TEXT_BYTES,
                 "%s; %d damaged databases were set aside before it: do not trust this host's disk or memory; remove "
                 "%s/kv.damaged-* to let the node try once more",
                 why, LIMIT_DATABASES_ASIDE, dir);
        return ERR_CORRUPT;
    }
    if (rename(from, to) != 0 || !sync_directory(dir)) {
        snprintf(ret_text, METAD_TEXT_BYTES, "%.400s; it cannot be set aside as %.400s: %s", why, to, strerror(errno));
        return ERR_IO;
    }
    io_log(LOG_ERROR, ERR_CORRUPT,
           "%s; the database is set aside as %s, and filled anew from the log and other members; remove that when all "
           "groups are level",
           why, to);
    return ERR_OK;
}

enum err metad_database_open(struct runtime *runtime, const char *dir, bool aside, struct runtime_kv **ret_kv,
                             char *ret_text)
{
    enum err err = runtime_kv_open(runtime, dir, ret_kv, ret_text);
    if (err != ERR_CORRUPT || !aside) {
        return err;
    }
    char why[METAD_TEXT_BYTES];
    snprintf(why, sizeof why, "%s", ret_text);
    err = set_aside(dir, why, ret_text);
    return err == ERR_OK ? runtime_kv_open(runtime, dir, ret_kv, ret_text) : err;
}

/* The same program, the same process: sockets, files and locks of this one go at that moment. */
static void begin_anew(char **arguments)
{
    sigset_t none;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    execv("/proc/self/exe", arguments);
}

void metad_database_damaged(const char *dir, char **arguments, const char *text)
{
    static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER;
    char why[METAD_TEXT_BYTES], wrong[METAD_TEXT_BYTES];
    pthread_mutex_lock(&first); /* others wait here for the end of the process */
    snprintf(why, sizeof why, "database %.200s/kv: %.200s", dir, text);
    if (set_aside(dir, why, wrong) == ERR_OK) {
        begin_anew(arguments);
        io_log(LOG_ERROR, ERR_IO, "the program cannot be begun anew: %s", strerror(errno));
    } else {
        io_log(LOG_ERROR, ERR_CORRUPT, "%s", wrong);
    }
    pthread_mutex_unlock(&first);
}
