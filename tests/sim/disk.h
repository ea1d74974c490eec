/* A simulated disk: files as byte arrays, each with what is durable and what is only written.
 *
 * An operation begins when its effect is executed and finishes when the world says so, in any order. Reads see what is
 * written (the cache). A sync makes durable the writes that had finished when it began. When the power goes, each
 * unsynced 512-byte sector keeps, independently of all others, its durable content or that of any write since; when
 * only the process is killed, what was written stays in the cache, unsynced still, and operations in flight land in
 * part.
 *
 * Out of scope: files longer than memory. Faults (EIO, full, rot) are off until a knob says so. */
#ifndef CAIRN_SIM_DISK_H
#define CAIRN_SIM_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/effect.h"
#include "rng.h"

#define DISK_SECTOR_BYTES 512u

struct disk_knobs {
    uint32_t write_fail_ppm, read_fail_ppm, sync_fail_ppm; /* EIO */
    uint64_t capacity_bytes;                               /* 0: no end; an ALLOC or growth past it is DISK_FULL */
    uint32_t lost_write_ppm;                               /* a sector that is written and stays what it was: stale */
    uint32_t misdirected_ppm;                              /* a sector that lands on another of its file */
    uint64_t extra_ns;                                     /* for the world: an operation takes up to so much longer */
    uint64_t hung_until_ns;                                /* likewise: one that begins before then waits until then */
    bool sync_lies; /* a sync says OK and makes nothing durable: checkers must find out */
};

struct disk;
struct disk_op;

struct disk *disk_create(struct rng rng);
void disk_destroy(struct disk *disk);
struct disk_knobs *disk_knobs(struct disk *disk);
/* All faults off but lies about syncs. */
void disk_knobs_mend(struct disk_knobs *knobs);
uint64_t disk_used_bytes(const struct disk *disk);

/* Starts the operation of a DISK_* effect; takes its slice. The op lives until disk_finish or disk_crash. */
struct disk_op *disk_begin(struct disk *disk, const struct effect *effect);
/* Finishes it: its result, for a read the bytes (a new slice) in ret_data. Frees the op. */
enum err disk_finish(struct disk *disk, struct disk_op *op, struct slice *ret_data);
/* All operations in flight are over, in part or not at all. power: unsynced sectors are drawn, too. */
void disk_crash(struct disk *disk, bool power);

/* Files of a kind, ascending, in a new array the caller frees. */
void disk_list(const struct disk *disk, enum file_kind kind, struct file_info **ret_files, uint32_t *ret_count);
/* Flips one bit in a random durable sector that is not all zero; false when there is none. */
bool disk_rot(struct disk *disk, struct file_ref *ret_file, uint64_t *ret_offset);
/* The same near the end of what was synced last: one of the `sectors` before it, a multiple of `align` bytes from the
 * beginning. False also when a flip of before lies less than twice that far back. */
bool disk_rot_newest(struct disk *disk, uint32_t sectors, uint32_t align, struct file_ref *ret_file,
                     uint64_t *ret_offset);
/* Where a durable sector holds these bytes, in one piece; false where none does. */
bool disk_find_bytes(const struct disk *disk, const void *data, uint32_t bytes, struct file_ref *ret_file,
                     uint64_t *ret_offset);
/* Flips a bit of this byte: once, and the sector rots; again, and it is what it was. */
void disk_flip(struct disk *disk, struct file_ref file, uint64_t offset);
/* All files as a backup would read them, while nothing is under way; and back, durable, in the place of what is there.
 * A copy NULL: there is nothing any more. */
struct disk_copy;
struct disk_copy *disk_copy_take(const struct disk *disk);
void disk_copy_put(struct disk *disk, const struct disk_copy *copy);
void disk_copy_free(struct disk_copy *copy);
/* Makes a file durable with these bytes, as a test needs one there. */
void disk_put_file(struct disk *disk, struct file_ref ref, const void *data, uint64_t bytes);
/* Unsynced sectors of the disk, each as often as it was written: a test's look inside. */
uint32_t disk_unsynced(const struct disk *disk);

#endif
