/* receipt_peek and receipt_verify. Input: a receipt. Fields that are read sign back to the same bytes; what verifies
 * carries our MAC. */
#include <string.h>

#include "base/check.h"
#include "fuzz.h"
#include "proto/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct receipt receipt;
    enum err verified = receipt_verify(data, bytes, fuzz_secret, &receipt);
    enum err peeked = receipt_peek(data, bytes, &receipt);
    CHECK((peeked == ERR_OK) == (bytes == RECEIPT_BYTES));
    CHECK(verified == ERR_OK || verified == ERR_BAD_RECEIPT);
    if (peeked == ERR_OK) {
        uint8_t again[RECEIPT_BYTES];
        receipt_sign(&receipt, fuzz_secret, again);
        CHECK(memcmp(again, data, RECEIPT_FIELD_BYTES) == 0);
        CHECK((verified == ERR_OK) == (memcmp(again, data, sizeof again) == 0));
    }
    return 0;
}
