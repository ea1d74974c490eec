/* When does a development cluster serve? First each node started now says in its log that it listens, while its process
 * lives; then this program, run as `cairn admin status` and `cairn ls` with the cluster's client.toml, finds
 * all stores registered and gets its answer. A node that ends meanwhile decides at once. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "dev.h"

#define DEV_POLL_MS    20
#define DEV_TAIL_LINES 8

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static FILE *open_log(const struct dev_node *node, uint64_t offset)
{
    char path[DEV_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/log", node->dir);
    FILE *file = fopen(path, "re");
    if (file && fseeko(file, (off_t)offset, SEEK_SET) != 0) {
        fclose(file);
        file = NULL;
    }
    return file;
}

uint64_t dev_log_bytes(const struct dev_node *node)
{
    char path[DEV_PATH_BYTES + 8];
    struct stat info;
    snprintf(path, sizeof path, "%s/log", node->dir);
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

/* Whether the log holds a line in which this very node says that it listens, behind `offset`. */
static bool says_listening(const struct dev_node *node, uint64_t offset)
{
    FILE *file = open_log(node, offset);
    if (!file) {
        return false;
    }
    char line[1024], ready[64];
    snprintf(ready, sizeof ready, "\"node\":\"%s:%u\",\"text\":\"listening on ",
             node->role == DEV_METAD ? "metad" : "blockd", node->number);
    bool found = false;
    while (!found && fgets(line, sizeof line, file)) {
        found = strstr(line, ready) != NULL;
    }
    fclose(file);
    return found;
}

void dev_log_tail(const struct dev_node *node, uint64_t offset)
{
    FILE *file = open_log(node, offset);
    if (!file) {
        return;
    }
    char lines[DEV_TAIL_LINES][1024];
    unsigned count = 0;
    while (fgets(lines[count % DEV_TAIL_LINES], sizeof lines[0], file)) {
        count++;
    }
    fclose(file);
    for (unsigned i = count > DEV_TAIL_LINES ? count - DEV_TAIL_LINES : 0; i < count; i++) {
        const char *line = lines[i % DEV_TAIL_LINES];
        size_t bytes = strlen(line);
        fprintf(stderr, "  %s: %s%s", node->name, line, bytes && line[bytes - 1] == '\n' ? "" : "\n");
    }
}

static void pause_ms(int ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000l};
    nanosleep(&pause, NULL);
}

enum err dev_wait_listening(const struct dev_cluster *cluster, const uint64_t *log_offset, int wait_ms, char *ret_text)
{
    uint64_t deadline_ms = now_ms() + (uint64_t)wait_ms;
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (log_offset[i] == UINT64_MAX) {
            continue;
        }
        while (!says_listening(&node, log_offset[i])) {
            bool alive = dev_process_of(&node).alive;
            bool late = now_ms() >= deadline_ms;
            if (!alive || late) {
                dev_log_tail(&node, log_offset[i]);
                return dev_refuse(alive ? ERR_TIMEOUT : ERR_UNAVAILABLE, ret_text, "%s %s; its log is %s/log",
                                  node.name, alive ? "does not listen in time" : "ended while it started", node.dir);
            }
            pause_ms(DEV_POLL_MS);
        }
    }
    return ERR_OK;
}

/* True when the child ends well in time; one that does not end is killed. */
static bool wait_child(pid_t child, uint64_t deadline_ms)
{
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (now_ms() >= deadline_ms) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return false;
        }
        pause_ms(DEV_POLL_MS);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* One run of this very program with the arguments; true when it ends well before the deadline. What it prints to
 * standard output, as far as it fits, is in ret_out (DEV_TEXT_BYTES). */
static bool probe(const struct dev_cluster *cluster, char *const *arguments, uint64_t deadline_ms, char *ret_out)
{
    char config[DEV_PATH_BYTES];
    snprintf(config, sizeof config, "%s/client.toml", cluster->dir);
    int out_fd = memfd_create("probe", MFD_CLOEXEC);
    if (out_fd < 0) {
        return false;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int null_fd = open("/dev/null", O_RDWR);
        if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(out_fd, 1) < 0 || dup2(null_fd, 2) < 0 ||
            setenv("CAIRN_CONFIG", config, 1) != 0) {
            _exit(127);
        }
        execv("/proc/self/exe", arguments);
        _exit(127);
    }
    bool ended = child > 0 && wait_child(child, deadline_ms);
    ssize_t bytes = pread(out_fd, ret_out, DEV_TEXT_BYTES - 1, 0);
    ret_out[bytes > 0 ? bytes : 0] = 0;
    close(out_fd);
    return ended;
}

/* The workspace can be listed and every store has registered. */
static bool serves_now(const struct dev_cluster *cluster, uint64_t deadline_ms)
{
    char path[sizeof cluster->workspace + 4], out[DEV_TEXT_BYTES];
    snprintf(path, sizeof path, "%s:/", cluster->workspace);
    char *list[] = {(char *)"cairn", (char *)"ls", path, NULL};
    char *status[] = {(char *)"cairn", (char *)"admin", (char *)"status", (char *)"--json", NULL};
    if (!probe(cluster, status, deadline_ms, out)) {
        return false;
    }
    const char *stores_up = strstr(out, "\"stores_up\":");
    unsigned count = 0;
    if (!stores_up || sscanf(stores_up, "\"stores_up\":%u", &count) != 1 ||
        count < cluster->blockds * cluster->stores) {
        return false;
    }
    return probe(cluster, list, deadline_ms, out);
}

/* A node that has ended since it listened; false when all live. */
static bool find_ended(const struct dev_cluster *cluster, const uint64_t *log_offset, struct dev_node *ret_node,
                       uint64_t *ret_offset)
{
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (!dev_process_of(&node).alive) {
            *ret_node = node;
            *ret_offset = log_offset[i] == UINT64_MAX ? 0 : log_offset[i];
            return true;
        }
    }
    return false;
}

enum err dev_wait_serving(const struct dev_cluster *cluster, const uint64_t *log_offset, int wait_ms, char *ret_text)
{
    uint64_t deadline_ms = now_ms() + (uint64_t)wait_ms;
    enum err err = dev_wait_listening(cluster, log_offset, wait_ms, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    for (bool serves = false; !serves;) {
        struct dev_node ended;
        uint64_t offset;
        serves = serves_now(cluster, deadline_ms);
        if (find_ended(cluster, log_offset, &ended, &offset)) {
            dev_log_tail(&ended, offset);
            return dev_refuse(ERR_UNAVAILABLE, ret_text, "%s ended before the cluster served; its log is %s/log",
                              ended.name, ended.dir);
        }
        if (now_ms() >= deadline_ms) {
            return dev_refuse(ERR_TIMEOUT, ret_text,
                              "all nodes run, but the cluster does not answer in time; see %s/*/log", cluster->dir);
        }
        pause_ms(serves ? 0 : DEV_POLL_MS);
    }
    return ERR_OK;
}
