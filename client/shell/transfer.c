/* Trees up and down: one walker that lists and makes folders, and a few threads that move files. A folder's contents go
 * into the destination, so that repeating a command changes nothing. A file that fails is told and the others go on.
 *
 * Bounded: the queue between walker and threads holds QUEUE_JOBS files; bulk memory is the core's window. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"

#define QUEUE_JOBS   1024u
#define THREADS      16u
#define THREADS_MOST 64u
#define THREAD_STACK (512ul << 10)

struct job {
    char *local;  /* path */
    char *remote; /* path for people */
    char *name;
    uint64_t parent;
    uint64_t reported; /* bytes told to progress so far */
};

struct transfer {
    struct cairn *c;
    bool upload;
    const char *workspace;
    const struct cairn_transfer *options;
    pthread_mutex_t lock;
    pthread_cond_t room, work;
    struct job *jobs[QUEUE_JOBS];
    uint32_t head, count;
    bool ended; /* the walker is through */
    struct cairn_moved moved;
    struct cairn_progress progress;
    struct cairn_error first;
};

static struct job *job_create(const char *local, const char *remote, const char *name, uint64_t parent)
{
    struct job *job = mem_alloc(sizeof *job);
    job->local = strdup(local);
    job->remote = strdup(remote);
    job->name = strdup(name);
    job->parent = parent;
    CHECK(job->local != NULL && job->remote != NULL && job->name != NULL);
    return job;
}

static void job_destroy(struct job *job)
{
    free(job->local);
    free(job->remote);
    free(job->name);
    free(job);
}

static char *path_join(const char *folder, const char *name)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = mem_alloc(bytes);
    size_t n = strlen(folder);
    snprintf(path, bytes, n > 0 && folder[n - 1] == '/' ? "%s%s" : "%s/%s", folder, name);
    return path;
}

/* ---- counting ---- */

static void transfer_failed(struct transfer *t, const char *path, const struct cairn_error *error)
{
    pthread_mutex_lock(&t->lock);
    t->moved.failed++;
    if (t->first.code == 0) {
        t->first = *error;
    }
    if (t->options != NULL && t->options->failure != NULL) {
        t->options->failure(t->options->context, path, error);
    }
    pthread_mutex_unlock(&t->lock);
}

/* Under the lock. */
static void transfer_report(struct transfer *t, const char *path)
{
    if (t->options != NULL && t->options->progress != NULL) {
        t->progress.path = path;
        t->options->progress(t->options->context, &t->progress);
    }
}

struct job_progress {
    struct transfer *t;
    struct job *job;
};

static void job_bytes(void *context, uint64_t bytes)
{
    struct job_progress *progress = context;
    struct transfer *t = progress->t;
    pthread_mutex_lock(&t->lock);
    t->progress.bytes += bytes - progress->job->reported; /* wraps rightly when a file is read again */
    progress->job->reported = bytes;
    transfer_report(t, progress->job->remote);
    pthread_mutex_unlock(&t->lock);
}

static void moved_sum(struct cairn_moved *to, const struct cairn_moved *from)
{
    to->files += from->files;
    to->folders += from->folders;
    to->symlinks += from->symlinks;
    to->failed += from->failed;
    to->bytes += from->bytes;
    to->chunks += from->chunks;
    to->chunks_present += from->chunks_present;
    to->bytes_sent += from->bytes_sent;
    to->safe_losses = from->safe_losses < to->safe_losses ? from->safe_losses : to->safe_losses;
}

/* ---- threads ---- */

static void job_run(struct transfer *t, struct job *job)
{
    struct api_target target = {
        .workspace = t->workspace,
        .parent = job->parent,
        .name = job->name,
        .what = job->remote,
    };
    struct cairn_moved moved = {.safe_losses = UINT32_MAX};
    struct cairn_error error = {0};
    struct job_progress progress = {.t = t, .job = job};
    int result = t->upload ? api_put_file(t->c, job->local, &target, job_bytes, &progress, &moved, &error)
                           : api_get_file(t->c, &target, job->local, job_bytes, &progress, &moved, &error);
    if (result == 0) {
        job_bytes(&progress, moved.bytes);
    } else {
        transfer_failed(t, job->local, &error);
    }
    pthread_mutex_lock(&t->lock);
    moved_sum(&t->moved, &moved);
    t->progress.files += result == 0;
    transfer_report(t, job->remote);
    pthread_mutex_unlock(&t->lock);
}

