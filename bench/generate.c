/* Files nobody has seen: xoshiro256** under a seed, which no compressor shortens and no cluster can have. They are
 * synced before anyone measures, so that their own write-back is not in the figures. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define BLOCK_BYTES (1u << 20)

double bench_now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct stream {
    uint64_t s[4];
};

static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull); /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static struct stream stream_of(uint64_t seed)
{
    struct stream stream;
    for (int i = 0; i < 4; i++) {
        stream.s[i] = mix(&seed);
    }
    return stream;
}

static uint64_t turn(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static uint64_t stream_next(struct stream *stream)
{
    uint64_t *s = stream->s, result = turn(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = turn(s[3], 45);
    return result;
}

static void stream_fill(struct stream *stream, uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = stream_next(stream);
        memcpy(data + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
}

static bool write_all(int fd, const uint8_t *data, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = write(fd, data + done, bytes - done);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* Writes `bytes` of the seed's stream at the descriptor's place. */
static bool write_stream(int fd, uint64_t seed, uint64_t bytes)
{
    uint8_t *block = malloc(BLOCK_BYTES);
    struct stream stream = stream_of(seed);
    bool ok = block != NULL;
    for (uint64_t done = 0; ok && done < bytes;) {
        size_t n = bytes - done < BLOCK_BYTES ? (size_t)(bytes - done) : BLOCK_BYTES;
        stream_fill(&stream, block, n);
        ok = write_all(fd, block, n);
        done += n;
    }
    free(block);
    return ok;
}

static bool file_make(const char *path, uint64_t seed, uint64_t bytes, uint64_t front, bool sync)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write_stream(fd, ~seed, front) && write_stream(fd, seed, bytes) && (!sync || fsync(fd) == 0);
    if (!ok) {
        fprintf(stderr, "cairn-bench: %s: %m\n", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

bool generate_file(const char *path, uint64_t seed, uint64_t bytes, uint64_t front)
{
    return file_make(path, seed, bytes, front, true);
}

bool generate_tree(const char *path, uint64_t seed, uint32_t files, uint64_t bytes)
{
    char name[BENCH_PATH];
    bool ok = mkdir(path, 0700) == 0;
    for (uint32_t i = 0; ok && i < files; i++) {
        snprintf(name, sizeof name, "%s/%05u", path, (unsigned)i);
        ok = file_make(name, seed + i, bytes, 0, false);
    }
    if (!ok) {
        fprintf(stderr, "cairn-bench: %s: %m\n", path);
    }
    sync();
    return ok;
}

bool generate_same(const char *path, uint64_t seed, uint64_t bytes)
{
    uint8_t *want = malloc(BLOCK_BYTES), *got = malloc(BLOCK_BYTES);
    struct stream stream = stream_of(seed);
    FILE *file = fopen(path, "rb");
    bool ok = want != NULL && got != NULL && file != NULL;
    for (uint64_t done = 0; ok && done < bytes;) {
        size_t n = bytes - done < BLOCK_BYTES ? (size_t)(bytes - done) : BLOCK_BYTES;
        stream_fill(&stream, want, n);
        ok = fread(got, 1, n, file) == n && memcmp(want, got, n) == 0;
        done += n;
    }
    ok = ok && fgetc(file) == EOF;
    if (file != NULL) {
        fclose(file);
    }
    free(want);
    free(got);
    return ok;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info;
    (void)type;
    (void)at;
    return remove(path);
}

void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
