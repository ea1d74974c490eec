/* `cairn admin cluster init`: DIR/ca.crt, cluster.key, bootstrap.toml, node.toml with node.key and node.crt (metad:1),
 * client.toml with its key and certificate (device:1, the root user). The authority's key is kept nowhere but in
 * bootstrap.toml, wrapped by the cluster key; from there the root group has it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/authority.h"
#include "base/check.h"
#include "cluster.h"

#define CLUSTER_GROUPS 2

/* Shards of a pool; 0 when the name is malformed. */
static uint32_t pool_shards(const char *pool)
{
    unsigned k = 0, m = 0;
    int end = 0;
    if (sscanf(pool, "rs-%2u-%2u%n", &k, &m, &end) == 2 && pool[end] == '\0' && k >= 1 && m >= 1 &&
        k + m <= LIMIT_SHARDS) {
        return k + m;
    }
    return sscanf(pool, "rep-%2u%n", &k, &end) == 1 && pool[end] == '\0' && k >= 1 && k <= LIMIT_SHARDS ? k : 0;
}

static enum err init_configurations(const struct cluster_options *options, const char *dir, const struct uuid *cluster,
                                    char *ret_text)
{
    char first[300], *metads[] = {first};
    snprintf(first, sizeof first, "1@%s", options->advertise);
    struct document *d = mem_alloc(sizeof *d);
    document_add_identity(d, dir, "device", 1, cluster, 0, "client");
    document_string(d, "user", "root");
    document_string(d, "workspace", "%s", options->workspace);
    document_add_metads(d, metads, 1);
    document_string(d, "keys", "%s/client.keys", dir);
    enum err err = document_write(d, dir, "client.toml", 0600, ret_text);
    if (err == ERR_OK) {
        *d = (struct document){0};
        document_add_identity(d, dir, "metad", 1, cluster, 1, "node");
        document_string(d, "listen", "%s", options->listen);
        document_string(d, "advertise", "%s", options->advertise);
        document_add_metads(d, metads, 1);
        document_add_metad(d, dir, CLUSTER_GROUPS);
        err = document_write(d, dir, "node.toml", 0600, ret_text);
    }
    free(d);
    return err;
}

static enum err init_make(const struct cluster_options *options, const char *host, char *dir, char *ret_text)
{
    struct authority *authority = NULL;
    struct dev_bootstrap bootstrap = {.incarnation = 1,
                                      .metads = 1,
                                      .stores = options->stores,
                                      .pool = options->pool,
                                      .workspace = options->workspace};
    enum err err = cluster_directory_take(options->dir, dir, ret_text);
    if (err == ERR_OK && getrandom(&bootstrap.cluster, sizeof bootstrap.cluster, 0) != sizeof bootstrap.cluster) {
        err = dev_refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
    }
    if (err == ERR_OK) {
        err = dev_authority_create(dir, false, &authority, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = dev_certificate_make(authority, dir, "client", "device:1", NULL, &bootstrap.bearer, ret_text);
    if (err == ERR_OK) {
        err = dev_certificate_make(authority, dir, "node", "metad:1", host, NULL, ret_text);
    }
    if (err == ERR_OK) {
        err = dev_bootstrap_make(dir, &bootstrap, authority, ret_text);
    }
    authority_destroy(authority);
    return err == ERR_OK ? init_configurations(options, dir, &bootstrap.cluster, ret_text) : err;
}

int cluster_init(struct cluster_options *options)
{
    char host[256], dir[PATH_MAX], text[DEV_TEXT_BYTES];
    uint32_t shards = pool_shards(options->pool);
    if (options->token != NULL || options->store_count > 0 || options->capacity_bytes > 0) {
        return cluster_usage("--token, --store and --capacity belong to 'join'");
    }
    if (shards == 0) {
        return cluster_usage("--pool is not rs-K-M or rep-N");
    }
    if (options->workspace[0] == '\0' || strlen(options->workspace) > 63 || strpbrk(options->workspace, ":/") != NULL) {
        return cluster_usage("--workspace must have 1 to 63 bytes without ':' and '/'");
    }
    options->stores = options->stores > 0 ? options->stores : shards;
    if (!cluster_address_host(options->advertise, host, sizeof host)) {
        return cluster_usage("--listen and --advertise must be HOST:PORT");
    }
    enum err err = init_make(options, host, dir, text);
    if (err != ERR_OK) {
        return cluster_fail(err, text);
    }
    printf("a cluster in %s; keep a copy of %s/cluster.key: losing it loses every file. Next:\n", dir, dir);
    printf("  metad --config %s/node.toml &\n  export CAIRN_CONFIG=%s/client.toml\n", dir, dir);
    printf("  cairn admin token create --role blockd     # one for each of %u stores' servers; then join there\n",
           options->stores);
    return 0;
}
