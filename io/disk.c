/* The disk half of a loop: one io_uring for all its actors. Stands between a core's DISK effects and the files.
 *
 * Happy path: an effect becomes an entry of the ring; the turn ends with one submission; the ring's eventfd is polled
 * by the loop and drained to empty; each completion at full length becomes DISK_DONE. At most RING_FLIGHT operations
 * are under way, fewer than completions fit, so that none overflow; the rest wait in order.
 *
 * How it fails: a short transfer goes in again for the remainder, in whole sectors; without progress it is an IO error.
 * EINTR and EAGAIN go in again. A failed sync is reported once and never tried again by us: the core must take it as
 * loss (fsyncgate). A kernel without io_uring (EPERM, ENOSYS) costs one log line and pread/pwrite on helpers. */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "io/disk.h"

#define RING_ENTRIES 256u
#define RING_FLIGHT  1024u
#define RING_CQ      2048u
#define SECTOR_BYTES 4096u
#define OP_TRIES     64u

struct disk_op {
    union {
        struct task task;
        struct job job;
    };
    struct disk_op *next; /* waiting */
    struct disk *disk;
    struct runtime_actor *actor;
    enum effect_kind kind;
    uint64_t token;
    struct disk_file *file; /* NULL for what goes by path */
    uint64_t offset, bytes, done;
    unsigned tries; /* without progress */
    bool written;   /* ALLOC: with zeros, not only reserved */
    enum err err;
    struct slice data;
    char path[]; /* ALLOC and DISCARD */
};

struct disk {
    struct loop *loop;
    bool ring_ok, closing;
    struct io_uring ring;
    int event_fd;
    uv_poll_t poll;
    unsigned in_flight;
    bool unsubmitted;
    uint64_t submission; /* number of the next one */
    struct disk_op *waiting, **waiting_tail;
};

/* ---- the end of an operation ---- */

static void disk_op_finish(struct disk_op *op, bool drop)
{
    if (op->file != NULL) {
        disk_file_unuse(op->file);
    }
    if (op->kind == EFFECT_DISK_SYNC && op->err == ERR_OK) {
        atomic_fetch_add_explicit(&op->actor->disk_syncs, 1, memory_order_relaxed);
    }
    if (op->kind == EFFECT_DISK_READ && op->err == ERR_OK) {
        op->data.bytes = (uint32_t)op->done;
    } else {
        slice_drop(&op->data);
    }
    if (!drop) {
        struct inbox_event *event = inbox_event_create(op->actor, EVENT_DISK_DONE);
        event->event.disk.token = op->token;
        event->event.disk.err = op->err;
        event->event.disk.data = op->data;
        op->data = (struct slice){0};
        inbox_post(event);
    }
    slice_drop(&op->data);
    free(op);
}

static void disk_op_arrive(struct loop *loop, struct task *task, bool drop)
{
    (void)loop;
    disk_op_finish((struct disk_op *)task, drop);
}

/* What a transfer's result means: true when the operation is over. */
static bool disk_op_advance(struct disk_op *op, int64_t result)
{
    if (result == -EINTR || result == -EAGAIN) {
        op->tries++;
        if (op->tries < OP_TRIES) {
            return false;
        }
        result = -EIO;
    }
    if (result < 0) {
        const char *what = op->kind == EFFECT_DISK_SYNC ? "sync" : op->kind == EFFECT_DISK_WRITE ? "write" : "read";
        char path[DISK_PATH_BYTES];
        disk_path(op->actor, op->file->ref, path);
        op->err = disk_error((int)-result, what, path);
        return true;
    }
    if (op->kind == EFFECT_DISK_SYNC) {
        return true;
    }
    op->done += (uint64_t)result;
    CHECK(op->done <= op->bytes);
    if (op->done == op->bytes) {
        return true;
    }
    if (op->kind == EFFECT_DISK_READ && (result == 0 || op->done % SECTOR_BYTES != 0)) {
        return true; /* the end of the file */
    }
    /* Direct transfers go on at a sector; what is left of a broken one is done again. */
    uint64_t before = op->done - (uint64_t)result;
    op->done = op->done / SECTOR_BYTES * SECTOR_BYTES;
    op->tries = op->done > before ? 0 : op->tries + 1;
    if (result == 0 || op->tries >= OP_TRIES) {
        char path[DISK_PATH_BYTES];
        disk_path(op->actor, op->file->ref, path);
        op->err = disk_error(EIO, "a short write without progress to", path);
        return true;
    }
    return false;
}

/* ---- the ring ---- */

static void disk_op_start(struct disk *disk, struct disk_op *op);

