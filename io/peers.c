/* A file that remembers where metadata nodes are: a client or block server whose configuration names the first ones
 * only finds the cluster by it after all of these were replaced. It holds no secret and decides nothing: whoever
 * answers at an address must show the certificate of the node.
 *
 * Lines "NODE@HOST:PORT". Written whole and renamed; a file that is missing or malformed is as good as empty. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "io/runtime.h"

#define PEERS_FILE_BYTES (64u << 10)
#define PEERS_PATH_BYTES 4352u

bool runtime_peer_parse(const char *text, struct runtime_peer *ret_peer)
{
    char *end = NULL;
    unsigned long node = strtoul(text, &end, 10);
    const char *colon = strrchr(text, ':');
    if (*text < '1' || *text > '9' || *end != '@' || node > UINT32_MAX || colon == NULL || colon <= end + 1) {
        return false;
    }
    size_t host_bytes = (size_t)(colon - end - 1);
    const char *host = end + 1;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (host_bytes >= sizeof ret_peer->host || colon[1] < '0' || colon[1] > '9' || *end != '\0' || port < 1 ||
        port > 65535) {
        return false;
    }
    *ret_peer = (struct runtime_peer){.node = (uint32_t)node, .port = (uint16_t)port};
    memcpy(ret_peer->host, host, host_bytes);
    return true;
}

static size_t file_read(const char *path, char *ret_text, size_t bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd >= 0 ? read(fd, ret_text, bytes - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    ret_text[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

uint32_t runtime_peers_read(const char *path, struct runtime_peer *ret_peers, uint32_t most)
{
    char *text = mem_alloc(PEERS_FILE_BYTES), *save = NULL;
    uint32_t count = 0;
    file_read(path, text, PEERS_FILE_BYTES);
    for (char *line = strtok_r(text, "\n", &save); line != NULL && count < most; line = strtok_r(NULL, "\n", &save)) {
        count += runtime_peer_parse(line, &ret_peers[count]);
    }
    free(text);
    return count;
}

void runtime_peers_write(const char *path, const struct runtime_peer *peers, uint32_t count)
{
    char *text = mem_alloc(PEERS_FILE_BYTES), *now = mem_alloc(PEERS_FILE_BYTES), fresh[PEERS_PATH_BYTES];
    size_t bytes = 0;
    for (uint32_t i = 0; i < count && bytes + sizeof peers->host + 32 < PEERS_FILE_BYTES; i++) {
        bytes += (size_t)snprintf(text + bytes, PEERS_FILE_BYTES - bytes, "%u@%s:%u\n", peers[i].node, peers[i].host,
                                  peers[i].port);
    }
    bool same = file_read(path, now, PEERS_FILE_BYTES) == bytes && memcmp(text, now, bytes) == 0;
    bool fits = snprintf(fresh, sizeof fresh, "%s.%d", path, (int)getpid()) < (int)sizeof fresh;
    if (!same && fits) {
        int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        bool whole = fd >= 0 && write(fd, text, bytes) == (ssize_t)bytes;
        whole = fd >= 0 && close(fd) == 0 && whole;
        if (!whole || rename(fresh, path) != 0) {
            (void)unlink(fresh); /* it is a help, not a need: no room for it is no failure */
        }
    }
    free(text);
    free(now);
}
