/* `cairn admin cluster init|join`: what its parts share. */
#ifndef CAIRN_CLIENT_CLI_CLUSTER_H
#define CAIRN_CLIENT_CLI_CLUSTER_H

#include "dev.h"
#include "document.h"

#define CLUSTER_STORES 64u

struct cluster_options {
    const char *dir, *listen, *advertise, *workspace, *pool, *token, *host, *rack;
    const char *store[CLUSTER_STORES];
    uint32_t store_count, stores;
    uint64_t capacity_bytes;
    bool unsafe_lose_majority;
};

/* The commands: exit codes. */
int cluster_init(struct cluster_options *options);
int cluster_join(struct cluster_options *options);
int cluster_recover(const struct cluster_options *options);

/* One line to stderr; the code's exit code, or that of wrong usage. */
int cluster_fail(enum err err, const char *text);
int cluster_usage(const char *text);
/* HOST of "HOST:PORT"; false when it is anything else. */
bool cluster_address_host(const char *address, char *ret_host, size_t bytes);
/* Makes DIR (0700); its absolute path. EXISTS when it holds a node. */
MUST_CHECK enum err cluster_directory_take(const char *dir, char ret_dir[PATH_MAX], char *ret_text);

/* What a configuration of a node or client begins with. */
void document_add_identity(struct document *d, const char *dir, const char *role, uint32_t node,
                           const struct uuid *cluster, uint64_t incarnation, const char *base);
void document_add_metads(struct document *d, char *const *metads, size_t count);
/* What only a metadata node's has. */
void document_add_metad(struct document *d, const char *dir, uint32_t groups);

#endif
