/* Processes of a development cluster: started detached, known by pid, start time and boot, stopped through a pidfd.
 * DIR/NAME/pid holds "PID START BOOT\n": the child writes it about itself before it becomes the daemon, so that no
 * daemon ever runs without a record; a record whose pid was taken over by another process no longer matches and is
 * never signalled. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/close_range.h>

#include "base/check.h"
#include "dev.h"

#define DEV_BOOT_BYTES 64

struct pid_record {
    pid_t pid;
    unsigned long long start; /* field 22 of /proc/PID/stat, clock ticks since boot */
    char boot[DEV_BOOT_BYTES];
};

/* Start time and state of a process; false when there is none. */
static bool read_stat(pid_t pid, unsigned long long *ret_start, char *ret_state)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file) {
        return false;
    }
    size_t bytes = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[bytes] = 0;
    /* The name stands in parentheses and may hold anything: the fields begin behind the last one. */
    const char *fields = strrchr(line, ')');
    return fields &&
           sscanf(fields + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                  ret_state, ret_start) == 2;
}

static void read_boot(char boot[DEV_BOOT_BYTES])
{
    boot[0] = 0;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file) {
        if (fscanf(file, "%63s", boot) != 1) {
            boot[0] = 0;
        }
        fclose(file);
    }
    if (!boot[0]) {
        strcpy(boot, "unknown");
    }
}

static bool read_record(const struct dev_node *node, struct pid_record *ret_record)
{
    char path[DEV_PATH_BYTES + 8];
    snprintf(path, sizeof path, "%s/pid", node->dir);
    FILE *file = fopen(path, "re");
    if (!file) {
        return false;
    }
    int pid = 0;
    bool read = fscanf(file, "%d %llu %63s", &pid, &ret_record->start, ret_record->boot) == 3 && pid > 1;
    fclose(file);
    ret_record->pid = pid;
    return read;
}

static bool record_is_alive(const struct pid_record *record)
{
    char boot[DEV_BOOT_BYTES], state = 0;
    unsigned long long start = 0;
    read_boot(boot);
    return strcmp(boot, record->boot) == 0 && read_stat(record->pid, &start, &state) && start == record->start &&
           state != 'Z' && state != 'X';
}

struct dev_process dev_process_of(const struct dev_node *node)
{
    struct pid_record record;
    if (!read_record(node, &record)) {
        return (struct dev_process){0};
    }
    return (struct dev_process){record.pid, record_is_alive(&record)};
}

/* A pidfd of the node's process, -1 when it is not alive. Taken before the start time is compared: the comparison then
 * holds for the process the descriptor means. */
static int open_process(const struct dev_node *node)
{
    struct pid_record record;
    if (!read_record(node, &record)) {
        return -1;
    }
    int fd = pidfd_open(record.pid, 0);
    if (fd >= 0 && !record_is_alive(&record)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* In the child, before exec: "PID START BOOT" of itself. */
static bool write_own_record(const struct dev_node *node)
{
    unsigned long long start = 0;
    char path[DEV_PATH_BYTES + 8], boot[DEV_BOOT_BYTES], state, line[128], text[DEV_TEXT_BYTES];
    if (!read_stat(getpid(), &start, &state)) {
        return false;
    }
    read_boot(boot);
    int bytes = snprintf(line, sizeof line, "%d %llu %s\n", (int)getpid(), start, boot);
    snprintf(path, sizeof path, "%s/pid", node->dir);
    return dev_file_write(path, line, (size_t)bytes, 0600, text) == ERR_OK;
}

/* In the child: own session, no terminal, no descriptor of ours, output to the log. Returns only on failure. */
static void become_daemon(const struct dev_node *node, const char *binary)
{
    char log[DEV_PATH_BYTES + 8], config[DEV_PATH_BYTES + 16];
    snprintf(log, sizeof log, "%s/log", node->dir);
    snprintf(config, sizeof config, "%s/node.toml", node->dir);
    setsid();
    umask(077);
    int null_fd = open("/dev/null", O_RDONLY);
    int log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (null_fd < 0 || log_fd < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0) {
        return;
    }
    if (chdir("/") != 0 || close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0 || !write_own_record(node)) {
        return;
    }
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    char *arguments[] = {(char *)(node->role == DEV_METAD ? "metad" : "blockd"), (char *)"--config", config, NULL};
    execv(binary, arguments);
}

enum err dev_binary_find(enum dev_role role, char ret_path[DEV_PATH_BYTES], char *ret_text)
{
    const char *name = role == DEV_METAD ? "metad" : "blockd";
    char self[PATH_MAX];
    ssize_t bytes = readlink("/proc/self/exe", self, sizeof self - 1);
    if (bytes <= 0) {
        return dev_refuse(ERR_IO, ret_text, "cannot tell where this program is: %s", strerror(errno));
    }
    self[bytes] = 0;
    char *slash = strrchr(self, '/');
    CHECK(slash != NULL);
    *slash = 0;
    snprintf(ret_path, DEV_PATH_BYTES, "%s/%s", self, name);
    if (access(ret_path, X_OK) != 0) {
        return dev_refuse(ERR_NOT_FOUND, ret_text,
                          "no %s beside this program in %s; build all programs ('./run build')", name, self);
    }
    return ERR_OK;
}

enum err dev_process_start(const struct dev_node *node, char *ret_text)
{
    char binary[DEV_PATH_BYTES];
    enum err err = dev_binary_find(node->role, binary, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    CHECK(!dev_process_of(node).alive);
    int failure[2]; /* closed by exec; carries errno when that failed */
    if (pipe2(failure, O_CLOEXEC) != 0) {
        return dev_refuse(ERR_IO, ret_text, "cannot make a pipe: %s", strerror(errno));
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        become_daemon(node, binary);
        int reason = errno;
        (void)!write(failure[1], &reason, sizeof reason);
        _exit(127);
    }
    close(failure[1]);
    int reason = child < 0 ? errno : 0;
    ssize_t got = child < 0 ? (ssize_t)sizeof reason : read(failure[0], &reason, sizeof reason);
    close(failure[0]);
    if (got > 0) {
        if (child > 0) {
            waitpid(child, NULL, 0);
        }
        return dev_refuse(ERR_IO, ret_text, "cannot start %s (%s): %s", node->name, binary, strerror(reason));
    }
    return ERR_OK;
}

void dev_process_signal(const struct dev_node *node, int signal)
{
    int fd = open_process(node);
    if (fd >= 0) {
        (void)pidfd_send_signal(fd, signal, NULL, 0);
        close(fd);
    }
}

enum err dev_process_stop(const struct dev_node *node, int signal, int wait_ms, char *ret_text)
{
    int fd = open_process(node);
    if (fd < 0) {
        return ERR_OK;
    }
    enum err err = ERR_OK;
    if (pidfd_send_signal(fd, signal, NULL, 0) != 0 && errno != ESRCH) {
        err = dev_refuse(errno == EPERM ? ERR_DENIED : ERR_IO, ret_text, "cannot signal %s: %s", node->name,
                         strerror(errno));
    } else {
        struct pollfd ended = {.fd = fd, .events = POLLIN};
        if (poll(&ended, 1, wait_ms) <= 0) {
            err = dev_refuse(ERR_TIMEOUT, ret_text, "%s does not end", node->name);
        }
    }
    close(fd);
    return err;
}
