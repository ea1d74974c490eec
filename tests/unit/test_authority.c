/* Certificates: what an authority issues is for that key and name and by that authority; what is no key or certificate
 * is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/authority.h"
#include "base/check.h"

#define WALL_NS 1790000000000000000ull

static void test_issue(void **state)
{
    (void)state;
    struct authority *made = NULL, *opened = NULL, *other = NULL;
    struct slice key = {0}, certificate = {0}, private_key = {0}, public_key = {0}, again = {0}, leaf = {0};
    assert_int_equal(authority_create(WALL_NS, &made), ERR_OK);
    assert_int_equal(authority_create(WALL_NS, &other), ERR_OK);
    assert_int_equal(authority_key(made, &key), ERR_OK);
    assert_int_equal(authority_certificate(made, &certificate), ERR_OK);
    assert_int_equal(authority_open(key, certificate, &opened), ERR_OK);
    assert_int_equal(identity_create(&private_key, &public_key), ERR_OK);
    assert_int_equal(identity_public(private_key, &again), ERR_OK);
    assert_int_equal(again.bytes, public_key.bytes);
    assert_memory_equal(again.data, public_key.data, again.bytes);
    for (int i = 0; i < 3; i++) {
        static const char *const hosts[] = {"10.0.0.3", "node-3.example", NULL};
        assert_int_equal(authority_issue(opened, public_key, "metad:3", hosts[i], WALL_NS, 60, &leaf), ERR_OK);
        const unsigned char *at = leaf.data;
        X509 *read = d2i_X509(NULL, &at, (long)leaf.bytes);
        at = certificate.data;
        X509 *issuer = d2i_X509(NULL, &at, (long)certificate.bytes);
        assert_non_null(read);
        assert_int_equal(X509_verify(read, X509_get0_pubkey(issuer)), 1);
        char name[64];
        assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(read), NID_commonName, name, sizeof name) > 0);
        assert_string_equal(name, "metad:3");
        time_t ends = (time_t)(WALL_NS / 1000000000 + 60);
        assert_int_equal(X509_cmp_time(X509_get0_notAfter(read), &ends), -1); /* not later than that very second */
        if (i == 0) {
            assert_int_equal(X509_check_ip_asc(read, "10.0.0.3", 0), 1);
        }
        X509_free(read);
        X509_free(issuer);
        slice_drop(&leaf);
    }
    struct slice said = slice_copy("said", 4), signature = {0};
    assert_int_equal(identity_sign(private_key, said, &signature), ERR_OK);
    assert_true(identity_verify(public_key, said, signature));
    said.data[0] ^= 1;
    assert_false(identity_verify(public_key, said, signature));
    said.data[0] ^= 1;
    assert_false(identity_verify(public_key, said, slice_borrow(signature.data, signature.bytes - 1)));
    assert_false(identity_verify(private_key, said, signature));
    assert_int_equal(identity_sign(public_key, said, &signature), ERR_CORRUPT);
    slice_drop(&said);
    slice_drop(&signature);
    struct slice foreign = {0};
    assert_int_equal(authority_certificate(other, &foreign), ERR_OK);
    struct authority *mixed = NULL;
    assert_int_equal(authority_open(key, foreign, &mixed), ERR_CORRUPT);
    assert_int_equal(authority_open(foreign, certificate, &mixed), ERR_CORRUPT);
    assert_int_equal(authority_issue(opened, private_key, "metad:3", NULL, WALL_NS, 60, &leaf), ERR_CORRUPT);
    assert_int_not_equal(authority_issue(opened, public_key, "metad:3", "a,DNS:b", WALL_NS, 60, &leaf), ERR_OK);
    assert_int_equal(identity_public(public_key, &again), ERR_CORRUPT);
    slice_drop(&foreign);
    slice_drop(&again);
    slice_wipe(&key);
    slice_wipe(&private_key);
    slice_drop(&public_key);
    slice_drop(&certificate);
    authority_destroy(made);
    authority_destroy(opened);
    authority_destroy(other);
}

static void test_pem(void **state)
{
    (void)state;
    struct slice der = slice_copy("some bytes of any kind", 22), back = {0};
    struct slice text = pem_encode("CERTIFICATE", der);
    assert_int_equal(pem_decode("CERTIFICATE", text, &back), ERR_OK);
    assert_int_equal(back.bytes, der.bytes);
    assert_memory_equal(back.data, der.data, der.bytes);
    assert_int_equal(pem_decode("PRIVATE KEY", text, &der), ERR_CORRUPT);
    text.data[30] = '#';
    assert_int_equal(pem_decode("CERTIFICATE", text, &der), ERR_CORRUPT);
    slice_drop(&der);
    slice_drop(&back);
    slice_drop(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_issue),
        cmocka_unit_test(test_pem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
