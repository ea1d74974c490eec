/* Paths and descriptors of a data directory's files, and the calls on them that block (they run on helpers).
 *
 * A file is opened O_DIRECT at first use and stays open, up to FILES_OPEN of an actor; beyond, an unused one is closed.
 * A file system that refuses O_DIRECT is used without, said once. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "io/disk.h"

#define FILES_OPEN 1024u

struct disk_files {
    struct disk_file **items; /* unordered */
    unsigned long count, capacity;
    unsigned long last, hand;
};

static _Atomic bool disk_said_buffered;

void disk_path(const struct runtime_actor *actor, struct file_ref ref, char ret[DISK_PATH_BYTES])
{
    CHECK(actor->dir != NULL && (ref.kind == FILE_LOG || ref.kind == FILE_SEGMENT));
    int bytes = ref.kind == FILE_LOG ? snprintf(ret, DISK_PATH_BYTES, "%s/log/%08x.log", actor->dir, ref.number)
                                     : snprintf(ret, DISK_PATH_BYTES, "%s/segments/%08x.seg", actor->dir, ref.number);
    CHECK(bytes > 0 && bytes < (int)DISK_PATH_BYTES);
}

enum err disk_error(int number, const char *what, const char *path)
{
    enum err err = number == ENOSPC || number == EDQUOT ? ERR_DISK_FULL : number == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    io_log(err == ERR_IO ? LOG_ERROR : LOG_WARN, err, "%s %s: %s", what, path, strerror(number));
    return err;
}

/* ---- open files ---- */

static enum err disk_file_open(const char *path, struct disk_file *file)
{
    file->direct = true;
    file->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file->fd < 0 && errno == EINVAL) {
        file->direct = false;
        file->fd = open(path, O_RDWR | O_CLOEXEC);
        if (file->fd >= 0 && !atomic_exchange(&disk_said_buffered, true)) {
            io_log(LOG_WARN, ERR_OK, "%s: the file system refuses O_DIRECT; files go through the page cache", path);
        }
    }
    return file->fd < 0 ? disk_error(errno, "open", path) : ERR_OK;
}

static void disk_file_release(struct disk_file *file)
{
    CHECK(file->users == 0);
    close(file->fd);
    free(file);
}

/* Closes one unused file, if there is one. */
static void disk_files_evict(struct disk_files *files)
{
    for (unsigned long i = 0; i < files->count; i++) {
        files->hand = (files->hand + 1) % files->count;
        struct disk_file *file = files->items[files->hand];
        if (file->users == 0) {
            disk_file_release(file);
            files->items[files->hand] = files->items[--files->count];
            return;
        }
    }
}

static struct disk_file *disk_files_find(struct disk_files *files, struct file_ref ref)
{
    for (unsigned long i = 0; i < files->count; i++) {
        unsigned long at = (files->last + i) % files->count;
        if (files->items[at]->ref.kind == ref.kind && files->items[at]->ref.number == ref.number) {
            files->last = at;
            return files->items[at];
        }
    }
    return NULL;
}

enum err disk_file_use(struct runtime_actor *actor, struct file_ref ref, struct disk_file **ret_file)
{
    if (actor->files == NULL) {
        actor->files = mem_alloc(sizeof *actor->files);
    }
    struct disk_files *files = actor->files;
    struct disk_file *file = disk_files_find(files, ref);
    if (file == NULL) {
        char path[DISK_PATH_BYTES];
        disk_path(actor, ref, path);
        struct disk_file opened = {.ref = ref};
        enum err err = disk_file_open(path, &opened);
        if (err != ERR_OK) {
            return err;
        }
        if (files->count >= FILES_OPEN) {
            disk_files_evict(files);
        }
        file = mem_alloc(sizeof *file);
        *file = opened;
        files->items = mem_grow(files->items, &files->capacity, files->count + 1, sizeof(struct disk_file *));
        files->items[files->count++] = file;
    }
    file->users++;
    *ret_file = file;
    return ERR_OK;
}

void disk_file_unuse(struct disk_file *file)
{
    CHECK(file->users > 0);
    file->users--;
    if (file->users == 0 && file->doomed) {
        disk_file_release(file);
    }
}

