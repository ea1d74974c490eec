/* The directory of a development cluster: taking it, making all files of a new cluster, reading back what was chosen.
 * dev.toml is written last and by rename, so a cluster whose making was interrupted is simply made again. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/authority.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/config.h"
#include "base/seal.h"
#include "dev.h"
#include "document.h"

#define DEV_CHUNK_BYTES   LIMIT_CHUNK_BYTES
#define DEV_PG_BITS       6
#define DEV_GROUPS        2
#define DEV_STORE_MIN     (1ull << 30) /* capacity told of a store on a nearly full disk */
#define DEV_PORT_LOW      15000
#define DEV_PORT_HIGH     32000
#define DEV_PORT_TRIES    4000
#define DEV_DIR_BYTES_MAX 350u /* with a store's name behind it still a data directory the runtime takes */

enum err dev_refuse(enum err err, char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, DEV_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return err;
}

uint32_t dev_node_count(const struct dev_cluster *cluster)
{
    return cluster->metads + cluster->blockds;
}

struct dev_node dev_node_at(const struct dev_cluster *cluster, uint32_t index)
{
    CHECK(index < dev_node_count(cluster));
    struct dev_node node = {.role = index < cluster->metads ? DEV_METAD : DEV_BLOCKD, .port = cluster->ports[index]};
    node.number = node.role == DEV_METAD ? index + 1 : index - cluster->metads + 1;
    snprintf(node.name, sizeof node.name, "%s%u", node.role == DEV_METAD ? "metad" : "blockd", node.number % 100000);
    snprintf(node.dir, sizeof node.dir, "%s/%s", cluster->dir, node.name);
    return node;
}

