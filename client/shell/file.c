/* Contents of one file: what the caller's thread does for the core while a file is uploaded or downloaded: it opens and
 * compares the source, reads streams, writes and syncs what arrives.
 *
 * A file on its way up is compared before it is committed with what it was when it was opened; one that changed is read
 * again, a few times, and never committed torn. A file on its way down is written under a temporary name beside its
 * place, synced and renamed: whole or not there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

#define CHANGED_TRIES 5
#define GET_TRIES     3
#define SETTLE_LOOKS  20u /* a millisecond apart; a tick of the kernel is 1 to 10 */

static enum err err_of_errno(int number)
{
    switch (number) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_ROOM;
    case EISDIR:
        return ERR_IS_A_FOLDER;
    case ENOTDIR:
        return ERR_NOT_A_FOLDER;
    case EEXIST:
        return ERR_EXISTS;
    default:
        return ERR_IO;
    }
}

/* ---- upload ---- */

/* What an upload reads from. */
struct upload {
    struct cairn *c;
    const struct api_target *target;
    const char *local; /* NULL: a stream */
    int fd;
    struct stat before;
    cairn_read_fn *read;
    void *read_context;
    bool read_any;
    api_bytes_fn *progress;
    void *progress_context;
    enum err local_err;
    int local_errno;
    uint64_t content; /* for the history: of all bytes that were fed, or of the file; 0: not looked at */
};

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void upload_confirm(struct upload *up, uint64_t id)
{
    uint8_t header[4];
    struct stat open_file, named;
    bool same = fstat(up->fd, &open_file) == 0 && stat(up->local, &named) == 0 && same_file(&up->before, &open_file) &&
                same_file(&up->before, &named);
    put_u32(header, same ? ERR_OK : ERR_FILE_CHANGED);
    api_tell(up->c, MESSAGE_CLIENT_CONFIRMED, id, header, sizeof header, (struct slice){0});
}

static void upload_feed(struct upload *up, uint64_t id, uint64_t offset, uint64_t bytes)
{
    struct slice data = slice_alloc(bytes);
    uint64_t got = 0;
    up->read_any = true;
    while (got < bytes && up->local_err == ERR_OK) {
        int64_t n = up->read(up->read_context, data.data + got, bytes - got);
        if (n < 0) {
            up->local_errno = (int)-n;
            up->local_err = err_of_errno((int)-n);
        }
        if (n <= 0) {
            break;
        }
        up->content = api_history_kept(up->c) ? api_content_add(up->content, data.data + got, (size_t)n) : 0;
        got += (uint64_t)n;
    }
    data.bytes = (uint32_t)got;
    uint8_t header[12];
    put_u64(header, offset);
    put_u32(header + 8, up->local_err);
    api_tell(up->c, MESSAGE_CLIENT_FEED, id, header, sizeof header, data);
}

/* Serves the core until the operation is done; false when the runtime has ended. */
static bool upload_serve(struct upload *up, struct api_waiter *waiter, uint64_t id)
{
    while (true) {
        struct api_item *item = api_wait(up->c, waiter);
        uint16_t type = item->type;
        uint64_t a = item->a, b = item->b;
        api_item_free(item);
        switch (type) {
        case MESSAGE_CLIENT_WANT:
            upload_feed(up, id, a, b);
            break;
        case MESSAGE_CLIENT_CONFIRM:
            upload_confirm(up, id);
            break;
        case MESSAGE_CLIENT_PROGRESS:
            if (up->progress != NULL) {
                up->progress(up->progress_context, a);
            }
            break;
        case MESSAGE_CLIENT_DONE:
            return true;
        default:
            return false;
        }
    }
}

static void moved_add(struct cairn_moved *moved, const struct client_op *op)
{
    moved->files++;
    moved->bytes += op->put.stored_bytes;
    moved->chunks += op->counts.chunks;
    moved->chunks_present += op->counts.chunks_present;
    moved->safe_losses = op->put.safe_losses < moved->safe_losses ? op->put.safe_losses : moved->safe_losses;
}