static void disk_start_waiting(struct disk *disk)
{
    while (disk->waiting != NULL && disk->in_flight < RING_FLIGHT) {
        struct disk_op *op = disk->waiting;
        disk->waiting = op->next;
        if (disk->waiting == NULL) {
            disk->waiting_tail = &disk->waiting;
        }
        disk_op_start(disk, op);
    }
}

static void disk_ring_submit(struct disk *disk)
{
    int rc;
    unsigned tries = 0;
    do {
        rc = io_uring_submit(&disk->ring);
    } while ((rc == -EINTR || rc == -EAGAIN || rc == -EBUSY) && ++tries < 1000);
    if (rc < 0 && rc != -EAGAIN && rc != -EBUSY && rc != -EINTR) {
        runtime_halt(disk->loop->runtime, ERR_IO, "io_uring submission: %s", strerror(-rc));
    }
    disk->unsubmitted = io_uring_sq_ready(&disk->ring) > 0;
    disk->submission++;
}

static void disk_op_start(struct disk *disk, struct disk_op *op)
{
    struct io_uring_sqe *sqe = NULL;
    if (disk->in_flight < RING_FLIGHT) {
        sqe = io_uring_get_sqe(&disk->ring);
        if (sqe == NULL) {
            disk_ring_submit(disk);
            sqe = io_uring_get_sqe(&disk->ring);
        }
    }
    if (sqe == NULL) {
        op->next = NULL;
        *disk->waiting_tail = op;
        disk->waiting_tail = &op->next;
        return;
    }
    unsigned bytes = (unsigned)(op->bytes - op->done);
    if (op->kind == EFFECT_DISK_WRITE) {
        io_uring_prep_write(sqe, op->file->fd, op->data.data + op->done, bytes, op->offset + op->done);
    } else if (op->kind == EFFECT_DISK_READ) {
        io_uring_prep_read(sqe, op->file->fd, op->data.data + op->done, bytes, op->offset + op->done);
    } else {
        io_uring_prep_fsync(sqe, op->file->fd, IORING_FSYNC_DATASYNC);
    }
    io_uring_sqe_set_data(sqe, op);
    disk->in_flight++;
    disk->unsubmitted = true;
    atomic_fetch_add_explicit(&op->actor->disk_submitted, 1, memory_order_relaxed);
    if (op->actor->disk_last_submission != disk->submission) {
        op->actor->disk_last_submission = disk->submission;
        atomic_fetch_add_explicit(&op->actor->disk_submissions, 1, memory_order_relaxed);
    }
}

/* Takes completions until there are none. */
static void disk_reap(struct disk *disk)
{
    for (;;) {
        struct io_uring_cqe *cqe = NULL;
        if (io_uring_peek_cqe(&disk->ring, &cqe) != 0 || cqe == NULL) {
            break;
        }
        struct disk_op *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&disk->ring, cqe);
        CHECK(disk->in_flight > 0);
        disk->in_flight--;
        if (disk_op_advance(op, result)) {
            disk_op_finish(op, disk->closing);
        } else {
            disk_op_start(disk, op);
        }
    }
    disk_start_waiting(disk);
}

static void disk_ready(uv_poll_t *poll, int status, int events)
{
    struct disk *disk = poll->data;
    (void)status;
    (void)events;
    uint64_t count;
    ssize_t got = read(disk->event_fd, &count, sizeof count);
    (void)got;
    int rc = io_uring_get_events(&disk->ring); /* runs deferred work and flushes an overflown queue */
    (void)rc;
    disk_reap(disk);
}

void disk_submit(struct disk *disk)
{
    if (disk->ring_ok && disk->unsubmitted) {
        disk_ring_submit(disk);
    }
}

static int disk_ring_init(struct disk *disk)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_CQSIZE,
    };
    int rc = -EINVAL;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0] && rc == -EINVAL; i++) {
        struct io_uring_params params = {.flags = flags[i], .cq_entries = RING_CQ};
        rc = io_uring_queue_init_params(RING_ENTRIES, &disk->ring, &params);
    }
    return rc;
}

struct disk *disk_create(struct loop *loop)
{
    struct disk *disk = mem_alloc(sizeof *disk);
    disk->loop = loop;
    disk->waiting_tail = &disk->waiting;
    disk->submission = 1;
    disk->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(disk->event_fd >= 0);
    uv_poll_init(&loop->uv, &disk->poll, disk->event_fd);
    disk->poll.data = disk;
    int rc = getenv("CAIRN_NO_URING") != NULL ? -ENOSYS : disk_ring_init(disk);
    if (rc == 0) {
        rc = io_uring_register_eventfd(&disk->ring, disk->event_fd);
        if (rc != 0) {
            io_uring_queue_exit(&disk->ring);
        }
    }
    disk->ring_ok = rc == 0;
    if (disk->ring_ok) {
        uv_poll_start(&disk->poll, UV_READABLE, disk_ready);
    } else {
        io_log(LOG_WARN, ERR_UNSUPPORTED, "io_uring cannot be used (%s): disks run on helper threads, slower",
               strerror(-rc));
    }
    return disk;
}

