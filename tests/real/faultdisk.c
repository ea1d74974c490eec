/* faultdisk: a file system that passes everything through to a directory, and fails on demand. It stands under one
 * daemon's data directory in tests/real/disk.py, where a real disk would.
 *
 *   faultdisk DIR MOUNTPOINT      runs until it is unmounted
 *
 * Commands are lines written to MOUNTPOINT/.fault (it stands in no listing); reading it tells how often each fault was
 * done.
 *
 *   KIND PART COUNT [MS]   the next COUNT operations of that kind on files whose path holds PART fail:
 *     read-eio  write-eio  sync-eio   the operation fails with EIO; a failed sync also loses what it should have kept
 *     write-short                     half of it is written, and said so
 *     write-lost                      said to be done, and not done
 *     write-stale                     said to be done; its middle sector keeps its old contents
 *     read-rot                        one byte comes back changed
 *     sync-lost                       said to be done, and not done
 *     hang                            answered after MS ms
 *   clear                  forgets all faults; what hangs goes on
 *   cut SEED               the power goes: of each sector written since its file was last synced, any of its contents
 * since then may be what is kept, as SEED chooses; every later operation fails with EIO
 *
 * So it has what a disk with a volatile cache has and a loop device does not: a write that was never synced can be
 * lost. Names, lengths and reservations are durable at once. Each write keeps what it replaces until its file is
 * synced, at most PENDING_BYTES_MAX a file; the oldest beyond that count as written back. One lock holds all of it:
 * this is a test's disk. */
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define SECTOR_BYTES      512u
#define PATH_BYTES        4096u
#define RULES             16u
#define THREADS           16u
#define PENDING_BYTES_MAX (64u << 20)
#define CONTROL           "/.fault"

enum kind { READ_EIO, WRITE_EIO, SYNC_EIO, WRITE_SHORT, WRITE_LOST, WRITE_STALE, READ_ROT, SYNC_LOST, HANG, KINDS };
static const char *const kind_names[KINDS] = {"read-eio",    "write-eio", "sync-eio",  "write-short", "write-lost",
                                              "write-stale", "read-rot",  "sync-lost", "hang"};

struct rule {
    enum kind kind;
    char part[128];
    unsigned count, ms;
};

/* What a write replaced. `old` is as long as the write, zeros where the file ended. */
struct pending {
    struct pending *older;
    off_t offset;
    size_t bytes;
    unsigned char old[];
};

/* A file that is open or has unsynced writes, by inode. */
struct file {
    struct file *next;
    ino_t inode;
    int fd; /* our own, for putting back */
    unsigned users;
    struct pending *newest;
    size_t pending_bytes;
};

struct handle {
    struct file *file;
    int fd;
    char path[PATH_BYTES];
};

static char base[PATH_BYTES / 2];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static struct rule rules[RULES];
static unsigned rule_count, generation, done[KINDS];
static bool dead; /* the power went */
static struct file *files;

static void full(const char *path, char ret[PATH_BYTES])
{
    snprintf(ret, PATH_BYTES, "%s%s", base, path);
}

static int result(int rc)
{
    return rc < 0 ? -errno : rc;
}

/* ---- faults ---- */

/* Takes one fault of this kind for the path. */
static bool strikes(enum kind kind, const char *path, unsigned *ret_ms)
{
    for (unsigned i = 0; i < rule_count; i++) {
        struct rule *rule = &rules[i];
        if (rule->kind == kind && rule->count > 0 && strstr(path, rule->part) != NULL) {
            rule->count--;
            done[kind]++;
            *ret_ms = rule->ms;
            return true;
        }
    }
    return false;
}

static bool strike(enum kind kind, const char *path)
{
    unsigned ms;
    return strikes(kind, path, &ms);
}

/* Takes the lock; first waits when the disk is to hang, until then or until `clear`. -EIO when the power went. */
static int enter(const char *path)
{
    unsigned ms = 0;
    pthread_mutex_lock(&lock);
    if (strikes(HANG, path, &ms)) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += ms / 1000 + (until.tv_nsec + ms % 1000 * 1000000l) / 1000000000l;
        until.tv_nsec = (until.tv_nsec + ms % 1000 * 1000000l) % 1000000000l;
        unsigned before = generation;
        while (generation == before && pthread_cond_timedwait(&changed, &lock, &until) == 0) {}
    }
    if (dead) {
        pthread_mutex_unlock(&lock);
        return -EIO;
    }
    return 0;
}

