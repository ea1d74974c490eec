/* `cairn admin cluster recover`: hands over to `metad --recover` on the directory of a node that is left, which has the
 * log (metad/shell/recover.c) and says everything itself. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"

int cluster_recover(const struct cluster_options *options)
{
    char config[DEV_PATH_BYTES], binary[DEV_PATH_BYTES], text[DEV_TEXT_BYTES];
    if (options->dir == NULL || options->listen != NULL || options->token != NULL) {
        return cluster_usage("'recover' takes --dir DIR of the metadata node that is left, and no --listen or --token");
    }
    snprintf(config, sizeof config, "%s/node.toml", options->dir);
    if (access(config, R_OK) != 0) {
        snprintf(text, sizeof text, "%.800s: %s; name the directory of a metadata node", config, strerror(errno));
        return cluster_fail(ERR_NOT_FOUND, text);
    }
    enum err err = dev_binary_find(DEV_METAD, binary, text);
    if (err != ERR_OK) {
        return cluster_fail(err, text);
    }
    char *arguments[] = {(char *)"metad",
                         (char *)"--config",
                         config,
                         (char *)"--recover",
                         options->unsafe_lose_majority ? (char *)"--unsafe-lose-majority" : NULL,
                         NULL};
    execv(binary, arguments);
    snprintf(text, sizeof text, "%.800s: %s", binary, strerror(errno));
    return cluster_fail(ERR_IO, text);
}