static void *transfer_thread(void *context)
{
    struct transfer *t = context;
    pthread_mutex_lock(&t->lock);
    while (true) {
        while (t->count == 0 && !t->ended) {
            pthread_cond_wait(&t->work, &t->lock);
        }
        if (t->count == 0) {
            break;
        }
        struct job *job = t->jobs[t->head];
        t->head = (t->head + 1) % QUEUE_JOBS;
        t->count--;
        pthread_cond_signal(&t->room);
        pthread_mutex_unlock(&t->lock);
        job_run(t, job);
        job_destroy(job);
        pthread_mutex_lock(&t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static void transfer_queue(struct transfer *t, struct job *job, uint64_t bytes)
{
    pthread_mutex_lock(&t->lock);
    while (t->count == QUEUE_JOBS) {
        pthread_cond_wait(&t->room, &t->lock);
    }
    t->jobs[(t->head + t->count++) % QUEUE_JOBS] = job;
    t->progress.files_known++;
    t->progress.bytes_known += bytes;
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

/* Runs `walk` with threads beside it, then sums up. The first failure is the result. */
static int transfer_run(struct transfer *t, void (*walk)(struct transfer *, void *), void *context, unsigned threads,
                        struct cairn_moved *ret_moved, struct cairn_error *error)
{
    pthread_t ids[THREADS_MOST];
    unsigned started = 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->room, NULL);
    pthread_cond_init(&t->work, NULL);
    t->moved.safe_losses = UINT32_MAX;
    unsigned want = threads == 0 ? THREADS : threads > THREADS_MOST ? THREADS_MOST : threads;
    while (started < want && pthread_create(&ids[started], &attributes, transfer_thread, t) == 0) {
        started++;
    }
    pthread_attr_destroy(&attributes);
    if (started > 0) {
        walk(t, context);
    }
    pthread_mutex_lock(&t->lock);
    t->ended = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->room);
    pthread_cond_destroy(&t->work);
    if (ret_moved != NULL) {
        moved_sum(ret_moved, &t->moved);
    }
    if (started == 0) {
        return api_fail(error, ERR_NO_MEMORY, "no thread can be started");
    }
    if (t->first.code != 0 && error != NULL) {
        *error = t->first;
    }
    return t->first.code;
}

/* ---- up ---- */

struct up_root {
    const char *local, *remote;
    uint64_t folder;
};

static void up_failed(struct transfer *t, const char *path, int number)
{
    struct cairn_error error;
    enum err err = number == EACCES ? ERR_DENIED : number == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    (void)api_fail(&error, err, "%s: %s", path, strerror(number));
    transfer_failed(t, path, &error);
}

static void up_symlink(struct transfer *t, const char *local, const char *remote, const char *name, uint64_t parent,
                       const struct stat *info)
{
    char target[CAIRN_PATH_BYTES];
    struct cairn_error error;
    uint64_t file;
    ssize_t bytes = readlink(local, target, sizeof target - 1);
    if (bytes < 0) {
        up_failed(t, local, errno);
        return;
    }
    target[bytes] = '\0';
    int64_t mtime = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
    int result = api_mkdir_in(t->c, t->workspace, parent, name, 0777, mtime, target, &file, &error);
    if (result == ERR_EXISTS) {
        struct cairn_entry *entry = mem_alloc(sizeof *entry);
        struct cairn_error ignored;
        bool same = cairn_stat(t->c, remote, entry, &ignored) == 0 && entry->kind == CAIRN_SYMLINK &&
                    strcmp(entry->target, target) == 0;
        result = same ? 0 : result;
        free(entry);
    }
    if (result != 0) {
        transfer_failed(t, local, &error);
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->moved.symlinks++;
    pthread_mutex_unlock(&t->lock);
}

static void up_folder(struct transfer *t, const char *local, const char *remote, uint64_t folder, unsigned depth);

static void up_entry(struct transfer *t, const char *local, const char *remote, const char *name, uint64_t parent,
                     unsigned depth)
{
    struct stat info;
    struct cairn_error error;
    if (lstat(local, &info) != 0) {
        up_failed(t, local, errno);
    } else if (S_ISLNK(info.st_mode)) {
        up_symlink(t, local, remote, name, parent, &info);
    } else if (S_ISDIR(info.st_mode)) {
        uint64_t folder = 0;
        int64_t mtime = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
        if (depth == LIMIT_PATH_DEPTH) {
            (void)api_fail(&error, ERR_TOO_LARGE, "%s: deeper than %d folders", local, LIMIT_PATH_DEPTH);
            transfer_failed(t, local, &error);
        } else if (api_mkdir_in(t->c, t->workspace, parent, name, info.st_mode & 0777, mtime, NULL, &folder, &error)) {
            transfer_failed(t, local, &error);
        } else {
            up_folder(t, local, remote, folder, depth + 1);
        }
    } else if (S_ISREG(info.st_mode)) {
        transfer_queue(t, job_create(local, remote, name, parent), (uint64_t)info.st_size);
    } else {
        (void)api_fail(&error, ERR_INVALID, "%s: neither file, folder nor symlink; left out", local);
        transfer_failed(t, local, &error);
    }
}

/* In order of names, so that runs are alike. Depth is bounded by LIMIT_PATH_DEPTH. */
static void up_folder(struct transfer *t, const char *local, const char *remote, uint64_t folder, unsigned depth)
{
    struct dirent **names = NULL;
    int count = scandir(local, &names, NULL, alphasort);
    if (count < 0) {
        up_failed(t, local, errno);
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->moved.folders++;
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            char *below = path_join(local, name), *remote_below = path_join(remote, name);
            up_entry(t, below, remote_below, name, folder, depth);
            free(below);
            free(remote_below);
        }
        free(names[i]);
    }
    free(names);
}

static void up_walk(struct transfer *t, void *context)
{
    const struct up_root *root = context;
    up_folder(t, root->local, root->remote, root->folder, 0);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

/* A single file: to `path`, or into it where that is a folder or ends in '/'. */
static int place_file(struct cairn *c, const char *local, const struct api_path *path, uint64_t *ret_parent,
                      const char **ret_name, struct cairn_error *error)
{
    struct api_place place;
    int result = api_locate(c, path, path->depth, &place, error);
    if (result != 0) {
        return result;
    }
    bool into = path->slash || (place.found && place.entry.kind == CAIRN_FOLDER);
    *ret_name = into ? base_name(local) : path->components[path->depth - 1];
    return api_folder(c, path, into ? path->depth : path->depth - 1, ret_parent, error);
}

struct one_progress {
    const struct cairn_transfer *options;
    struct cairn_progress progress;
};

static void one_bytes(void *context, uint64_t bytes)
{
    struct one_progress *one = context;
    one->progress.bytes = bytes;
    if (one->options != NULL && one->options->progress != NULL) {
        one->options->progress(one->options->context, &one->progress);
    }
}

static int put_path(struct cairn *c, const char *local, const struct api_path *path, const struct stat *info,
                    const struct cairn_transfer *options, struct cairn_moved *moved, struct cairn_error *error)
{
    if (S_ISDIR(info->st_mode)) {
        struct up_root root = {.local = local, .remote = path->text};
        int result = api_folder(c, path, path->depth, &root.folder, error);
        struct transfer *t = mem_alloc(sizeof *t);
        *t = (struct transfer){.c = c, .upload = true, .workspace = path->workspace, .options = options};
        if (result == 0) {
            result = transfer_run(t, up_walk, &root, options == NULL ? 0 : options->threads, moved, error);
        }
        free(t);
        return result;
    }
    struct api_target target = {.workspace = path->workspace, .what = path->text};
    struct one_progress one = {.options = options};
    one.progress.files_known = 1;
    one.progress.bytes_known = (uint64_t)info->st_size;
    one.progress.path = path->text;
    int result = place_file(c, local, path, &target.parent, &target.name, error);
    return result != 0 ? result : api_put_file(c, local, &target, one_bytes, &one, moved, error);
}

int cairn_put(struct cairn *c, const char *local, const char *remote, const struct cairn_transfer *options,
              struct cairn_moved *moved, struct cairn_error *error)
{
    struct stat info;
    struct api_path path;
    if (stat(local, &info) != 0) {
        enum err err = errno == ENOENT ? ERR_NOT_FOUND : errno == EACCES ? ERR_DENIED : ERR_IO;
        return api_fail(error, err, "%s: %s", local, strerror(errno));
    }
    int result = api_path_parse(c, remote, &path, error);
    if (result == 0) {
        result = put_path(c, local, &path, &info, options, moved, error);
        api_path_deinit(&path);
    }
    return result;
}

int cairn_put_stream(struct cairn *c, cairn_read_fn *read, void *context, const char *remote, struct cairn_moved *moved,
                     struct cairn_error *error)
{
    struct api_path path;
    int result = api_path_parse(c, remote, &path, error);
    if (result != 0) {
        return result;
    }
    struct api_target target = {.workspace = path.workspace, .what = path.text};
    if (path.slash || path.depth == 0) {
        result = api_fail(error, ERR_INVALID, "%s: a stream needs the name of a file to go to", remote);
    } else {
        target.name = path.components[path.depth - 1];
        result = api_folder(c, &path, path.depth - 1, &target.parent, error);
    }
    if (result == 0) {
        result = api_put_feed(c, read, context, &target, moved, error);
    }
    api_path_deinit(&path);
    return result;
}

/* ---- down ---- */

struct down_list {
    struct cairn_entry *entries;
    unsigned long count, capacity;
};

static int down_collect(void *context, const struct cairn_entry *entry)
{
    struct down_list *list = context;
    list->entries = mem_grow(list->entries, &list->capacity, list->count + 1, sizeof *list->entries);
    list->entries[list->count++] = *entry;
    return 0;
}

static void down_symlink(struct transfer *t, const char *local, const struct cairn_entry *entry)
{
    char have[CAIRN_PATH_BYTES];
    ssize_t bytes = readlink(local, have, sizeof have - 1);
    bool same = bytes >= 0 && (size_t)bytes == strlen(entry->target) && memcmp(have, entry->target, (size_t)bytes) == 0;
    if (!same && (bytes >= 0 && unlink(local) != 0)) {
        up_failed(t, local, errno);
        return;
    }
    if (!same && symlink(entry->target, local) != 0) {
        up_failed(t, local, errno);
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->moved.symlinks++;
    pthread_mutex_unlock(&t->lock);
}

static bool name_is_safe(const char *name)
{
    return name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strchr(name, '/') == NULL;
}

static void down_folder(struct transfer *t, const char *remote, const char *local, uint64_t folder, unsigned depth)
{
    struct down_list list = {0};
    struct cairn_error error;
    int result = depth > LIMIT_PATH_DEPTH
                     ? api_fail(&error, ERR_TOO_LARGE, "%s: deeper than %d folders", remote, LIMIT_PATH_DEPTH)
                     : api_list(t->c, t->workspace, folder, remote, down_collect, &list, &error);
    if (result != 0) {
        transfer_failed(t, remote, &error);
    } else if (mkdir(local, 0777) != 0 && errno != EEXIST) {
        up_failed(t, local, errno);
        list.count = 0;
    }
    pthread_mutex_lock(&t->lock);
    t->moved.folders++;
    pthread_mutex_unlock(&t->lock);
    for (unsigned long i = 0; i < list.count; i++) {
        const struct cairn_entry *entry = &list.entries[i];
        char *below = path_join(local, entry->name), *remote_below = path_join(remote, entry->name);
        if (!name_is_safe(entry->name)) {
            (void)api_fail(&error, ERR_ILLEGAL_NAME, "%s: not a name that can be written here", remote_below);
            transfer_failed(t, remote_below, &error);
        } else if (entry->kind == CAIRN_FOLDER) {
            down_folder(t, remote_below, below, entry->id, depth + 1);
        } else if (entry->kind == CAIRN_SYMLINK) {
            down_symlink(t, below, entry);
        } else {
            transfer_queue(t, job_create(below, remote_below, entry->name, folder), entry->bytes);
        }
        free(below);
        free(remote_below);
    }
    free(list.entries);
}

static void down_walk(struct transfer *t, void *context)
{
    const struct up_root *root = context;
    down_folder(t, root->remote, root->local, root->folder, 0);
}

static int get_path(struct cairn *c, const struct api_path *path, const struct api_place *place, const char *local,
                    const struct cairn_transfer *options, struct cairn_moved *moved, struct cairn_error *error)
{
    if (place->entry.kind == CAIRN_FOLDER) {
        struct up_root root = {.local = local, .remote = path->text, .folder = place->entry.id};
        struct transfer *t = mem_alloc(sizeof *t);
        *t = (struct transfer){.c = c, .workspace = path->workspace, .options = options};
        int result = transfer_run(t, down_walk, &root, options == NULL ? 0 : options->threads, moved, error);
        free(t);
        return result;
    }
    if (place->entry.kind == CAIRN_SYMLINK) {
        return api_fail(error, ERR_INVALID, "%s: a symlink to %s; get what it points to", path->text,
                        place->entry.target);
    }
    struct stat info;
    size_t bytes = strlen(local);
    bool into = (bytes > 0 && local[bytes - 1] == '/') || (stat(local, &info) == 0 && S_ISDIR(info.st_mode));
    char *to = into ? path_join(local, place->entry.name) : strdup(local);
    CHECK(to != NULL);
    struct api_target source = {
        .workspace = path->workspace,
        .parent = place->entry.parent,
        .name = path->components[path->depth - 1],
        .what = path->text,
    };
    struct one_progress one = {.options = options};
    one.progress.files_known = 1;
    one.progress.bytes_known = place->entry.bytes;
    one.progress.path = path->text;
    int result = api_get_file(c, &source, to, one_bytes, &one, moved, error);
    free(to);
    return result;
}

int cairn_get(struct cairn *c, const char *remote, const char *local, const struct cairn_transfer *options,
              struct cairn_moved *moved, struct cairn_error *error)
{
    struct api_path path;
    struct api_place place;
    int result = api_path_parse(c, remote, &path, error);
    if (result != 0) {
        return result;
    }
    result = api_locate(c, &path, path.depth, &place, error);
    if (result == 0 && !place.found) {
        result = api_fail(error, ERR_NOT_FOUND, "%s: not found", remote);
    }
    if (result == 0) {
        result = get_path(c, &path, &place, local, options, moved, error);
    }
    api_path_deinit(&path);
    return result;
}

int cairn_get_stream(struct cairn *c, const char *remote, cairn_write_fn *write, void *context,
                     struct cairn_moved *moved, struct cairn_error *error)
{
    struct api_path path;
    struct api_place place;
    int result = api_path_parse(c, remote, &path, error);
    if (result != 0) {
        return result;
    }
    result = api_locate(c, &path, path.depth, &place, error);
    if (result == 0 && !place.found) {
        result = api_fail(error, ERR_NOT_FOUND, "%s: not found", remote);
    } else if (result == 0 && place.entry.kind == CAIRN_FOLDER) {
        result = api_fail(error, ERR_IS_A_FOLDER, "%s: is a folder", remote);
    }
    if (result == 0) {
        struct api_target source = {
            .workspace = path.workspace,
            .parent = place.entry.parent,
            .name = path.components[path.depth - 1],
            .what = path.text,
        };
        result = api_get_feed(c, &source, write, context, moved, NULL, error);
    }
    api_path_deinit(&path);
    return result;
}