static int leave(int rc)
{
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- what is not yet synced ---- */

static struct file *file_of(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return NULL;
    }
    for (struct file *file = files; file != NULL; file = file->next) {
        if (file->inode == info.st_ino) {
            return file;
        }
    }
    struct file *file = calloc(1, sizeof *file);
    if (file != NULL) {
        file->inode = info.st_ino;
        file->fd = -1;
        file->next = files;
        files = file;
    }
    return file;
}

static void pending_drop(struct file *file)
{
    while (file->newest != NULL) {
        struct pending *older = file->newest->older;
        free(file->newest);
        file->newest = older;
    }
    file->pending_bytes = 0;
}

static void file_put(struct file *file)
{
    if (file->users > 0 || file->newest != NULL) {
        return;
    }
    struct file **at = &files;
    while (*at != file) {
        at = &(*at)->next;
    }
    *at = file->next;
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file);
}

/* The oldest go until there is room for `bytes`. */
static void pending_trim(struct file *file, size_t bytes)
{
    while (file->newest != NULL && file->pending_bytes + bytes > PENDING_BYTES_MAX) {
        struct pending **last = &file->newest;
        while ((*last)->older != NULL) {
            last = &(*last)->older;
        }
        file->pending_bytes -= (*last)->bytes;
        free(*last);
        *last = NULL;
    }
}

static int pending_add(struct file *file, off_t offset, size_t bytes)
{
    struct pending *pending = calloc(1, sizeof *pending + bytes);
    if (pending == NULL) {
        return -ENOMEM;
    }
    if (pread(file->fd, pending->old, bytes, offset) < 0) {
        int number = errno;
        free(pending);
        return -number;
    }
    pending_trim(file, bytes);
    pending->offset = offset;
    pending->bytes = bytes;
    pending->older = file->newest;
    file->newest = pending;
    file->pending_bytes += bytes;
    return 0;
}

/* Puts [from, to) of a replaced piece back, not beyond the file's end. */
static void put_back(const struct file *file, const struct pending *pending, off_t from, off_t to)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0 || from >= info.st_size) {
        return;
    }
    to = to < info.st_size ? to : info.st_size;
    if (pwrite(file->fd, pending->old + (from - pending->offset), (size_t)(to - from), from) != to - from) {
        fprintf(stderr, "faultdisk: cannot put back: %s\n", strerror(errno));
        abort();
    }
}

/* All of it is lost, newest first. */
static void pending_lose(struct file *file)
{
    for (struct pending *p = file->newest; p != NULL; p = p->older) {
        put_back(file, p, p->offset, p->offset + (off_t)p->bytes);
    }
    pending_drop(file);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* Which of a sector's contents since the last sync survives: going back in time, each with an even chance. True when it
 * is decided that a newer one did; *seen is a small table of such sectors. */
struct survivors {
    uint64_t *sectors;
    size_t count, capacity;
};

static bool survived(const struct survivors *s, uint64_t sector)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->sectors[i] == sector) {
            return true;
        }
    }
    return false;
}

static void survive(struct survivors *s, uint64_t sector)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity == 0 ? 64 : s->capacity * 2;
        s->sectors = realloc(s->sectors, s->capacity * sizeof *s->sectors);
        if (s->sectors == NULL) {
            abort();
        }
    }
    s->sectors[s->count++] = sector;
}

static void pending_cut(struct file *file, uint64_t seed)
{
    struct survivors kept = {0};
    for (struct pending *p = file->newest; p != NULL; p = p->older) {
        off_t end = p->offset + (off_t)p->bytes;
        for (off_t at = p->offset; at < end;) {
            uint64_t sector = (uint64_t)at / SECTOR_BYTES;
            off_t to = (off_t)((sector + 1) * SECTOR_BYTES);
            to = to < end ? to : end;
            seed = mix(seed + 0x9e3779b97f4a7c15ull);
            if (!survived(&kept, sector)) {
                if (seed & 1) {
                    survive(&kept, sector);
                } else {
                    put_back(file, p, at, to);
                }
            }
            at = to;
        }
    }
    free(kept.sectors);
    pending_drop(file);
}

