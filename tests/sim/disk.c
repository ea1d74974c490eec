/* The simulated disk (disk.h). Per file two images: `current`, what reads see, and `durable`; between them a list of
 * writes that are in `current` and not yet synced, kept to draw from at a crash. An operation in flight has touched
 * neither image. */
#include "disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct written { /* a finished, unsynced write or hole */
    uint64_t offset, bytes;
    uint64_t stamp; /* order of finishing */
    uint8_t *data;
};

struct file {
    struct file_ref ref;
    bool removed;
    uint64_t bytes, durable_bytes; /* sizes */
    uint64_t capacity;             /* of both images */
    uint8_t *current, *durable;
    struct written *written;
    unsigned long written_count, written_capacity;
};

struct disk_op {
    enum effect_kind kind;
    struct file_ref ref;
    uint64_t offset, bytes;
    struct slice data;
    uint64_t covers; /* a sync: writes finished up to this stamp */
};

struct disk {
    struct rng rng;
    struct disk_knobs knobs;
    struct file **files; /* ascending by (kind, number) */
    unsigned long file_count, file_capacity;
    struct disk_op **ops;
    unsigned long op_count, op_capacity;
    uint64_t stamp;
};

struct disk *disk_create(struct rng rng)
{
    struct disk *disk = mem_alloc(sizeof *disk);
    disk->rng = rng;
    return disk;
}

static void file_free(struct file *file)
{
    for (unsigned long i = 0; i < file->written_count; i++) {
        free(file->written[i].data);
    }
    free(file->written);
    free(file->current);
    free(file->durable);
    free(file);
}

void disk_destroy(struct disk *disk)
{
    for (unsigned long i = 0; i < disk->op_count; i++) {
        slice_drop(&disk->ops[i]->data);
        free(disk->ops[i]);
    }
    for (unsigned long i = 0; i < disk->file_count; i++) {
        file_free(disk->files[i]);
    }
    free(disk->ops);
    free(disk->files);
    free(disk);
}

struct disk_knobs *disk_knobs(struct disk *disk)
{
    return &disk->knobs;
}

static struct file *disk_find(const struct disk *disk, struct file_ref ref)
{
    for (unsigned long i = 0; i < disk->file_count; i++) {
        if (disk->files[i]->ref.kind == ref.kind && disk->files[i]->ref.number == ref.number) {
            return disk->files[i];
        }
    }
    return NULL;
}

static struct file *disk_create_file(struct disk *disk, struct file_ref ref)
{
    struct file *file = mem_alloc(sizeof *file);
    file->ref = ref;
    disk->files = mem_grow(disk->files, &disk->file_capacity, disk->file_count + 1, sizeof *disk->files);
    unsigned long at = disk->file_count++;
    while (at > 0 && (disk->files[at - 1]->ref.kind > ref.kind ||
                      (disk->files[at - 1]->ref.kind == ref.kind && disk->files[at - 1]->ref.number > ref.number))) {
        disk->files[at] = disk->files[at - 1];
        at--;
    }
    disk->files[at] = file;
    return file;
}

static void disk_remove_file(struct disk *disk, struct file *file)
{
    unsigned long at = 0;
    while (disk->files[at] != file) {
        at++;
        CHECK(at < disk->file_count);
    }
    memmove(&disk->files[at], &disk->files[at + 1], (disk->file_count - at - 1) * sizeof *disk->files);
    disk->file_count--;
    file_free(file);
}

static void file_reserve(struct file *file, uint64_t bytes)
{
    if (bytes <= file->capacity) {
        return;
    }
    bytes = (bytes + 4095) / 4096 * 4096;
    CHECK(bytes <= 1ull << 30);
    uint8_t *current = mem_alloc(bytes), *durable = mem_alloc(bytes);
    if (file->capacity > 0) {
        memcpy(current, file->current, file->capacity);
        memcpy(durable, file->durable, file->capacity);
    }
    free(file->current);
    free(file->durable);
    file->current = current;
    file->durable = durable;
    file->capacity = bytes;
}