static int upload_result(struct upload *up, const struct client_op *op, struct cairn_moved *moved,
                         struct cairn_error *error)
{
    if (moved != NULL) {
        moved->bytes_sent += op->counts.bytes_sent;
        moved->wire_bytes += op->counts.wire_bytes;
    }
    if (op->err == ERR_OK) {
        if (moved != NULL) {
            moved_add(moved, op);
        }
        return 0;
    }
    if (up->local_err != ERR_OK) {
        return api_fail(error, up->local_err, "%s: reading: %s", up->target->what, strerror(up->local_errno));
    }
    return api_fail(error, op->err, "%s: %s", up->target->what, op->text[0] ? op->text : err_text(op->err));
}

/* Reads the file once for its content's name; 0 when it cannot be read. */
static uint64_t upload_content(const struct upload *up)
{
    enum { BYTES = 1 << 16 };
    uint64_t content = api_content_begin();
    uint8_t *data = mem_alloc(BYTES);
    ssize_t n = 0;
    for (off_t at = 0; (n = pread(up->fd, data, BYTES, at)) > 0; at += n) {
        content = api_content_add(content, data, (size_t)n);
    }
    free(data);
    return n == 0 ? content : 0;
}

static uint64_t upload_invoke(struct upload *up)
{
    struct writer args = {0};
    const struct api_target *target = up->target;
    up->content = api_content_begin();
    api_json_add(&args, "{\"parent\":%llu,\"any_base\":true", (unsigned long long)target->parent);
    api_json_add_string(&args, "workspace", target->workspace);
    api_json_add_string(&args, "path", target->what);
    api_json_add_string(&args, "name", target->name);
    if (up->local != NULL && api_history_kept(up->c)) {
        up->content = upload_content(up);
        api_json_add(&args, ",\"bytes\":%lld", (long long)up->before.st_size);
        api_json_add_content(&args, up->content);
    }
    api_json_add(&args, "}");
    return api_history_invoke(up->c, "put", &args);
}

static void upload_complete(struct upload *up, uint64_t history, const struct client_op *op)
{
    struct writer results = {0};
    if (op->err == ERR_OK) {
        api_json_add(&results, "{\"version\":%llu,\"sequence\":%llu,\"file\":%llu,\"safe_losses\":%u,\"bytes\":%llu",
                     (unsigned long long)op->put.version, (unsigned long long)op->put.sequence,
                     (unsigned long long)op->put.file_id, (unsigned)op->put.safe_losses,
                     (unsigned long long)op->put.stored_bytes);
        api_json_add_content(&results, up->content);
        api_json_add(&results, "}");
    }
    /* A source that changed is found before anything is committed. */
    bool may_have_happened = op->err != ERR_FILE_CHANGED && up->local_err == ERR_OK;
    api_history_complete(up->c, history, "put", may_have_happened, op->err, &results);
}

static int upload_run(struct upload *up, uint32_t file, struct cairn_moved *moved, struct cairn_error *error)
{
    struct client_op *op = client_op_create(CLIENT_PUT, api_id(up->c), up->target->workspace);
    op->put.source = up->local != NULL ? CLIENT_SOURCE_FILE : CLIENT_SOURCE_FEED;
    op->put.file = file;
    op->put.bytes = (uint64_t)up->before.st_size;
    op->put.confirm = up->local != NULL;
    op->put.parent = up->target->parent;
    op->put.name_bytes = (uint32_t)strnlen(up->target->name, LIMIT_NAME_BYTES);
    memcpy(op->put.name, up->target->name, op->put.name_bytes);
    op->put.any_base = true;
    op->put.mode = up->local != NULL ? up->before.st_mode & 0777 : 0644;
    op->put.mtime_ns = (int64_t)up->before.st_mtim.tv_sec * 1000000000 + up->before.st_mtim.tv_nsec;
    uint64_t history = upload_invoke(up);
    struct api_waiter waiter;
    uint64_t id = op->id;
    api_post(up->c, &waiter, op);
    bool done = upload_serve(up, &waiter, id);
    api_finish(up->c, &waiter, done ? op : NULL);
    if (!done) {
        api_history_complete(up->c, history, "put", true, ERR_INTERNAL, &(struct writer){0});
        return api_fail(error, ERR_INTERNAL, "the client's runtime has ended");
    }
    upload_complete(up, history, op);
    int result = upload_result(up, op, moved, error);
    client_op_destroy(op);
    return result;
}

