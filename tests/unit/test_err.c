/* The table of errors: numbers and names are unique, and every row can be said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static const struct {
    const char *name;
    int number;
} rows[] = {
#define ERR(name, number, class, exit_code, text) {#name, number},
#include "base/err.def"
#undef ERR
};
#define ROWS (sizeof rows / sizeof rows[0])

static void numbers_and_names_are_unique(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROWS; i++) {
        for (unsigned j = i + 1; j < ROWS; j++) {
            assert_int_not_equal(rows[i].number, rows[j].number);
            assert_string_not_equal(rows[i].name, rows[j].name);
            assert_string_not_equal(err_text((enum err)rows[i].number), err_text((enum err)rows[j].number));
        }
    }
}

static void every_row_can_be_said(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROWS; i++) {
        enum err err = (enum err)rows[i].number;
        assert_string_equal(err_name(err), rows[i].name);
        assert_true(strlen(err_text(err)) > 0);
        assert_int_equal(err_class(err) == ERR_CLASS_OK, err == ERR_OK);
        assert_int_equal(err_exit_code(err) == 0, err == ERR_OK);
        assert_true(rows[i].number >= 0 && rows[i].number <= UINT16_MAX); /* crosses the wire */
    }
    assert_int_equal(ERR_OK, 0);
}

static void unknown_numbers_are_fatal(void **state)
{
    (void)state;
    const int unknown[] = {-1, 59, 1000, INT32_MAX};
    for (unsigned i = 0; i < 4; i++) {
        assert_string_equal(err_name((enum err)unknown[i]), "UNKNOWN");
        assert_int_equal(err_class((enum err)unknown[i]), ERR_CLASS_FATAL);
        assert_int_equal(err_exit_code((enum err)unknown[i]), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_names_are_unique),
        cmocka_unit_test(every_row_can_be_said),
        cmocka_unit_test(unknown_numbers_are_fatal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
