/* capability_peek and capability_verify. Input: a capability. Fields that are read sign back to the same bytes; what
 * verifies was signed with our seed. */
#include <string.h>

#include "base/check.h"
#include "base/sign.h"
#include "fuzz.h"
#include "proto/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint8_t public_key[32];
    struct capability capability;
    sign_public_key(fuzz_secret, public_key);
    enum err verified = capability_verify(data, bytes, public_key, &capability);
    enum err peeked = capability_peek(data, bytes, &capability);
    CHECK((peeked == ERR_OK) == (bytes == CAPABILITY_BYTES));
    CHECK(verified == ERR_OK || verified == ERR_BAD_CAPABILITY);
    if (peeked == ERR_OK) {
        uint8_t again[CAPABILITY_BYTES];
        capability_sign(&capability, fuzz_secret, again);
        CHECK(memcmp(again, data, CAPABILITY_FIELD_BYTES) == 0);
        CHECK((verified == ERR_OK) == (memcmp(again, data, sizeof again) == 0));
    }
    return 0;
}