/* Within one tick of the kernel's clock a second write leaves a file's times as the first one set them. So what a file
 * was is taken when its last change lies in a tick that has passed: each later write shows. A file that is written in
 * every tick is taken as it is; it will be seen to change. Returns errno. */
static int stat_settled(int fd, struct stat *ret)
{
    for (unsigned looks = 0;; looks++) {
        struct timespec tick, pause = {.tv_nsec = 1000000};
        clock_gettime(CLOCK_REALTIME_COARSE,
                      &tick); /* before the look: a write after it has this tick or a later one */
        if (fstat(fd, ret) != 0) {
            return errno;
        }
        bool settled = ret->st_ctim.tv_sec != tick.tv_sec || ret->st_ctim.tv_nsec < tick.tv_nsec;
        if (settled || looks == SETTLE_LOOKS) {
            return 0;
        }
        nanosleep(&pause, NULL);
    }
}

static int put_file_once(struct upload *up, struct cairn_moved *moved, struct cairn_error *error)
{
    up->fd = open(up->local, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int reason = up->fd < 0 ? errno : stat_settled(up->fd, &up->before);
    if (reason != 0) {
        if (up->fd >= 0) {
            close(up->fd);
        }
        return api_fail(error, err_of_errno(reason), "%s: %s", up->local, strerror(reason));
    }
    if (!S_ISREG(up->before.st_mode)) {
        close(up->fd);
        return api_fail(error, ERR_INVALID, "%s: neither file, folder nor symlink; left out", up->local);
    }
    uint32_t number = 0;
    enum err err = runtime_user_file_open(up->c->runtime, up->local, &number);
    if (err != ERR_OK) {
        close(up->fd);
        return api_fail(error, err, "%s: cannot be opened for reading", up->local);
    }
    int result = upload_run(up, number, moved, error);
    runtime_user_file_close(up->c->runtime, number);
    close(up->fd);
    return result;
}

int api_put_file(struct cairn *c, const char *local, const struct api_target *target, api_bytes_fn *progress,
                 void *context, struct cairn_moved *moved, struct cairn_error *error)
{
    struct upload up = {
        .c = c,
        .target = target,
        .local = local,
        .progress = progress,
        .progress_context = context,
    };
    int result = ERR_FILE_CHANGED;
    for (int i = 0; i < CHANGED_TRIES && result == ERR_FILE_CHANGED; i++) {
        if (i > 0) {
            struct timespec pause = {.tv_nsec = i * 100000000L};
            nanosleep(&pause, NULL); /* lets the writer finish */
        }
        result = put_file_once(&up, moved, error);
    }
    return result;
}

int api_put_feed(struct cairn *c, cairn_read_fn *read, void *read_context, const struct api_target *target,
                 struct cairn_moved *moved, struct cairn_error *error)
{
    struct upload up = {.c = c, .target = target, .read = read, .read_context = read_context};
    clock_gettime(CLOCK_REALTIME, &up.before.st_mtim);
    return upload_run(&up, 0, moved, error);
}

/* ---- download ---- */

/* Hands what arrives to `write`; after a local failure the operation is cancelled and the rest discarded. */
static bool download_serve(struct cairn *c, struct api_waiter *waiter, uint64_t id, cairn_write_fn *write,
                           void *context, int *ret_errno, uint64_t *ret_content)
{
    while (true) {
        struct api_item *item = api_wait(c, waiter);
        uint16_t type = item->type;
        if (type == MESSAGE_CLIENT_DATA && *ret_errno == 0) {
            *ret_errno = -write(context, item->body.data, item->body.bytes);
            *ret_content = api_history_kept(c) ? api_content_add(*ret_content, item->body.data, item->body.bytes) : 0;
            uint8_t header[8];
            put_u64(header, item->body.bytes);
            uint16_t answer = *ret_errno == 0 ? MESSAGE_CLIENT_ACK : MESSAGE_CLIENT_CANCEL;
            api_tell(c, answer, id, header, sizeof header, (struct slice){0});
        }
        api_item_free(item);
        if (type == MESSAGE_CLIENT_DONE || type == 0) {
            return type != 0;
        }
    }
}

static int download_result(const struct client_op *op, const struct api_target *source, int number,
                           struct cairn_moved *moved, struct cairn_entry *ret_entry, struct cairn_error *error)
{
    if (number != 0) {
        return api_fail(error, err_of_errno(number), "%s: writing: %s", source->what, strerror(number));
    }
    if (op->err != ERR_OK) {
        return api_fail(error, op->err, "%s: %s", source->what, op->text[0] ? op->text : err_text(op->err));
    }
    struct proto_arena arena = {0};
    Cairn__ManifestReply *reply = NULL;
    enum err err = proto_unpack(&cairn__manifest_reply__descriptor, op->get.manifest, &arena, (void **)&reply);
    if (err == ERR_OK) {
        if (ret_entry != NULL) {
            api_entry_read(reply->entry, ret_entry);
        }
        if (moved != NULL) {
            moved->files++;
            moved->bytes += reply->entry->bytes;
            moved->chunks += op->counts.chunks;
            moved->wire_bytes += op->counts.wire_bytes;
        }
    }
    proto_arena_deinit(&arena);
    return err == ERR_OK ? 0 : api_fail(error, err, "%s: %s", source->what, err_text(err));
}

static uint64_t download_invoke(struct cairn *c, const struct api_target *source)
{
    struct writer args = {0};
    api_json_add(&args, "{\"parent\":%llu", (unsigned long long)source->parent);
    api_json_add_string(&args, "workspace", source->workspace);
    api_json_add_string(&args, "path", source->what);
    api_json_add_string(&args, "name", source->name);
    api_json_add(&args, "}");
    return api_history_invoke(c, "get", &args);
}

static void download_complete(struct cairn *c, uint64_t history, int result, const struct cairn_entry *entry,
                              uint64_t content)
{
    struct writer results = {0};
    if (result == 0) {
        api_json_add(&results, "{\"type\":\"file\",\"version\":%llu,\"file\":%llu,\"bytes\":%llu,\"sequence\":%llu",
                     (unsigned long long)entry->version, (unsigned long long)entry->id,
                     (unsigned long long)entry->bytes, (unsigned long long)entry->sequence);
        api_json_add_content(&results, content);
        api_json_add(&results, "}");
    }
    api_history_complete(c, history, "get", false, (enum err)result, &results);
}

int api_get_feed(struct cairn *c, const struct api_target *source, cairn_write_fn *write, void *write_context,
                 struct cairn_moved *moved, struct cairn_entry *ret_entry, struct cairn_error *error)
{
    struct client_op *op = client_op_create(CLIENT_GET, api_id(c), source->workspace);
    op->get.parent = source->parent;
    op->get.name_bytes = (uint32_t)strnlen(source->name, LIMIT_NAME_BYTES);
    memcpy(op->get.name, source->name, op->get.name_bytes);
    uint64_t history = download_invoke(c, source), content = api_content_begin();
    struct api_waiter waiter;
    uint64_t id = op->id;
    int number = 0;
    api_post(c, &waiter, op);
    bool done = download_serve(c, &waiter, id, write, write_context, &number, &content);
    api_finish(c, &waiter, done ? op : NULL);
    if (!done) {
        api_history_complete(c, history, "get", false, ERR_INTERNAL, &(struct writer){0});
        return api_fail(error, ERR_INTERNAL, "the client's runtime has ended");
    }
    struct cairn_entry *entry = mem_alloc(sizeof *entry);
    int result = download_result(op, source, number, moved, entry, error);
    download_complete(c, history, result, entry, content);
    if (result == 0 && ret_entry != NULL) {
        *ret_entry = *entry;
    }
    free(entry);
    client_op_destroy(op);
    return result;
}

struct download {
    int fd;
    uint64_t bytes;
    api_bytes_fn *progress;
    void *progress_context;
};

static int download_write(void *context, const void *data, size_t bytes)
{
    struct download *down = context;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(down->fd, (const uint8_t *)data + done, bytes - done);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    down->bytes += bytes;
    if (down->progress != NULL) {
        down->progress(down->progress_context, down->bytes);
    }
    return 0;
}

static int sync_folder_of(const char *path)
{
    char *copy = strdup(path);
    CHECK(copy != NULL);
    char *slash = strrchr(copy, '/');
    if (slash != NULL) {
        slash[slash == copy ? 1 : 0] = '\0';
    }
    int fd = open(slash == NULL ? "." : copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    free(copy);
    return result;
}

/* Gives the finished file its mode, time and name. Returns errno. */
static int download_settle(int fd, const char *temporary, const char *local, const struct cairn_entry *entry)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = entry->mtime_ns / 1000000000, .tv_nsec = entry->mtime_ns % 1000000000}};
    if (times[1].tv_nsec < 0) {
        times[1].tv_sec--;
        times[1].tv_nsec += 1000000000;
    }
    if (fchmod(fd, entry->mode & 0777) != 0 || futimens(fd, times) != 0 || fsync(fd) != 0 ||
        rename(temporary, local) != 0) {
        return errno;
    }
    return sync_folder_of(local);
}

