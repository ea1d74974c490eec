/* The answer to --version. */
#include "proto/version.h"

#include "proto/frame.h"

void version_print(FILE *out, const char *program)
{
    fprintf(out, "%s %s\n", program, CAIRN_VERSION);
    fprintf(out, "on disk: metad directory %d, store directory %d\n", FORMAT_METAD, FORMAT_STORE);
    fprintf(out, "wire: version %d, features 0x%x\n", FRAME_VERSION, WIRE_FEATURES);
}
