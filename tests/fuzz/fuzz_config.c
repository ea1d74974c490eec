/* Any bytes as a configuration file: they are read or refused with a text, and what is read is bound to keys of every
 * type without a leak. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *listen = NULL;
    int64_t node = 0;
    bool quiet = false;
    struct config_strings metads = {0};
    struct config_integers members = {0};
    const struct config_key keys[] = {
        {"listen", CONFIG_STRING, true, &listen, 0, 0},
        {"node", CONFIG_INTEGER, false, &node, 1, 65535},
        {"quiet", CONFIG_BOOL, false, &quiet, 0, 0},
        {"metads", CONFIG_STRINGS, false, &metads, 0, 0},
        {"raft.members", CONFIG_INTEGERS, false, &members, 1, 9},
    };
    char text[CONFIG_TEXT_BYTES] = "";
    enum err err = config_read_text("input", (const char *)data, bytes, keys, 5, text);
    CHECK(err == ERR_OK || err == ERR_CONFIG);
    CHECK((err == ERR_OK) == (listen != NULL));
    CHECK((err == ERR_OK) == (text[0] == 0));
    CHECK(strlen(text) < sizeof text);
    config_free(keys, 5);
    return 0;
}