/* ---- what runs on helpers ---- */

static int64_t disk_op_once(struct disk_op *op)
{
    size_t bytes = (size_t)(op->bytes - op->done);
    off_t at = (off_t)(op->offset + op->done);
    ssize_t result = op->kind == EFFECT_DISK_WRITE  ? pwrite(op->file->fd, op->data.data + op->done, bytes, at)
                     : op->kind == EFFECT_DISK_READ ? pread(op->file->fd, op->data.data + op->done, bytes, at)
                                                    : fdatasync(op->file->fd);
    return result < 0 ? -errno : result;
}

static void disk_op_help(struct job *job, bool drop)
{
    struct disk_op *op = (struct disk_op *)job;
    struct loop *loop = op->disk->loop;
    if (drop) {
        op->err = ERR_CANCELLED;
    } else if (op->kind == EFFECT_DISK_ALLOC) {
        op->err = disk_file_reserve(op->path, op->bytes, op->written);
    } else if (op->kind == EFFECT_DISK_DISCARD) {
        op->err =
            op->bytes == UINT64_MAX ? disk_file_remove(op->path) : disk_file_punch(op->path, op->offset, op->bytes);
    } else {
        while (!disk_op_advance(op, disk_op_once(op))) {}
    }
    op->task.run = disk_op_arrive;
    loop_post(loop, &op->task);
}

static void disk_op_post(struct disk_op *op, unsigned priority)
{
    op->job = (struct job){.run = disk_op_help, .priority = priority};
    pool_post(op->disk->loop->runtime->helpers, &op->job);
}

/* ---- effects ---- */

static struct disk_op *disk_op_create(struct disk *disk, struct runtime_actor *actor, struct effect *effect,
                                      size_t path_bytes)
{
    struct disk_op *op = mem_alloc(sizeof *op + path_bytes);
    op->disk = disk;
    op->actor = actor;
    op->kind = effect->kind;
    op->token = effect->disk.token;
    op->offset = effect->disk.offset;
    op->bytes = effect->disk.bytes;
    op->data = effect->disk.data;
    effect->disk.data = (struct slice){0};
    return op;
}

static void disk_perform_path(struct disk *disk, struct runtime_actor *actor, struct effect *effect)
{
    struct disk_op *op = disk_op_create(disk, actor, effect, DISK_PATH_BYTES);
    disk_path(actor, effect->disk.file, op->path);
    op->written = effect->disk.file.kind == FILE_LOG;
    if (op->kind == EFFECT_DISK_DISCARD && op->bytes == UINT64_MAX) {
        disk_file_doom(actor, effect->disk.file);
    }
    disk_op_post(op, 1);
}

void disk_perform(struct disk *disk, struct runtime_actor *actor, struct effect *effect)
{
    if (effect->disk.file.kind == FILE_USER && effect->kind == EFFECT_DISK_READ) {
        user_file_read(actor, effect);
        return;
    }
    CHECK(effect->disk.file.kind != FILE_USER);
    if (effect->kind == EFFECT_DISK_ALLOC || effect->kind == EFFECT_DISK_DISCARD) {
        disk_perform_path(disk, actor, effect);
        return;
    }
    struct disk_op *op = disk_op_create(disk, actor, effect, 0);
    op->err = disk_file_use(actor, effect->disk.file, &op->file);
    if (op->err != ERR_OK) {
        disk_op_finish(op, false);
        return;
    }
    if (op->kind == EFFECT_DISK_READ) {
        CHECK(op->bytes < UINT32_MAX / 2);
        op->data = slice_alloc((size_t)op->bytes);
    }
    if (disk->ring_ok) {
        disk_op_start(disk, op);
    } else {
        disk_op_post(op, 0);
    }
}

/* ---- the end ---- */

/* Waits for what is under way: the kernel still writes into and reads from its buffers. */
void disk_close(struct disk *disk)
{
    disk->closing = true;
    while (disk->ring_ok && (disk->in_flight > 0 || disk->waiting != NULL)) {
        disk_start_waiting(disk);
        int rc = io_uring_submit_and_wait(&disk->ring, disk->in_flight > 0 ? 1 : 0);
        CHECK(rc >= 0 || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY);
        disk_reap(disk);
    }
    uv_close((uv_handle_t *)&disk->poll, NULL);
}

void disk_destroy(struct disk *disk)
{
    CHECK(disk->in_flight == 0);
    if (disk->ring_ok) {
        io_uring_queue_exit(&disk->ring);
    }
    close(disk->event_fd);
    free(disk);
}