static int get_file_once(struct cairn *c, const struct api_target *source, const char *local, struct download *down,
                         struct cairn_moved *moved, struct cairn_error *error)
{
    char temporary[CAIRN_PATH_BYTES + 32];
    const char *slash = strrchr(local, '/');
    int folder = slash == NULL ? 0 : (int)(slash - local + 1);
    if (snprintf(temporary, sizeof temporary, "%.*s.cairn-XXXXXX", folder, local) >= (int)sizeof temporary) {
        return api_fail(error, ERR_TOO_LARGE, "%s: the path is too long", local);
    }
    down->bytes = 0;
    down->fd = mkostemp(temporary, O_CLOEXEC);
    if (down->fd < 0) {
        return api_fail(error, err_of_errno(errno), "%s: %s", temporary, strerror(errno));
    }
    struct cairn_entry *entry = mem_alloc(sizeof *entry);
    int result = api_get_feed(c, source, download_write, down, moved, entry, error);
    if (result == 0) {
        int number = download_settle(down->fd, temporary, local, entry);
        result = number == 0 ? 0 : api_fail(error, err_of_errno(number), "%s: %s", local, strerror(number));
    }
    if (result != 0) {
        unlink(temporary);
    }
    close(down->fd);
    free(entry);
    return result;
}

int api_get_file(struct cairn *c, const struct api_target *source, const char *local, api_bytes_fn *progress,
                 void *context, struct cairn_moved *moved, struct cairn_error *error)
{
    struct download down = {.progress = progress, .progress_context = context};
    int result = ERR_CONFLICT;
    for (int i = 0; i < GET_TRIES && result == ERR_CONFLICT; i++) {
        result = get_file_once(c, source, local, &down, moved, error); /* CONFLICT: a newer version came meanwhile */
    }
    return result;
}