enum err dev_node_find(const struct dev_cluster *cluster, const char *name, struct dev_node *ret_node)
{
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (strcmp(node.name, name) == 0) {
            *ret_node = node;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

static enum err sync_directory_of(const char *path, char *ret_text)
{
    char dir[DEV_PATH_BYTES];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    CHECK(slash != NULL);
    *slash = 0;
    int fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    enum err err = synced ? ERR_OK : dev_refuse(ERR_IO, ret_text, "%s: cannot be synced: %s", dir, strerror(errno));
    if (fd >= 0) {
        close(fd);
    }
    return err;
}

enum err dev_file_write(const char *path, const void *data, size_t bytes, mode_t mode, char *ret_text)
{
    char fresh[DEV_PATH_BYTES + 16];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    if (fd < 0) {
        return dev_refuse(ERR_IO, ret_text, "%s: cannot be made: %s", fresh, strerror(errno));
    }
    size_t done = 0;
    while (done < bytes) {
        ssize_t wrote = write(fd, (const char *)data + done, bytes - done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        if (wrote <= 0) {
            break;
        }
        done += (size_t)wrote;
    }
    bool whole = done == bytes && fchmod(fd, mode) == 0 && fsync(fd) == 0;
    int reason = errno;
    whole = close(fd) == 0 && whole;
    if (!whole || rename(fresh, path) != 0) {
        return dev_refuse(reason == ENOSPC ? ERR_NO_ROOM : ERR_IO, ret_text, "%s: cannot be written: %s", path,
                          strerror(whole ? errno : reason));
    }
    return sync_directory_of(path, ret_text);
}

/* Nothing in it, or a lock file that an earlier `dev up` left. */
static enum err check_is_ours(const char *dir, char *ret_text)
{
    DIR *listing = opendir(dir);
    if (!listing) {
        return dev_refuse(ERR_IO, ret_text, "%s: cannot be listed: %s", dir, strerror(errno));
    }
    bool lock = false, others = false;
    for (struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        if (strcmp(entry->d_name, "dev.lock") == 0) {
            lock = true;
        } else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            others = true;
        }
    }
    closedir(listing);
    if (others && !lock) {
        return dev_refuse(ERR_NOT_OURS, ret_text,
                          "%s is not empty and holds no development cluster; name an empty or new directory with --dir",
                          dir);
    }
    return ERR_OK;
}

enum err dev_directory_lock(struct dev_cluster *cluster, const char *dir, bool create, char *ret_text)
{
    if (create && mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return dev_refuse(ERR_IO, ret_text, "%s: cannot be made: %s; make its parent first", dir, strerror(errno));
    }
    if (!realpath(dir, cluster->dir)) {
        return dev_refuse(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, ret_text,
                          "%s: %s; 'cairn dev up --dir %s' makes a cluster", dir, strerror(errno), dir);
    }
    enum err err = check_is_ours(cluster->dir, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    char path[DEV_PATH_BYTES];
    snprintf(path, sizeof path, "%s/dev.lock", cluster->dir);
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
    if (fd < 0) {
        return dev_refuse(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, ret_text,
                          "%s: %s; 'cairn dev up --dir %s' makes a cluster", path, strerror(errno), dir);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return dev_refuse(ERR_IN_USE, ret_text, "%s: another 'cairn dev' command works on it; wait for it to end",
                          cluster->dir);
    }
    cluster->lock_fd = fd;
    return ERR_OK;
}

static enum err random_fill(void *data, size_t bytes, char *ret_text)
{
    if (getrandom(data, bytes, 0) != (ssize_t)bytes) {
        return dev_refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
    }
    return ERR_OK;
}

/* The ports connections go out from; a node listening there would lose its port to one of them while it is down. */
static void outgoing_ports(unsigned *ret_low, unsigned *ret_high)
{
    *ret_low = 32768;
    *ret_high = 60999;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (file) {
        unsigned low, high;
        if (fscanf(file, "%u %u", &low, &high) == 2) {
            *ret_low = low;
            *ret_high = high;
        }
        fclose(file);
    }
}

/* A socket bound to the port, -1 when it is taken. port 0: any. */
static int bind_port(uint16_t port, uint16_t *ret_port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

/* One free port that no outgoing connection takes, or any free one when none is found. */
static int bind_free_port(uint16_t *ret_port)
{
    unsigned low, high;
    outgoing_ports(&low, &high);
    for (int i = 0; i < DEV_PORT_TRIES; i++) {
        uint32_t random;
        if (getrandom(&random, sizeof random, 0) != sizeof random) {
            break;
        }
        unsigned port = DEV_PORT_LOW + random % (DEV_PORT_HIGH - DEV_PORT_LOW);
        if (port >= low && port <= high) {
            continue;
        }
        int fd = bind_port((uint16_t)port, ret_port);
        if (fd >= 0) {
            return fd;
        }
    }
    return bind_port(0, ret_port);
}

enum err dev_ports_pick(uint16_t *ret_ports, uint32_t count, uint32_t first, char *ret_text)
{
    CHECK(count <= DEV_NODES);
    int fds[DEV_NODES];
    uint32_t bound = 0;
    enum err err = ERR_OK;
    for (; err == ERR_OK && bound < count; bound++) {
        fds[bound] =
            first ? bind_port((uint16_t)(first + bound), &ret_ports[bound]) : bind_free_port(&ret_ports[bound]);
        if (fds[bound] < 0) {
            err = first ? dev_refuse(ERR_IN_USE, ret_text,
                                     "port %u is taken; choose another with --port or leave it out", first + bound)
                        : dev_refuse(ERR_IO, ret_text, "no free port on 127.0.0.1: %s", strerror(errno));
            break;
        }
    }
    for (uint32_t i = 0; i < bound; i++) {
        close(fds[i]);
    }
    return err;
}

/* What all configuration files of a cluster begin with. A client's holds for any incarnation: 0. */
static void add_identity(struct document *d, const struct dev_cluster *cluster, const char *role, uint32_t node,
                         uint64_t incarnation)
{
    document_string(d, "role", "%s", role);
    document_add(d, "node = %u\n", node);
    document_hex(d, "cluster", &cluster->uuid, sizeof cluster->uuid);
    document_add(d, "cluster_incarnation = %llu\n", (unsigned long long)incarnation);
    document_string(d, "ca", "%s/ca.crt", cluster->dir);
}

static void add_metads(struct document *d, const struct dev_cluster *cluster)
{
    document_add(d, "metads = [");
    for (uint32_t i = 0; i < cluster->metads; i++) {
        document_add(d, "%s\"%u@127.0.0.1:%u\"", i ? ", " : "", i + 1, cluster->ports[i]);
    }
    document_add(d, "]\n");
}

static enum err make_node(const struct dev_cluster *cluster, const struct dev_node *node, struct authority *authority,
                          char *ret_text)
{
    if (mkdir(node->dir, 0700) != 0 && errno != EEXIST) {
        return dev_refuse(ERR_IO, ret_text, "%s: cannot be made: %s", node->dir, strerror(errno));
    }
    const char *role = node->role == DEV_METAD ? "metad" : "blockd";
    char common_name[32];
    snprintf(common_name, sizeof common_name, "%s:%u", role, node->number);
    enum err err = dev_certificate_make(authority, node->dir, "node", common_name, "127.0.0.1", NULL, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    struct document *d = mem_alloc(sizeof *d);
    add_identity(d, cluster, role, node->number, cluster->incarnation);
    document_string(d, "listen", "127.0.0.1:%u", node->port);
    document_string(d, "cert", "%s/node.crt", node->dir);
    document_string(d, "key", "%s/node.key", node->dir);
    document_string(d, "log", "%s/log", node->dir);
    add_metads(d, cluster);
    if (node->role == DEV_METAD) {
        document_string(d, "data", "%s/data", node->dir);
        document_string(d, "cluster_key", "%s/cluster.key", cluster->dir);
        document_string(d, "bootstrap", "%s/bootstrap.toml", cluster->dir);
        document_add(d, "groups = %d\n", DEV_GROUPS);
    } else {
        document_string(d, "host", "host%u", node->number);
        document_string(d, "rack", "rack%u", (node->number - 1) % cluster->racks + 1);
        document_add(d, "stores = [");
        for (uint32_t i = 0; i < cluster->stores; i++) {
            char store[DEV_PATH_BYTES + 32];
            snprintf(store, sizeof store, "%s/store%u", node->dir, i + 1);
            document_add(d, i ? ", " : "");
            document_quoted(d, store);
        }
        document_add(d, "]\ncapacity_bytes = %llu\n", (unsigned long long)cluster->capacity_bytes);
    }
    err = document_write(d, node->dir, "node.toml", 0600, ret_text);
    free(d);
    return err;
}

static enum err make_client(const struct dev_cluster *cluster, struct authority *authority, struct sha256 *ret_bearer,
                            char *ret_text)
{
    enum err err =
        dev_certificate_make(authority, cluster->dir, "client", "device:1", "127.0.0.1", ret_bearer, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    struct document *d = mem_alloc(sizeof *d);
    add_identity(d, cluster, "device", 1, 0);
    document_string(d, "cert", "%s/client.crt", cluster->dir);
    document_string(d, "key", "%s/client.key", cluster->dir);
    document_string(d, "user", "root");
    document_string(d, "workspace", "%s", cluster->workspace);
    add_metads(d, cluster);
    document_string(d, "keys", "%s/client.keys", cluster->dir);
    err = document_write(d, cluster->dir, "client.toml", 0600, ret_text);
    free(d);
    return err;
}

static enum err bootstrap_document(struct document *d, const struct dev_bootstrap *bootstrap,
                                   const struct authority *authority, const uint8_t key[32], char *ret_text)
{
    uint8_t random[32];
    struct slice secret = {0}, certificate = {0};
    enum err err = random_fill(random, sizeof random, ret_text);
    if (err == ERR_OK) {
        err = authority_key(authority, &secret);
    }
    if (err == ERR_OK) {
        err = authority_certificate(authority, &certificate);
    }
    if (err == ERR_OK) {
        struct slice sealed = value_seal(key, AUTHORITY_USE, strlen(AUTHORITY_USE), secret.data, secret.bytes);
        document_hex(d, "cluster", &bootstrap->cluster, sizeof bootstrap->cluster);
        document_add(d, "cluster_incarnation = %llu\nmembers = [", (unsigned long long)bootstrap->incarnation);
        for (uint32_t i = 1; i <= bootstrap->metads; i++) {
            document_add(d, "%s%u", i > 1 ? ", " : "", i);
        }
        document_add(d, "]\n");
        document_hex(d, "random", random, sizeof random);
        document_string(d, "workspace", "%s", bootstrap->workspace);
        document_string(d, "pool", "%s", bootstrap->pool);
        document_add(d, "stores = %u\nchunk_bytes = %u\npg_bits = %d\ndevice = 1\n", bootstrap->stores, DEV_CHUNK_BYTES,
                     DEV_PG_BITS);
        document_hex(d, "bearer", &bootstrap->bearer, sizeof bootstrap->bearer);
        document_hex(d, "authority_sealed", sealed.data, sealed.bytes);
        document_hex(d, "authority", certificate.data, certificate.bytes);
        slice_drop(&sealed);
    }
    slice_wipe(&secret);
    slice_drop(&certificate);
    return err;
}

enum err dev_bootstrap_make(const char *dir, const struct dev_bootstrap *bootstrap, const struct authority *authority,
                            char *ret_text)
{
    uint8_t key[32];
    char path[DEV_PATH_BYTES];
    enum err err = random_fill(key, sizeof key, ret_text);
    if (err == ERR_OK) {
        snprintf(path, sizeof path, "%s/cluster.key", dir);
        err = dev_file_write(path, key, sizeof key, 0600, ret_text);
    }
    struct document *d = mem_alloc(sizeof *d);
    if (err == ERR_OK) {
        err = bootstrap_document(d, bootstrap, authority, key, ret_text);
    }
    explicit_bzero(key, sizeof key);
    if (err == ERR_OK) {
        err = document_write(d, dir, "bootstrap.toml", 0600, ret_text);
    }
    free(d);
    return err;
}

static enum err write_cluster(const struct dev_cluster *cluster, char *ret_text)
{
    struct document *d = mem_alloc(sizeof *d);
    document_add(d, "# A development cluster: 'cairn dev --help'.\n");
    document_hex(d, "cluster", &cluster->uuid, sizeof cluster->uuid);
    document_add(d, "cluster_incarnation = %llu\n", (unsigned long long)cluster->incarnation);
    document_add(d, "metads = %u\nblockds = %u\nstores = %u\nracks = %u\n", cluster->metads, cluster->blockds,
                 cluster->stores, cluster->racks);
    document_string(d, "pool", "%s", cluster->pool);
    document_string(d, "workspace", "%s", cluster->workspace);
    document_add(d, "ports = [");
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        document_add(d, "%s%u", i ? ", " : "", cluster->ports[i]);
    }
    document_add(d, "]\n");
    enum err err = document_write(d, cluster->dir, "dev.toml", 0600, ret_text);
    free(d);
    return err;
}

/* Free space shared out among the stores, a tenth left over. */
static uint64_t store_capacity(const struct dev_cluster *cluster)
{
    struct statvfs fs;
    uint64_t stores = (uint64_t)cluster->blockds * cluster->stores;
    if (statvfs(cluster->dir, &fs) != 0 || stores == 0) {
        return DEV_STORE_MIN;
    }
    uint64_t share = (uint64_t)fs.f_bavail * fs.f_frsize / 10 * 9 / stores;
    share -= share % LIMIT_STORE_SEGMENT_BYTES;
    return share < DEV_STORE_MIN ? DEV_STORE_MIN : share;
}

/* Paths go into configuration files, which are UTF-8. */
static enum err check_path(const struct dev_cluster *cluster, char *ret_text)
{
    struct document *d = mem_alloc(sizeof *d);
    document_string(d, "dir", "%s", cluster->dir);
    struct config_document read;
    char reason[CONFIG_TEXT_BYTES];
    enum err err = config_parse(d->text, d->bytes, &read, reason);
    free(d);
    if (err != ERR_OK || strlen(cluster->dir) > DEV_DIR_BYTES_MAX) {
        if (err == ERR_OK) {
            config_document_deinit(&read);
        }
        return dev_refuse(ERR_INVALID, ret_text, "%s: the path must be valid UTF-8 and shorter than %u bytes",
                          cluster->dir, CONFIG_STRING_BYTES - 64);
    }
    config_document_deinit(&read);
    return ERR_OK;
}

enum err dev_cluster_make(struct dev_cluster *cluster, char *ret_text)
{
    CHECK(cluster->lock_fd >= 0 && cluster->racks > 0);
    enum err err = check_path(cluster, ret_text);
    if (err == ERR_OK) {
        err = random_fill(&cluster->uuid, sizeof cluster->uuid, ret_text);
    }
    if (err == ERR_OK) {
        err = dev_ports_pick(cluster->ports, dev_node_count(cluster), cluster->port, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    cluster->incarnation = 1;
    cluster->capacity_bytes = store_capacity(cluster);
    struct authority *authority;
    err = dev_authority_create(cluster->dir, true, &authority, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    struct sha256 bearer = {0};
    err = make_client(cluster, authority, &bearer, ret_text);
    if (err == ERR_OK) {
        const struct dev_bootstrap bootstrap = {.cluster = cluster->uuid,
                                                .incarnation = cluster->incarnation,
                                                .metads = cluster->metads,
                                                .stores = cluster->blockds * cluster->stores,
                                                .pool = cluster->pool,
                                                .workspace = cluster->workspace,
                                                .bearer = bearer};
        err = dev_bootstrap_make(cluster->dir, &bootstrap, authority, ret_text);
    }
    for (uint32_t i = 0; err == ERR_OK && i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        err = make_node(cluster, &node, authority, ret_text);
    }
    authority_destroy(authority);
    return err == ERR_OK ? write_cluster(cluster, ret_text) : err;
}

/* Copies a short string of dev.toml. */
static bool take_string(char *ret, size_t capacity, const char *string)
{
    return snprintf(ret, capacity, "%s", string) < (int)capacity;
}

enum err dev_cluster_load(struct dev_cluster *cluster, const char *dir, char *ret_text)
{
    char path[DEV_PATH_BYTES], *uuid = NULL, *pool = NULL, *workspace = NULL;
    if (!realpath(dir, cluster->dir)) {
        return dev_refuse(errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, ret_text,
                          "%s: %s; 'cairn dev up --dir %s' makes a cluster", dir, strerror(errno), dir);
    }
    snprintf(path, sizeof path, "%s/dev.toml", cluster->dir);
    if (access(path, F_OK) != 0) {
        return dev_refuse(ERR_NOT_FOUND, ret_text, "no cluster in %s; 'cairn dev up --dir %s' makes one", dir, dir);
    }
    int64_t incarnation = 0, metads = 0, blockds = 0, stores = 0, racks = 0;
    struct config_integers ports = {0};
    const struct config_key keys[] = {
        {"cluster", CONFIG_STRING, true, &uuid, 0, 0},
        {"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
        {"metads", CONFIG_INTEGER, true, &metads, 1, DEV_METADS},
        {"blockds", CONFIG_INTEGER, true, &blockds, 1, DEV_BLOCKDS},
        {"stores", CONFIG_INTEGER, true, &stores, 1, DEV_STORES},
        {"racks", CONFIG_INTEGER, true, &racks, 1, DEV_BLOCKDS},
        {"pool", CONFIG_STRING, true, &pool, 0, 0},
        {"workspace", CONFIG_STRING, true, &workspace, 0, 0},
        {"ports", CONFIG_INTEGERS, true, &ports, 1, 65535},
    };
    const size_t key_count = sizeof keys / sizeof keys[0];
    char reason[CONFIG_TEXT_BYTES];
    enum err err = config_read(path, keys, key_count, reason);
    if (err != ERR_OK) {
        err = dev_refuse(err, ret_text, "%s", reason);
    } else if (!hex_decode(uuid, sizeof cluster->uuid, &cluster->uuid) || ports.count != metads + blockds ||
               !take_string(cluster->pool, sizeof cluster->pool, pool) ||
               !take_string(cluster->workspace, sizeof cluster->workspace, workspace)) {
        err = dev_refuse(ERR_CONFIG, ret_text, "%s: does not hold together; restore it or make a new cluster elsewhere",
                         path);
    } else {
        cluster->incarnation = (uint64_t)incarnation;
        cluster->metads = (uint32_t)metads;
        cluster->blockds = (uint32_t)blockds;
        cluster->stores = (uint32_t)stores;
        cluster->racks = (uint32_t)racks;
        for (uint32_t i = 0; i < ports.count; i++) {
            cluster->ports[i] = (uint16_t)ports.items[i];
        }
    }
    config_free(keys, key_count);
    return err;
}