void disk_file_doom(struct runtime_actor *actor, struct file_ref ref)
{
    struct disk_files *files = actor->files;
    struct disk_file *file = files != NULL ? disk_files_find(files, ref) : NULL;
    if (file == NULL) {
        return;
    }
    files->items[files->last] = files->items[--files->count];
    file->doomed = true;
    if (file->users == 0) {
        disk_file_release(file);
    }
}

void disk_files_destroy(struct disk_files *files)
{
    if (files == NULL) {
        return;
    }
    for (unsigned long i = 0; i < files->count; i++) {
        disk_file_release(files->items[i]);
    }
    free(files->items);
    free(files);
}

/* ---- what blocks ---- */

static enum err disk_parent_sync(const char *path)
{
    char parent[DISK_PATH_BYTES];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    CHECK(slash != NULL);
    *slash = 0;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return disk_error(errno, "open", parent);
    }
    int rc = fsync(fd);
    int number = errno;
    close(fd);
    return rc < 0 ? disk_error(number, "sync", parent) : ERR_OK;
}

static int disk_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    int rc;
    do {
        rc = fallocate(fd, mode, (off_t)offset, (off_t)bytes);
    } while (rc < 0 && errno == EINTR);
    return rc;
}

/* Zeros from `from` to `to`, past the page cache; both are multiples of DISK_ZERO_BYTES or the range is left as it is.
 * In small pieces, half of the time: mostly nobody waits for this room yet, and others' syncs wait behind each piece.
 */
static enum err disk_zero(const char *path, uint64_t from, uint64_t to)
{
    enum { DISK_ZERO_BYTES = 128 << 10 };
    if (from % DISK_ZERO_BYTES != 0 || to % DISK_ZERO_BYTES != 0) {
        return ERR_OK;
    }
    int fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0) { /* a file system without O_DIRECT */
        return ERR_OK;
    }
    enum err err = ERR_OK;
    struct slice zeros = slice_alloc(DISK_ZERO_BYTES);
    memset(zeros.data, 0, zeros.bytes);
    while (err == ERR_OK && from < to) {
        uint64_t before_ns = clock_now_ns();
        ssize_t n = pwrite(fd, zeros.data, zeros.bytes, (off_t)from);
        if (n == (ssize_t)zeros.bytes) {
            from += zeros.bytes;
            usleep((useconds_t)((clock_now_ns() - before_ns) / 1000));
        } else if (n >= 0 || errno != EINTR) {
            err = disk_error(n < 0 ? errno : ENOSPC, "write zeros to", path);
        }
    }
    slice_drop(&zeros);
    close(fd);
    return err;
}

enum err disk_file_reserve(const char *path, uint64_t bytes, bool written)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return disk_error(errno, "create", path);
    }
    struct stat before;
    if (fstat(fd, &before) < 0) {
        enum err bad = disk_error(errno, "stat", path);
        close(fd);
        return bad;
    }
    enum err err = ERR_OK;
    if (err == ERR_OK && bytes > 0 && disk_fallocate(fd, 0, 0, bytes) < 0) {
        err = disk_error(errno, "reserve room for", path);
    }
    if (err == ERR_OK && written && (uint64_t)before.st_size < bytes) {
        err = disk_zero(path, (uint64_t)before.st_size, bytes);
    }
    /* What was got before the disk was full must not stay behind. */
    if (err != ERR_OK && before.st_size == 0) {
        unlink(path);
    } else if (err != ERR_OK && ftruncate(fd, before.st_size) < 0) {
        io_log(LOG_WARN, ERR_IO, "truncate %s: %s", path, strerror(errno));
    }
    if (err == ERR_OK && fsync(fd) < 0) {
        err = disk_error(errno, "sync", path);
    }
    close(fd);
    return err == ERR_OK ? disk_parent_sync(path) : err;
}

enum err disk_file_punch(const char *path, uint64_t offset, uint64_t bytes)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return disk_error(errno, "open", path);
    }
    int rc = disk_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
    enum err err = rc < 0 ? disk_error(errno, "punch a hole into", path) : ERR_OK;
    close(fd);
    return err;
}

enum err disk_file_remove(const char *path)
{
    if (unlink(path) < 0 && errno != ENOENT) {
        return disk_error(errno, "remove", path);
    }
    return disk_parent_sync(path);
}