/* ---- commands ---- */

static void command_cut(uint64_t seed)
{
    for (struct file *file = files; file != NULL; file = file->next) {
        pending_cut(file, mix(seed ^ file->inode));
    }
    dead = true;
}

static bool command_rule(const char *line)
{
    struct rule rule = {0};
    char name[32];
    if (rule_count == RULES || sscanf(line, "%31s %127s %u %u", name, rule.part, &rule.count, &rule.ms) < 3) {
        return false;
    }
    for (rule.kind = 0; rule.kind < KINDS; rule.kind++) {
        if (strcmp(kind_names[rule.kind], name) == 0) {
            rules[rule_count++] = rule;
            return true;
        }
    }
    return false;
}

static int control_write(const char *data, size_t bytes)
{
    char line[256];
    unsigned long long seed;
    if (bytes >= sizeof line) {
        return -EINVAL;
    }
    memcpy(line, data, bytes);
    line[bytes] = 0;
    bool known = true;
    pthread_mutex_lock(&lock);
    if (strncmp(line, "clear", 5) == 0) {
        rule_count = 0;
    } else if (sscanf(line, "cut %llu", &seed) == 1) {
        command_cut(seed);
    } else {
        known = command_rule(line);
    }
    generation++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return known ? (int)bytes : -EINVAL;
}

static int control_read(char *ret, size_t bytes, off_t offset)
{
    char text[512];
    size_t length = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < KINDS; i++) {
        length += (size_t)snprintf(text + length, sizeof text - length, "%s %u\n", kind_names[i], done[i]);
    }
    pthread_mutex_unlock(&lock);
    if ((size_t)offset >= length) {
        return 0;
    }
    bytes = bytes < length - (size_t)offset ? bytes : length - (size_t)offset;
    memcpy(ret, text + offset, bytes);
    return (int)bytes;
}

static bool is_control(const char *path)
{
    return strcmp(path, CONTROL) == 0;
}

/* ---- names ---- */

static int fd_getattr(const char *path, struct stat *ret, struct fuse_file_info *info)
{
    char at[PATH_BYTES];
    (void)info;
    full(path, at);
    if (is_control(path)) {
        memset(ret, 0, sizeof *ret);
        ret->st_mode = S_IFREG | 0600;
        ret->st_nlink = 1;
        return 0;
    }
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(lstat(at, ret)));
}

static int fd_readdir(const char *path, void *out, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
                      enum fuse_readdir_flags flags)
{
    char at[PATH_BYTES];
    (void)offset;
    (void)info;
    (void)flags;
    full(path, at);
    int rc = enter(path);
    if (rc < 0) {
        return rc;
    }
    DIR *list = opendir(at);
    if (list == NULL) {
        return leave(-errno);
    }
    for (struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list)) {
        if (fill(out, entry->d_name, NULL, 0, 0) != 0) {
            break;
        }
    }
    closedir(list);
    return leave(0);
}

static int fd_mkdir(const char *path, mode_t mode)
{
    char at[PATH_BYTES];
    full(path, at);
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(mkdir(at, mode)));
}

static int fd_rmdir(const char *path)
{
    char at[PATH_BYTES];
    full(path, at);
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(rmdir(at)));
}

/* What an unlinked file had unsynced is of no interest any more. */
static int fd_unlink(const char *path)
{
    char at[PATH_BYTES];
    struct stat info;
    full(path, at);
    int rc = enter(path);
    if (rc < 0) {
        return rc;
    }
    bool last = lstat(at, &info) == 0 && info.st_nlink == 1;
    rc = result(unlink(at));
    for (struct file *file = files; rc == 0 && last && file != NULL; file = file->next) {
        if (file->inode == info.st_ino) {
            pending_drop(file);
            file_put(file);
            break;
        }
    }
    return leave(rc);
}

static int fd_rename(const char *from, const char *to, unsigned flags)
{
    char at[PATH_BYTES], target[PATH_BYTES];
    full(from, at);
    full(to, target);
    int rc = enter(from);
    return rc < 0 ? rc : leave(result(renameat2(AT_FDCWD, at, AT_FDCWD, target, flags)));
}

