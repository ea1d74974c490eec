/* Files of people, opened by the client's shell: numbers instead of paths for cores, read with pread on a helper. A
 * closed number is never used again; a read under way keeps its descriptor open. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "io/internal.h"

struct user_file {
    uint32_t number;
    int fd;
    unsigned users;
    bool closed;
};

struct user_read {
    struct job job;
    struct runtime_actor *actor;
    uint32_t number;
    int fd;
    uint64_t token, offset;
    struct slice data;
};

/* Under the lock; NULL when there is none. */
static struct user_file *user_file_find(struct runtime *runtime, uint32_t number)
{
    for (unsigned long i = 0; i < runtime->user_file_count; i++) {
        if (runtime->user_files[i].number == number) {
            return &runtime->user_files[i];
        }
    }
    return NULL;
}

/* Under the lock: closes it once nobody needs it. */
static void user_file_settle(struct runtime *runtime, struct user_file *file)
{
    if (file->closed && file->users == 0) {
        close(file->fd);
        *file = runtime->user_files[--runtime->user_file_count];
    }
}

enum err runtime_user_file_open(struct runtime *runtime, const char *path, uint32_t *ret_number)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return errno == ENOENT ? ERR_NOT_FOUND : errno == EACCES || errno == EPERM ? ERR_DENIED : ERR_IO;
    }
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    pthread_mutex_lock(&runtime->lock);
    runtime->user_files = mem_grow(runtime->user_files, &runtime->user_file_capacity, runtime->user_file_count + 1,
                                   sizeof *runtime->user_files);
    uint32_t number = ++runtime->user_file_last;
    CHECK(number != 0);
    runtime->user_files[runtime->user_file_count++] = (struct user_file){.number = number, .fd = fd};
    pthread_mutex_unlock(&runtime->lock);
    *ret_number = number;
    return ERR_OK;
}

void runtime_user_file_close(struct runtime *runtime, uint32_t number)
{
    pthread_mutex_lock(&runtime->lock);
    struct user_file *file = user_file_find(runtime, number);
    if (file != NULL) {
        file->closed = true;
        user_file_settle(runtime, file);
    }
    pthread_mutex_unlock(&runtime->lock);
}

static void user_read_done(struct user_read *read, enum err err)
{
    struct inbox_event *event = inbox_event_create(read->actor, EVENT_DISK_DONE);
    event->event.disk.token = read->token;
    event->event.disk.err = err;
    event->event.disk.data = read->data;
    inbox_post(event);
}

static enum err user_read_all(struct user_read *read)
{
    uint32_t done = 0;
    while (done < read->data.bytes) {
        ssize_t got = pread(read->fd, read->data.data + done, read->data.bytes - done, (off_t)(read->offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            io_log(LOG_WARN, ERR_IO, "read of a file: %s", strerror(errno));
            slice_drop(&read->data);
            return ERR_IO;
        }
        if (got == 0) {
            break;
        }
        done += (uint32_t)got;
    }
    read->data.bytes = done;
    return ERR_OK;
}

static void user_read_run(struct job *job, bool drop)
{
    struct user_read *read = (struct user_read *)job;
    struct runtime *runtime = read->actor->runtime;
    enum err err = drop ? ERR_CANCELLED : user_read_all(read);
    pthread_mutex_lock(&runtime->lock);
    struct user_file *file = user_file_find(runtime, read->number);
    CHECK(file != NULL && file->users > 0);
    file->users--;
    user_file_settle(runtime, file);
    pthread_mutex_unlock(&runtime->lock);
    if (drop) {
        slice_drop(&read->data);
    } else {
        user_read_done(read, err);
    }
    free(read);
}

void user_file_read(struct runtime_actor *actor, const struct effect *effect)
{
    struct runtime *runtime = actor->runtime;
    struct user_read *read = mem_alloc(sizeof *read);
    read->actor = actor;
    read->number = effect->disk.file.number;
    read->token = effect->disk.token;
    read->offset = effect->disk.offset;
    pthread_mutex_lock(&runtime->lock);
    struct user_file *file = user_file_find(runtime, read->number);
    bool known = file != NULL && !file->closed;
    if (known) {
        file->users++;
        read->fd = file->fd;
    }
    pthread_mutex_unlock(&runtime->lock);
    if (!known) {
        user_read_done(read, ERR_NOT_FOUND);
        free(read);
        return;
    }
    CHECK(effect->disk.bytes < UINT32_MAX / 2);
    read->data = slice_alloc((size_t)effect->disk.bytes);
    read->job = (struct job){.run = user_read_run};
    pool_post(runtime->helpers, &read->job);
}

void user_files_destroy(struct runtime *runtime)
{
    for (unsigned long i = 0; i < runtime->user_file_count; i++) {
        CHECK(runtime->user_files[i].users == 0);
        close(runtime->user_files[i].fd);
    }
    free(runtime->user_files);
}
