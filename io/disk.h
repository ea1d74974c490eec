/* Files of a data directory as the disk half of io/ holds them. Private to io/. disk_file.c: paths, descriptors, what
 * blocks; disk.c: the ring. A file belongs to one actor and its loop's thread; jobs on helpers carry paths or plain
 * descriptors whose file is kept open by `users`. */
#ifndef CAIRN_IO_DISK_H
#define CAIRN_IO_DISK_H

#include "io/internal.h"

#define DISK_PATH_BYTES 512u

struct disk_file {
    struct file_ref ref;
    int fd;
    bool direct;
    bool doomed; /* unlinked: closed once unused */
    unsigned users;
};

void disk_path(const struct runtime_actor *actor, struct file_ref ref, char ret[DISK_PATH_BYTES]);
/* The open file, used once more; NOT_FOUND, IO. */
MUST_CHECK enum err disk_file_use(struct runtime_actor *actor, struct file_ref ref, struct disk_file **ret_file);
void disk_file_unuse(struct disk_file *file);
/* It is being removed: forgets it. */
void disk_file_doom(struct runtime_actor *actor, struct file_ref ref);
/* Any thread; blocks. Reserves room; `written`: with zeros on the disk, so that a small write and its sync need not
 * change the file system's own records (the log syncs every write; half the time of a sync is that). */
MUST_CHECK enum err disk_file_reserve(const char *path, uint64_t bytes, bool written);
MUST_CHECK enum err disk_file_punch(const char *path, uint64_t offset, uint64_t bytes);
MUST_CHECK enum err disk_file_remove(const char *path);
/* Translates errno; logs what is not expected in normal life. */
enum err disk_error(int number, const char *what, const char *path);

#endif