static uint64_t disk_used(const struct disk *disk)
{
    uint64_t used = 0;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        used += disk->files[i]->bytes;
    }
    return used;
}

static bool disk_has_room(const struct disk *disk, uint64_t more)
{
    return disk->knobs.capacity_bytes == 0 || disk_used(disk) + more <= disk->knobs.capacity_bytes;
}

struct disk_op *disk_begin(struct disk *disk, const struct effect *effect)
{
    CHECK(effect->kind >= EFFECT_DISK_WRITE && effect->kind <= EFFECT_DISK_DISCARD);
    struct disk_op *op = mem_alloc(sizeof *op);
    *op = (struct disk_op){.kind = effect->kind,
                           .ref = effect->disk.file,
                           .offset = effect->disk.offset,
                           .bytes = effect->disk.bytes,
                           .data = effect->disk.data,
                           .covers = disk->stamp};
    disk->ops = mem_grow(disk->ops, &disk->op_capacity, disk->op_count + 1, sizeof *disk->ops);
    disk->ops[disk->op_count++] = op;
    return op;
}

static void disk_end(struct disk *disk, struct disk_op *op)
{
    unsigned long at = 0;
    while (disk->ops[at] != op) {
        at++;
        CHECK(at < disk->op_count);
    }
    memmove(&disk->ops[at], &disk->ops[at + 1], (disk->op_count - at - 1) * sizeof *disk->ops);
    disk->op_count--;
    slice_drop(&op->data);
    free(op);
}

/* Puts a write (op->data) or a hole (no data) into the cache, the sectors that `keep` chooses only: all when rng is
 * NULL. */
static void file_write(struct disk *disk, struct file *file, const struct disk_op *op, struct rng *rng)
{
    uint64_t end = op->offset + op->bytes;
    bool hole = op->kind == EFFECT_DISK_DISCARD;
    if (hole && end > file->bytes) {
        end = file->bytes;
    }
    if (end <= op->offset) {
        return;
    }
    file_reserve(file, end);
    for (uint64_t at = op->offset; at < end; at += DISK_SECTOR_BYTES) {
        if (rng != NULL && rng_chance(rng, 500000)) {
            continue;
        }
        uint64_t bytes = end - at < DISK_SECTOR_BYTES ? end - at : DISK_SECTOR_BYTES;
        struct written written = {.offset = at, .bytes = bytes, .stamp = ++disk->stamp, .data = mem_alloc(bytes)};
        if (!hole) {
            CHECK(at - op->offset + bytes <= slice_capacity(op->data));
            memcpy(written.data, op->data.data + (at - op->offset), bytes);
        }
        memcpy(file->current + at, written.data, bytes);
        file->written = mem_grow(file->written, &file->written_capacity, file->written_count + 1, sizeof written);
        file->written[file->written_count++] = written;
        if (at + bytes > file->bytes) {
            file->bytes = at + bytes;
        }
    }
}

/* Ends the writes up to stamp `covers`: into the durable image, or (lost) each by chance. */
static void file_sync(struct file *file, uint64_t covers, struct rng *lost)
{
    unsigned long kept = 0;
    for (unsigned long i = 0; i < file->written_count; i++) {
        struct written *written = &file->written[i];
        if (written->stamp > covers) {
            file->written[kept++] = *written;
            continue;
        }
        if (lost == NULL || rng_chance(lost, 500000)) {
            memcpy(file->durable + written->offset, written->data, written->bytes);
            if (written->offset + written->bytes > file->durable_bytes) {
                file->durable_bytes = written->offset + written->bytes;
            }
        }
        free(written->data);
    }
    file->written_count = kept;
}

