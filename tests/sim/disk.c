/* The simulated disk (disk.h). Per file two images: `current`, what reads see, and `durable`; between them a list of
 * writes that are in `current` and not yet synced, kept to draw from at a crash. An operation in flight has touched
 * neither image. An image is a table of pages that share their bytes as long as they are the same, and end where only
 * zeros follow: most of a log's block is empty. */
#include "disk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define PAGE_BYTES 4096u
static_assert(PAGE_BYTES % DISK_SECTOR_BYTES == 0, "a sector lies in one page");

struct written { /* a finished, unsynced write or hole (no data) */
    uint64_t offset, bytes;
    uint64_t stamp; /* order of finishing */
    struct slice data;
};

/* The bytes are not changed, but replaced; behind their end are zeros. */
struct page {
    struct slice current, durable;
};

struct file {
    struct file_ref ref;
    uint64_t bytes, durable_bytes; /* sizes */
    struct page *pages;
    unsigned long page_count;
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
    struct file_ref newest; /* what was synced last, and its end; 0: nothing yet */
    uint64_t newest_end;
    struct file_ref flipped; /* where disk_rot_newest flipped last */
    uint64_t flipped_at;
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
        slice_drop(&file->written[i].data);
    }
    for (unsigned long i = 0; i < file->page_count; i++) {
        slice_drop(&file->pages[i].current);
        slice_drop(&file->pages[i].durable);
    }
    free(file->written);
    free(file->pages);
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

void disk_knobs_mend(struct disk_knobs *knobs)
{
    *knobs = (struct disk_knobs){.sync_lies = knobs->sync_lies};
}

