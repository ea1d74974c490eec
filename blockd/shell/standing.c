/* DIR/standing: what the root group told a store when it was last heard: number, incarnation, receipt key and map
 * (agent_standing). With it a block server that starts while the root group has no leader serves reads and takes puts
 * at once (R-F7, R-C7). It is written anew when the map or the store's place in it changes; a file that is lost or
 * damaged costs no more than the wait for the root group.
 *
 * Bytes: "CBS1", u32 bytes of the rest, u32 CRC32C of the rest, the packed StoreRegisterReply. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "config.h"

#define STANDING_HEADER     12u
#define STANDING_BYTES_MAX  (2 * LIMIT_FRAME_HEADER_BYTES)
#define STANDING_PATH_BYTES (CONFIG_STRING_BYTES + 32)

static const char standing_magic[4] = {'C', 'B', 'S', '1'};

static void standing_path(const char *dir, char ret[STANDING_PATH_BYTES])
{
    snprintf(ret, STANDING_PATH_BYTES, "%s/standing", dir);
}

static enum err standing_check(struct slice file, struct slice *ret_standing)
{
    if (file.bytes < STANDING_HEADER || memcmp(file.data, standing_magic, sizeof standing_magic) != 0 ||
        get_u32(file.data + 4) != file.bytes - STANDING_HEADER ||
        get_u32(file.data + 8) != crc32c(0, file.data + STANDING_HEADER, file.bytes - STANDING_HEADER)) {
        return ERR_CORRUPT;
    }
    *ret_standing = slice_alloc(file.bytes - STANDING_HEADER);
    memcpy(ret_standing->data, file.data + STANDING_HEADER, ret_standing->bytes);
    return ERR_OK;
}

enum err standing_read(const char *dir, struct slice *ret_standing)
{
    char path[STANDING_PATH_BYTES];
    standing_path(dir, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
    }
    struct stat status;
    enum err err = fstat(fd, &status) == 0 ? ERR_OK : ERR_IO;
    if (err == ERR_OK && (status.st_size < STANDING_HEADER || status.st_size > STANDING_BYTES_MAX)) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        struct slice file = slice_alloc((size_t)status.st_size);
        err = read(fd, file.data, file.bytes) == (ssize_t)file.bytes ? standing_check(file, ret_standing) : ERR_IO;
        explicit_bzero(file.data, file.bytes);
        slice_drop(&file);
    }
    close(fd);
    return err;
}

enum err standing_write(const char *dir, struct slice standing)
{
    char path[STANDING_PATH_BYTES];
    standing_path(dir, path);
    struct slice file = slice_alloc(STANDING_HEADER + standing.bytes);
    memcpy(file.data, standing_magic, sizeof standing_magic);
    put_u32(file.data + 4, (uint32_t)standing.bytes);
    put_u32(file.data + 8, crc32c(0, standing.data, standing.bytes));
    memcpy(file.data + STANDING_HEADER, standing.data, standing.bytes);
    bool written = write_durably(dir, path, file.data, file.bytes);
    explicit_bzero(file.data, file.bytes);
    slice_drop(&file);
    return written ? ERR_OK : errno == ENOSPC ? ERR_DISK_FULL : ERR_IO;
}