static enum err finish_write(struct disk *disk, struct disk_op *op)
{
    struct file *file = disk_find(disk, op->ref);
    if (file == NULL) {
        return ERR_IO;
    }
    if (op->offset + op->bytes > file->bytes && !disk_has_room(disk, op->offset + op->bytes - file->bytes)) {
        return ERR_DISK_FULL;
    }
    bool fails = rng_chance(&disk->rng, disk->knobs.write_fail_ppm);
    file_write(disk, file, op, fails ? &disk->rng : NULL);
    return fails ? ERR_IO : ERR_OK;
}

static enum err finish_sync(struct disk *disk, struct disk_op *op)
{
    struct file *file = disk_find(disk, op->ref);
    if (file == NULL) {
        return ERR_IO;
    }
    if (disk->knobs.sync_lies) {
        return ERR_OK;
    }
    bool fails = rng_chance(&disk->rng, disk->knobs.sync_fail_ppm);
    file_sync(file, op->covers, fails ? &disk->rng : NULL);
    return fails ? ERR_IO : ERR_OK;
}

static enum err finish_read(struct disk *disk, struct disk_op *op, struct slice *ret_data)
{
    struct file *file = disk_find(disk, op->ref);
    if (file == NULL || rng_chance(&disk->rng, disk->knobs.read_fail_ppm)) {
        return ERR_IO;
    }
    uint64_t bytes = op->offset >= file->bytes ? 0 : file->bytes - op->offset;
    *ret_data = slice_copy(file->current + (bytes ? op->offset : 0), bytes < op->bytes ? bytes : op->bytes);
    return ERR_OK;
}

static enum err finish_alloc(struct disk *disk, struct disk_op *op)
{
    struct file *file = disk_find(disk, op->ref);
    uint64_t old = file == NULL ? 0 : file->bytes;
    if (op->bytes > old && !disk_has_room(disk, op->bytes - old)) {
        return ERR_DISK_FULL;
    }
    if (file == NULL) {
        file = disk_create_file(disk, op->ref);
    }
    file_sync(file, UINT64_MAX, NULL);
    if (op->bytes > file->bytes) {
        file_reserve(file, op->bytes);
        file->bytes = op->bytes;
    }
    file->durable_bytes = file->bytes;
    return ERR_OK;
}

static enum err finish_discard(struct disk *disk, struct disk_op *op)
{
    struct file *file = disk_find(disk, op->ref);
    if (file == NULL) {
        return op->bytes == UINT64_MAX ? ERR_OK : ERR_IO;
    }
    if (op->bytes == UINT64_MAX) {
        disk_remove_file(disk, file);
    } else {
        file_write(disk, file, op, NULL);
    }
    return ERR_OK;
}

enum err disk_finish(struct disk *disk, struct disk_op *op, struct slice *ret_data)
{
    enum err err = ERR_INTERNAL;
    switch (op->kind) {
    case EFFECT_DISK_WRITE:
        err = finish_write(disk, op);
        break;
    case EFFECT_DISK_SYNC:
        err = finish_sync(disk, op);
        break;
    case EFFECT_DISK_READ:
        err = finish_read(disk, op, ret_data);
        break;
    case EFFECT_DISK_ALLOC:
        err = finish_alloc(disk, op);
        break;
    case EFFECT_DISK_DISCARD:
        err = finish_discard(disk, op);
        break;
    default:
        CHECK(!"a disk operation");
    }
    disk_end(disk, op);
    return err;
}