static int fd_link(const char *from, const char *to)
{
    char at[PATH_BYTES], target[PATH_BYTES];
    full(from, at);
    full(to, target);
    int rc = enter(from);
    return rc < 0 ? rc : leave(result(link(at, target)));
}

static int fd_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
    char at[PATH_BYTES];
    (void)info;
    full(path, at);
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(chmod(at, mode)));
}

static int fd_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
    char at[PATH_BYTES];
    (void)info;
    full(path, at);
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(utimensat(AT_FDCWD, at, times, AT_SYMLINK_NOFOLLOW)));
}

static int fd_truncate(const char *path, off_t bytes, struct fuse_file_info *info)
{
    char at[PATH_BYTES];
    (void)info;
    full(path, at);
    if (is_control(path)) {
        return 0;
    }
    int rc = enter(path);
    return rc < 0 ? rc : leave(result(truncate(at, bytes)));
}

static int fd_statfs(const char *path, struct statvfs *ret)
{
    (void)path;
    return result(statvfs(base, ret));
}

/* ---- files ---- */

static int handle_open(const char *path, int flags, mode_t mode, struct fuse_file_info *info)
{
    char at[PATH_BYTES];
    struct handle *handle = calloc(1, sizeof *handle);
    if (handle == NULL) {
        return -ENOMEM;
    }
    full(path, at);
    snprintf(handle->path, sizeof handle->path, "%s", path);
    handle->fd = open(at, (flags & ~(O_DIRECT | O_APPEND)) | O_CLOEXEC, mode);
    handle->file = handle->fd < 0 ? NULL : file_of(handle->fd);
    if (handle->file != NULL && handle->file->fd < 0) {
        handle->file->fd = open(at, O_RDWR | O_CLOEXEC);
    }
    if (handle->file == NULL || handle->file->fd < 0) {
        int number = errno;
        if (handle->fd >= 0) {
            close(handle->fd);
        }
        free(handle);
        return -number;
    }
    handle->file->users++;
    info->fh = (uint64_t)(uintptr_t)handle;
    info->direct_io = 1; /* each read and write comes here, at once and as it was made */
    return 0;
}

static struct handle *handle_of(const struct fuse_file_info *info)
{
    return (struct handle *)(uintptr_t)info->fh;
}

static int fd_open(const char *path, struct fuse_file_info *info)
{
    if (is_control(path)) {
        info->direct_io = 1;
        return 0;
    }
    int rc = enter(path);
    return rc < 0 ? rc : leave(handle_open(path, info->flags, 0, info));
}

static int fd_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
    int rc = enter(path);
    return rc < 0 ? rc : leave(handle_open(path, info->flags | O_CREAT, mode, info));
}

static int fd_release(const char *path, struct fuse_file_info *info)
{
    if (is_control(path)) {
        return 0;
    }
    struct handle *handle = handle_of(info);
    pthread_mutex_lock(&lock);
    close(handle->fd);
    handle->file->users--;
    file_put(handle->file);
    pthread_mutex_unlock(&lock);
    free(handle);
    return 0;
}

static int fd_read(const char *path, char *ret, size_t bytes, off_t offset, struct fuse_file_info *info)
{
    if (is_control(path)) {
        return control_read(ret, bytes, offset);
    }
    struct handle *handle = handle_of(info);
    int rc = enter(handle->path);
    if (rc < 0) {
        return rc;
    }
    if (strike(READ_EIO, handle->path)) {
        return leave(-EIO);
    }
    ssize_t got = pread(handle->fd, ret, bytes, offset);
    if (got > 0 && strike(READ_ROT, handle->path)) {
        ret[got / 2] ^= 0x10;
    }
    return leave(got < 0 ? -errno : (int)got);
}

/* Writes all but one sector in the middle. */
static ssize_t write_stale(int fd, const char *data, size_t bytes, off_t offset)
{
    size_t from = bytes / 2 / SECTOR_BYTES * SECTOR_BYTES, to = from + SECTOR_BYTES;
    ssize_t head = pwrite(fd, data, from, offset);
    ssize_t tail = to < bytes ? pwrite(fd, data + to, bytes - to, offset + (off_t)to) : 0;
    return head < 0 || tail < 0 ? -1 : (ssize_t)bytes;
}

