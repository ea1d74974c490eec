/* Runs every file of the folders given through a fuzz target: without libFuzzer the corpus is a regression test. A bad
 * input ends the process inside the target; an empty corpus fails, so that a lost one is noticed. */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "fuzz.h"

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long bytes = ftell(file);
    CHECK(bytes >= 0 && bytes < 64 << 20);
    rewind(file);
    /* its own allocation of exactly that length, so that a sanitizer sees a byte read too far */
    uint8_t *data = malloc(bytes > 0 ? (size_t)bytes : 1);
    CHECK(data != NULL);
    CHECK(fread(data, 1, (size_t)bytes, file) == (size_t)bytes);
    fclose(file);
    (void)LLVMFuzzerTestOneInput(data, (size_t)bytes);
    free(data);
}

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static unsigned replay_folder(const char *folder)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, is_input, alphasort);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        CHECK(snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name) < (int)sizeof path);
        replay_file(path);
        free(entries[i]);
    }
    free(entries);
    return count > 0 ? (unsigned)count : 0;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++) {
        unsigned found = replay_folder(argv[i]);
        if (found == 0) {
            fprintf(stderr, "%s: no inputs\n", argv[i]);
            return 1;
        }
        count += found;
    }
    printf("%u inputs\n", count);
    return count > 0 ? 0 : 1;
}