/* An operation that was in flight: nothing of it, all of it, or some of its sectors. */
static void crash_op(struct disk *disk, struct disk_op *op)
{
    struct file *file = disk_find(disk, op->ref);
    bool happens = rng_chance(&disk->rng, 500000);
    switch (op->kind) {
    case EFFECT_DISK_WRITE:
        if (file != NULL && op->offset + op->bytes <= file->bytes) {
            file_write(disk, file, op, &disk->rng);
        }
        break;
    case EFFECT_DISK_SYNC:
        if (file != NULL && happens && !disk->knobs.sync_lies) {
            file_sync(file, op->covers, NULL);
        }
        break;
    case EFFECT_DISK_ALLOC:
        if (happens && file == NULL && rng_chance(&disk->rng, 300000)) {
            disk_create_file(disk, op->ref); /* made, nothing reserved yet */
        } else if (happens) {
            (void)finish_alloc(disk, op);
        }
        break;
    case EFFECT_DISK_DISCARD:
        if (happens && file != NULL) {
            (void)finish_discard(disk, op);
        }
        break;
    default:
        break;
    }
}

/* Power: each sector becomes its durable content or that of any unsynced write to it. Writes were kept by sector, in
 * order; a later one that is kept covers an earlier one. */
static void crash_file(struct disk *disk, struct file *file)
{
    for (unsigned long i = 0; i < file->written_count; i++) {
        struct written *written = &file->written[i];
        if (rng_chance(&disk->rng, 500000)) {
            memcpy(file->durable + written->offset, written->data, written->bytes);
            if (written->offset + written->bytes > file->durable_bytes) {
                file->durable_bytes = written->offset + written->bytes;
            }
        }
        free(written->data);
    }
    file->written_count = 0;
    file->bytes = file->durable_bytes;
    if (file->capacity > 0) {
        memcpy(file->current, file->durable, file->capacity);
    }
}

void disk_crash(struct disk *disk, bool power)
{
    while (disk->op_count > 0) {
        crash_op(disk, disk->ops[0]);
        disk_end(disk, disk->ops[0]);
    }
    for (unsigned long i = 0; power && i < disk->file_count; i++) {
        crash_file(disk, disk->files[i]);
    }
}

void disk_list(const struct disk *disk, enum file_kind kind, struct file_info **ret_files, uint32_t *ret_count)
{
    struct file_info *files = mem_alloc(disk->file_count * sizeof *files);
    uint32_t count = 0;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        if (disk->files[i]->ref.kind == (uint32_t)kind) {
            files[count++] = (struct file_info){disk->files[i]->ref, disk->files[i]->bytes};
        }
    }
    *ret_files = files;
    *ret_count = count;
}

static bool sector_is_zero(const uint8_t *data, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++) {
        if (data[i] != 0) {
            return false;
        }
    }
    return true;
}

bool disk_rot(struct disk *disk, struct file_ref *ret_file, uint64_t *ret_offset)
{
    for (int attempt = 0; attempt < 1000 && disk->file_count > 0; attempt++) {
        struct file *file = disk->files[rng_below(&disk->rng, disk->file_count)];
        uint64_t sectors = file->durable_bytes / DISK_SECTOR_BYTES;
        uint64_t at = sectors ? rng_below(&disk->rng, sectors) * DISK_SECTOR_BYTES : 0;
        if (sectors == 0 || sector_is_zero(file->durable + at, DISK_SECTOR_BYTES)) {
            continue;
        }
        uint64_t byte = at + rng_below(&disk->rng, DISK_SECTOR_BYTES);
        uint8_t bit = (uint8_t)(1u << rng_below(&disk->rng, 8));
        file->durable[byte] ^= bit;
        file->current[byte] ^= bit;
        *ret_file = file->ref;
        *ret_offset = byte;
        return true;
    }
    return false;
}

void disk_put_file(struct disk *disk, struct file_ref ref, const void *data, uint64_t bytes)
{
    CHECK(disk_find(disk, ref) == NULL);
    struct file *file = disk_create_file(disk, ref);
    file_reserve(file, bytes);
    if (bytes > 0) {
        memcpy(file->current, data, bytes);
        memcpy(file->durable, data, bytes);
    }
    file->bytes = file->durable_bytes = bytes;
}

uint32_t disk_unsynced(const struct disk *disk)
{
    unsigned long count = 0;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        count += disk->files[i]->written_count;
    }
    return (uint32_t)count;
}
