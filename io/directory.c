/* Data directories: made, recognised, locked, listed. Stands at the start of every daemon.
 *
 *   DIR/cairn      marker, written last when the directory is made: this is ours
 *   DIR/lock       flock'ed by the process that uses it
 *   DIR/log, DIR/segments, DIR/kv
 *
 * How it fails: NOT_OURS for a directory with something else in it, IN_USE for one another process holds; the text
 * names the next step. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "io/internal.h"

#define TEXT_BYTES 256
#define PATH_BYTES 4096

static const char directory_marker[] = "cairn data directory, version 1\n";

static enum err directory_fail(enum err err, char *ret_text, const char *dir, const char *what, int number,
                               const char *next)
{
    snprintf(ret_text, TEXT_BYTES, "%.120s: %s%s%s; %s", dir, what, number ? ": " : "", number ? strerror(number) : "",
             next);
    return err;
}

static enum err directory_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return ERR_IO;
    }
    int rc = fsync(fd);
    close(fd);
    return rc < 0 ? ERR_IO : ERR_OK;
}

static bool directory_has(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &info) == 0;
}

/* True when nothing is in it that was not put there by an interrupted first start. */
static bool directory_is_fresh(const char *dir)
{
    static const char *const ours[] = {".", "..", "lock", "log", "segments", "cairn.new", "lost+found"};
    DIR *list = opendir(dir);
    bool fresh = list != NULL;
    for (struct dirent *entry; fresh && (entry = readdir(list)) != NULL;) {
        bool known = false;
        for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++) {
            known = known || strcmp(entry->d_name, ours[i]) == 0;
        }
        fresh = known;
    }
    if (list != NULL) {
        closedir(list);
    }
    return fresh;
}

static enum err directory_make_sub(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return mkdir(path, 0700) < 0 && errno != EEXIST ? ERR_IO : ERR_OK;
}

static enum err directory_write_marker(const char *dir)
{
    char path[PATH_BYTES], final[PATH_BYTES];
    snprintf(path, sizeof path, "%s/cairn.new", dir);
    snprintf(final, sizeof final, "%s/cairn", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return ERR_IO;
    }
    ssize_t bytes = (ssize_t)strlen(directory_marker);
    bool ok = write(fd, directory_marker, (size_t)bytes) == bytes && fsync(fd) == 0;
    close(fd);
    return ok && rename(path, final) == 0 ? ERR_OK : ERR_IO;
}

static enum err directory_fill(const char *dir, char *ret_text)
{
    enum err err = directory_make_sub(dir, "log");
    if (err == ERR_OK) {
        err = directory_make_sub(dir, "segments");
    }
    if (err == ERR_OK && !directory_has(dir, "cairn")) {
        err = directory_write_marker(dir);
    }
    if (err == ERR_OK) {
        err = directory_sync(dir);
    }
    if (err != ERR_OK) {
        return directory_fail(err, ret_text, dir, "cannot be filled", errno, "check its owner, its mode and free room");
    }
    return ERR_OK;
}

static enum err directory_lock(const char *dir, int *ret_fd, char *ret_text)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return directory_fail(ERR_IO, ret_text, dir, "lock file", errno, "check its owner and mode");
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int number = errno;
        close(fd);
        if (number == EWOULDBLOCK) {
            return directory_fail(ERR_IN_USE, ret_text, dir, "in use by another process", 0,
                                  "stop that process or name another directory");
        }
        return directory_fail(ERR_IO, ret_text, dir, "lock", number, "use a file system that has locks");
    }
    *ret_fd = fd;
    return ERR_OK;
}

enum err runtime_directory_open(const char *dir, int *ret_lock_fd, char *ret_text)
{
    if (strlen(dir) > 400) {
        return directory_fail(ERR_CONFIG, ret_text, dir, "the path is longer than 400 bytes", 0, "use a shorter one");
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        return directory_fail(ERR_IO, ret_text, dir, "cannot be made", errno, "make its parent, or check the mode");
    }
    if (!directory_has(dir, "cairn") && !directory_is_fresh(dir)) {
        return directory_fail(ERR_NOT_OURS, ret_text, dir, "not empty and not a Cairn data directory", 0,
                              "name an empty directory");
    }
    int fd = -1;
    enum err err = directory_lock(dir, &fd, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    err = directory_fill(dir, ret_text);
    if (err != ERR_OK) {
        close(fd);
        return err;
    }
    *ret_lock_fd = fd;
    return ERR_OK;
}

/* ---- listing ---- */

/* Reads eight hexadecimal digits and the suffix, nothing else. */
static bool directory_parse_name(const char *name, const char *suffix, uint32_t *ret_number)
{
    uint32_t number = 0;
    if (strlen(name) != 8 + strlen(suffix) || strcmp(name + 8, suffix) != 0) {
        return false;
    }
    for (int i = 0; i < 8; i++) {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, name[i]);
        if (digit == NULL) {
            return false;
        }
        number = number << 4 | (uint32_t)(digit - digits);
    }
    *ret_number = number;
    return true;
}

static int directory_compare(const void *a, const void *b)
{
    const struct file_info *x = a, *y = b;
    return x->file.number < y->file.number ? -1 : x->file.number > y->file.number;
}

enum err runtime_directory_list(const char *dir, enum file_kind kind, struct file_info **ret_files, uint32_t *ret_count)
{
    CHECK(kind == FILE_LOG || kind == FILE_SEGMENT);
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, kind == FILE_LOG ? "log" : "segments");
    DIR *list = opendir(path);
    if (list == NULL) {
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    }
    struct file_info *files = NULL;
    unsigned long count = 0, capacity = 0;
    enum err err = ERR_OK;
    errno = 0;
    for (struct dirent *entry; err == ERR_OK && (entry = readdir(list)) != NULL;) {
        uint32_t number;
        struct stat info;
        if (!directory_parse_name(entry->d_name, kind == FILE_LOG ? ".log" : ".seg", &number)) {
            continue;
        }
        if (fstatat(dirfd(list), entry->d_name, &info, 0) < 0) {
            err = ERR_IO;
            break;
        }
        files = mem_grow(files, &capacity, count + 1, sizeof *files);
        files[count++] = (struct file_info){.file = {.kind = kind, .number = number}, .bytes = (uint64_t)info.st_size};
        errno = 0;
    }
    if (err == ERR_OK && errno != 0) {
        err = ERR_IO;
    }
    closedir(list);
    if (err != ERR_OK) {
        free(files);
        return err;
    }
    if (count > 0) {
        qsort(files, count, sizeof *files, directory_compare);
    }
    *ret_files = files;
    *ret_count = (uint32_t)count;
    return ERR_OK;
}