static int fd_write(const char *path, const char *data, size_t bytes, off_t offset, struct fuse_file_info *info)
{
    if (is_control(path)) {
        return control_write(data, bytes);
    }
    struct handle *handle = handle_of(info);
    int rc = enter(handle->path);
    if (rc < 0) {
        return rc;
    }
    if (strike(WRITE_EIO, handle->path)) {
        return leave(-EIO);
    }
    if (strike(WRITE_LOST, handle->path)) {
        return leave((int)bytes);
    }
    if (bytes > 1 && strike(WRITE_SHORT, handle->path)) {
        bytes = bytes > 2 * SECTOR_BYTES ? bytes / 2 / SECTOR_BYTES * SECTOR_BYTES : bytes / 2;
    }
    rc = pending_add(handle->file, offset, bytes);
    if (rc < 0) {
        return leave(rc);
    }
    ssize_t put = strike(WRITE_STALE, handle->path) ? write_stale(handle->fd, data, bytes, offset)
                                                    : pwrite(handle->fd, data, bytes, offset);
    return leave(put < 0 ? -errno : (int)put);
}

static int fd_fsync(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    (void)data_only;
    struct handle *handle = handle_of(info);
    int rc = enter(handle->path);
    if (rc < 0) {
        return rc;
    }
    if (strike(SYNC_EIO, handle->path)) {
        pending_lose(handle->file);
        return leave(-EIO);
    }
    if (!strike(SYNC_LOST, handle->path)) {
        pending_drop(handle->file);
    }
    return leave(0);
}

static int fd_fsyncdir(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)data_only;
    (void)info;
    int rc = enter(path);
    return rc < 0 ? rc : leave(strike(SYNC_EIO, path) ? -EIO : 0);
}

static int fd_fallocate(const char *path, int mode, off_t offset, off_t bytes, struct fuse_file_info *info)
{
    (void)path;
    struct handle *handle = handle_of(info);
    int rc = enter(handle->path);
    return rc < 0 ? rc : leave(result(fallocate(handle->fd, mode, offset, bytes)));
}

/* Without asynchronous direct transfers: the kernel would turn a short one of those into EIO. */
static void *fd_init(struct fuse_conn_info *conn, struct fuse_config *config)
{
    conn->want &= ~FUSE_CAP_ASYNC_DIO;
    config->use_ino = 1;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = fd_init,
    .getattr = fd_getattr,
    .readdir = fd_readdir,
    .mkdir = fd_mkdir,
    .rmdir = fd_rmdir,
    .unlink = fd_unlink,
    .rename = fd_rename,
    .link = fd_link,
    .chmod = fd_chmod,
    .utimens = fd_utimens,
    .truncate = fd_truncate,
    .statfs = fd_statfs,
    .open = fd_open,
    .create = fd_create,
    .release = fd_release,
    .read = fd_read,
    .write = fd_write,
    .fsync = fd_fsync,
    .fsyncdir = fd_fsyncdir,
    .fallocate = fd_fallocate,
};

int main(int argc, char **argv)
{
    if (argc != 3 || argv[1][0] != '/' || strlen(argv[1]) >= sizeof base) {
        fprintf(stderr, "usage: faultdisk /DIR MOUNTPOINT\n");
        return 2;
    }
    strcpy(base, argv[1]);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &monotonic);
    char program[] = "faultdisk", option[] = "-o", mount_options[] = "fsname=faultdisk,default_permissions";
    char *arguments[] = {program, option, mount_options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, arguments);
    struct fuse *fuse = fuse_new(&args, &operations, sizeof operations, NULL);
    if (fuse == NULL || fuse_mount(fuse, argv[2]) != 0) {
        return 1;
    }
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    fuse_loop_cfg_set_max_threads(config, THREADS);
    int rc = fuse_loop_mt(fuse, config);
    fuse_loop_cfg_destroy(config);
    fuse_unmount(fuse);
    fuse_destroy(fuse);
    return rc != 0;
}