/* Where the file is, or would be. */
static unsigned long disk_seek(const struct disk *disk, struct file_ref ref)
{
    unsigned long low = 0, high = disk->file_count;
    while (low < high) {
        unsigned long mid = low + (high - low) / 2;
        struct file_ref at = disk->files[mid]->ref;
        if (at.kind < ref.kind || (at.kind == ref.kind && at.number < ref.number)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static struct file *disk_find(const struct disk *disk, struct file_ref ref)
{
    unsigned long at = disk_seek(disk, ref);
    struct file *file = at < disk->file_count ? disk->files[at] : NULL;
    return file != NULL && file->ref.kind == ref.kind && file->ref.number == ref.number ? file : NULL;
}

static struct file *disk_create_file(struct disk *disk, struct file_ref ref)
{
    struct file *file = mem_alloc(sizeof *file);
    file->ref = ref;
    disk->files = mem_grow(disk->files, &disk->file_capacity, disk->file_count + 1, sizeof *disk->files);
    unsigned long at = disk_seek(disk, ref);
    memmove(&disk->files[at + 1], &disk->files[at], (disk->file_count++ - at) * sizeof *disk->files);
    disk->files[at] = file;
    return file;
}

static void disk_remove_file(struct disk *disk, struct file *file)
{
    unsigned long at = disk_seek(disk, file->ref);
    CHECK(at < disk->file_count && disk->files[at] == file);
    memmove(&disk->files[at], &disk->files[at + 1], (disk->file_count - at - 1) * sizeof *disk->files);
    disk->file_count--;
    file_free(file);
}

static void file_reserve(struct file *file, uint64_t bytes)
{
    CHECK(bytes <= 1ull << 30);
    unsigned long count = (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
    if (count > file->page_count) {
        struct page *pages = mem_alloc(count * sizeof *pages);
        if (file->page_count > 0) {
            memcpy(pages, file->pages, file->page_count * sizeof *pages);
        }
        free(file->pages);
        file->pages = pages;
        file->page_count = count;
    }
}

enum image { IMAGE_CURRENT, IMAGE_DURABLE };

static struct slice *page_of(struct page *page, enum image image)
{
    return image == IMAGE_CURRENT ? &page->current : &page->durable;
}

/* How many bytes there are to the last that is not zero, about. */
static uint32_t bytes_to_zeros(const uint8_t *data, uint32_t bytes)
{
    static const uint8_t zeros[64];
    while (bytes >= sizeof zeros && memcmp(data + bytes - sizeof zeros, zeros, sizeof zeros) == 0) {
        bytes -= (uint32_t)sizeof zeros;
    }
    return bytes;
}

static void page_set(struct page *page, enum image image, const uint8_t *data)
{
    struct slice *bytes = page_of(page, image),
                 *other = page_of(page, image == IMAGE_CURRENT ? IMAGE_DURABLE : IMAGE_CURRENT);
    uint32_t count = bytes_to_zeros(data, PAGE_BYTES);
    bool same = other->bytes == count && (count == 0 || memcmp(other->data, data, count) == 0);
    struct slice fresh = same ? slice_ref(*other) : slice_copy(data, count);
    slice_drop(bytes);
    *bytes = fresh;
}

static void page_get(const struct page *page, enum image image, uint8_t *ret_data, uint64_t from, uint64_t bytes)
{
    struct slice held = image == IMAGE_CURRENT ? page->current : page->durable;
    uint64_t there = held.bytes <= from ? 0 : held.bytes - from < bytes ? held.bytes - from : bytes;
    if (there > 0) {
        memcpy(ret_data, held.data + from, there);
    }
    memset(ret_data + there, 0, bytes - there);
}

/* Bytes [offset, offset + bytes) of reserved space. data NULL: zeros. */
static void image_write(struct file *file, enum image image, uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    while (bytes > 0) {
        CHECK(offset / PAGE_BYTES < file->page_count);
        struct page *page = &file->pages[offset / PAGE_BYTES];
        uint64_t within = offset % PAGE_BYTES, part = PAGE_BYTES - within < bytes ? PAGE_BYTES - within : bytes;
        if (data != NULL && part == PAGE_BYTES) {
            page_set(page, image, data);
        } else if (data == NULL && part == PAGE_BYTES) {
            slice_drop(page_of(page, image));
        } else {
            uint8_t whole[PAGE_BYTES];
            page_get(page, image, whole, 0, PAGE_BYTES);
            if (data != NULL) {
                memcpy(whole + within, data, part);
            } else {
                memset(whole + within, 0, part);
            }
            page_set(page, image, whole);
        }
        data = data != NULL ? data + part : NULL;
        offset += part;
        bytes -= part;
    }
}

static void image_read(const struct file *file, enum image image, uint64_t offset, uint8_t *ret_data, uint64_t bytes)
{
    while (bytes > 0) {
        CHECK(offset / PAGE_BYTES < file->page_count);
        uint64_t within = offset % PAGE_BYTES, part = PAGE_BYTES - within < bytes ? PAGE_BYTES - within : bytes;
        page_get(&file->pages[offset / PAGE_BYTES], image, ret_data, within, part);
        ret_data += part;
        offset += part;
        bytes -= part;
    }
}

uint64_t disk_used_bytes(const struct disk *disk)
{
    uint64_t used = 0;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        used += disk->files[i]->bytes;
    }
    return used;
}

static bool disk_has_room(const struct disk *disk, uint64_t more)
{
    return disk->knobs.capacity_bytes == 0 || disk_used_bytes(disk) + more <= disk->knobs.capacity_bytes;
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

static uint64_t sector_bytes(uint64_t at, uint64_t end)
{
    return end - at < DISK_SECTOR_BYTES ? end - at : DISK_SECTOR_BYTES;
}

/* Part of a write (data) or a hole (none) is in the cache from now on. */
static void file_written(struct disk *disk, struct file *file, uint64_t offset, uint64_t bytes, struct slice data)
{
    struct written written = {.offset = offset, .bytes = bytes, .stamp = ++disk->stamp, .data = slice_ref(data)};
    image_write(file, IMAGE_CURRENT, offset, data.data, bytes);
    file->written = mem_grow(file->written, &file->written_capacity, file->written_count + 1, sizeof written);
    file->written[file->written_count++] = written;
    if (offset + bytes > file->bytes) {
        file->bytes = offset + bytes;
    }
}

/* Where a sector that is meant for `at` lands: there, or by chance on another of the file. */
static uint64_t sector_lands(struct disk *disk, const struct file *file, uint64_t at)
{
    uint64_t sectors = file->bytes / DISK_SECTOR_BYTES;
    bool astray = sectors > 0 && at % DISK_SECTOR_BYTES == 0 && rng_chance(&disk->rng, disk->knobs.misdirected_ppm);
    return astray ? rng_below(&disk->rng, sectors) * DISK_SECTOR_BYTES : at;
}

/* Puts a write (op->data) or a hole into the cache: all of it when rng is NULL, else sectors by chance. */
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
    CHECK(hole || end - op->offset <= slice_capacity(op->data));
    /* A copy: the core may fill its buffer again. The padding behind the bytes is written, too. */
    struct slice data = hole ? (struct slice){0} : slice_copy(op->data.data, end - op->offset);
    bool by_sector = rng != NULL || disk->knobs.lost_write_ppm > 0 || disk->knobs.misdirected_ppm > 0;
    if (!by_sector) {
        file_written(disk, file, op->offset, end - op->offset, data);
    }
    for (uint64_t at = op->offset; by_sector && at < end; at += DISK_SECTOR_BYTES) {
        bool kept = rng == NULL || !rng_chance(rng, 500000);
        if (kept && !rng_chance(&disk->rng, disk->knobs.lost_write_ppm)) {
            struct slice sector = hole ? data : slice_sub(data, at - op->offset, sector_bytes(at, end));
            file_written(disk, file, sector_lands(disk, file, at), sector_bytes(at, end), sector);
            if (!hole) {
                slice_drop(&sector);
            }
        }
    }
    slice_drop(&data);
}

/* Ends a write: into the durable image, whole or (lost) each sector by chance. */
static void written_end(struct file *file, struct written *written, struct rng *lost)
{
    uint64_t end = written->offset + written->bytes;
    for (uint64_t at = written->offset; at < end;) {
        uint64_t bytes = lost != NULL ? sector_bytes(at, end) : end - at;
        if (lost == NULL || rng_chance(lost, 500000)) {
            const uint8_t *data = written->data.data != NULL ? written->data.data + (at - written->offset) : NULL;
            image_write(file, IMAGE_DURABLE, at, data, bytes);
            file->durable_bytes = at + bytes > file->durable_bytes ? at + bytes : file->durable_bytes;
        }
        at += bytes;
    }
    slice_drop(&written->data);
}

/* Ends the writes up to stamp `covers`. */
static void file_sync(struct disk *disk, struct file *file, uint64_t covers, struct rng *lost)
{
    unsigned long kept = 0;
    for (unsigned long i = 0; i < file->written_count; i++) {
        if (file->written[i].stamp > covers) {
            file->written[kept++] = file->written[i];
        } else {
            disk->newest = file->ref;
            disk->newest_end = file->written[i].offset + file->written[i].bytes;
            written_end(file, &file->written[i], lost);
        }
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
    file_sync(disk, file, op->covers, fails ? &disk->rng : NULL);
    return fails ? ERR_IO : ERR_OK;
}

static enum err finish_read(struct disk *disk, struct disk_op *op, struct slice *ret_data)
{
    struct file *file = disk_find(disk, op->ref);
    if (file == NULL || rng_chance(&disk->rng, disk->knobs.read_fail_ppm)) {
        return ERR_IO;
    }
    uint64_t bytes = op->offset >= file->bytes ? 0 : file->bytes - op->offset;
    bytes = bytes < op->bytes ? bytes : op->bytes;
    *ret_data = slice_alloc(bytes);
    image_read(file, IMAGE_CURRENT, op->offset, ret_data->data, bytes);
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
    file_sync(disk, file, UINT64_MAX, NULL);
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
            file_sync(disk, file, op->covers, NULL);
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

/* Power: each sector becomes its durable content or that of any unsynced write to it. Writes are in order; a later one
 * that is kept covers an earlier one. */
static void crash_file(struct disk *disk, struct file *file)
{
    for (unsigned long i = 0; i < file->written_count; i++) {
        written_end(file, &file->written[i], &disk->rng);
    }
    file->written_count = 0;
    file->bytes = file->durable_bytes;
    for (unsigned long i = 0; i < file->page_count; i++) {
        struct slice was = file->pages[i].current;
        file->pages[i].current = slice_ref(file->pages[i].durable);
        slice_drop(&was);
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

static void bit_flip(struct file *file, uint64_t byte, uint8_t bit)
{
    for (enum image image = IMAGE_CURRENT; image <= IMAGE_DURABLE; image++) {
        uint8_t value;
        image_read(file, image, byte, &value, 1);
        value ^= bit;
        image_write(file, image, byte, &value, 1);
    }
}

/* One bit of a durable sector; false where it is all zero, or not there. */
static bool sector_flip(struct disk *disk, struct file *file, uint64_t at, uint64_t *ret_offset)
{
    uint8_t sector[DISK_SECTOR_BYTES];
    if (at + sizeof sector > file->durable_bytes) {
        return false;
    }
    image_read(file, IMAGE_DURABLE, at, sector, sizeof sector);
    if (sector_is_zero(sector, sizeof sector)) {
        return false;
    }
    uint64_t byte = at + rng_below(&disk->rng, DISK_SECTOR_BYTES);
    bit_flip(file, byte, (uint8_t)(1u << rng_below(&disk->rng, 8)));
    *ret_offset = byte;
    return true;
}

bool disk_rot(struct disk *disk, struct file_ref *ret_file, uint64_t *ret_offset)
{
    for (int attempt = 0; attempt < 1000 && disk->file_count > 0; attempt++) {
        struct file *file = disk->files[rng_below(&disk->rng, disk->file_count)];
        uint64_t sectors = file->durable_bytes / DISK_SECTOR_BYTES;
        uint64_t at = sectors ? rng_below(&disk->rng, sectors) * DISK_SECTOR_BYTES : 0;
        if (sector_flip(disk, file, at, ret_offset)) {
            *ret_file = file->ref;
            return true;
        }
    }
    return false;
}

bool disk_rot_newest(struct disk *disk, uint32_t sectors, uint32_t align, struct file_ref *ret_file,
                     uint64_t *ret_offset)
{
    CHECK(align > 0 && align % DISK_SECTOR_BYTES == 0);
    struct file *file = disk_find(disk, disk->newest);
    uint64_t back = (uint64_t)sectors * DISK_SECTOR_BYTES;
    bool same = disk->flipped.kind == disk->newest.kind && disk->flipped.number == disk->newest.number;
    if (file == NULL || disk->newest_end < back || (same && disk->newest_end < disk->flipped_at + 2 * back)) {
        return false;
    }
    uint64_t at = disk->newest_end - (1 + rng_below(&disk->rng, sectors)) * DISK_SECTOR_BYTES;
    if (!sector_flip(disk, file, at / align * align, ret_offset)) {
        return false;
    }
    disk->flipped = *ret_file = file->ref;
    disk->flipped_at = *ret_offset;
    return true;
}

bool disk_find_bytes(const struct disk *disk, const void *data, uint32_t bytes, struct file_ref *ret_file,
                     uint64_t *ret_offset)
{
    uint8_t sector[DISK_SECTOR_BYTES];
    CHECK(bytes <= sizeof sector);
    for (unsigned long i = 0; i < disk->file_count; i++) {
        const struct file *file = disk->files[i];
        for (uint64_t at = 0; at + sizeof sector <= file->durable_bytes; at += sizeof sector) {
            image_read(file, IMAGE_DURABLE, at, sector, sizeof sector);
            for (uint32_t in = 0; in + bytes <= sizeof sector; in++) {
                if (memcmp(sector + in, data, bytes) == 0) {
                    *ret_file = file->ref;
                    *ret_offset = at + in;
                    return true;
                }
            }
        }
    }
    return false;
}

void disk_flip(struct disk *disk, struct file_ref ref, uint64_t offset)
{
    struct file *file = disk_find(disk, ref);
    CHECK(file != NULL && offset < file->durable_bytes);
    bit_flip(file, offset, 1);
}

struct disk_copy {
    struct file **files;
    unsigned long count;
};

/* What is in the cache becomes durable in the copy. */
static struct file *file_copy(const struct file *from)
{
    struct file *file = mem_alloc(sizeof *file);
    file->ref = from->ref;
    file_reserve(file, from->bytes);
    for (unsigned long i = 0; i < from->page_count && i < file->page_count; i++) {
        file->pages[i].current = slice_ref(from->pages[i].current);
        file->pages[i].durable = slice_ref(from->pages[i].current);
    }
    file->bytes = file->durable_bytes = from->bytes;
    return file;
}

struct disk_copy *disk_copy_take(const struct disk *disk)
{
    CHECK(disk->op_count == 0);
    struct disk_copy *copy = mem_alloc(sizeof *copy);
    copy->files = mem_alloc(disk->file_count * sizeof *copy->files);
    copy->count = disk->file_count;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        copy->files[i] = file_copy(disk->files[i]);
    }
    return copy;
}

void disk_copy_put(struct disk *disk, const struct disk_copy *copy)
{
    CHECK(disk->op_count == 0);
    while (disk->file_count > 0) {
        file_free(disk->files[--disk->file_count]);
    }
    disk->newest_end = 0;
    disk->flipped = (struct file_ref){0};
    for (unsigned long i = 0; copy != NULL && i < copy->count; i++) {
        disk->files = mem_grow(disk->files, &disk->file_capacity, disk->file_count + 1, sizeof *disk->files);
        disk->files[disk->file_count++] = file_copy(copy->files[i]);
    }
}

void disk_copy_free(struct disk_copy *copy)
{
    for (unsigned long i = 0; copy != NULL && i < copy->count; i++) {
        file_free(copy->files[i]);
    }
    if (copy != NULL) {
        free(copy->files);
    }
    free(copy);
}

void disk_put_file(struct disk *disk, struct file_ref ref, const void *data, uint64_t bytes)
{
    CHECK(disk_find(disk, ref) == NULL);
    struct file *file = disk_create_file(disk, ref);
    file_reserve(file, bytes);
    image_write(file, IMAGE_CURRENT, 0, data, bytes);
    image_write(file, IMAGE_DURABLE, 0, data, bytes);
    file->bytes = file->durable_bytes = bytes;
}

uint32_t disk_unsynced(const struct disk *disk)
{
    uint64_t count = 0;
    for (unsigned long i = 0; i < disk->file_count; i++) {
        const struct file *file = disk->files[i];
        for (unsigned long w = 0; w < file->written_count; w++) {
            count += (file->written[w].bytes + DISK_SECTOR_BYTES - 1) / DISK_SECTOR_BYTES;
        }
    }
    return (uint32_t)count;
}
