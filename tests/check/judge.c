/* All checkers of histories (judge.h). */
#include "judge.h"

#include <inttypes.h>

#include "feed.h"
#include "linear.h"
#include "versions.h"

static void line_print(const struct report *report, FILE *out)
{
    if (out == NULL) {
        return;
    }
    fprintf(out, "%-9s %" PRIu64 " looked at, %" PRIu64 " found, %" PRIu64 " undecided\n", report->checker,
            report->looked, report->findings, report->undecided);
    if (report->findings > 0) {
        fprintf(out, "  %s\n", report->text);
    }
}

bool judge_history_report(struct history *history, const struct judge_options *options, FILE *out,
                          struct report *ret_report)
{
    struct report reports[3] = {0};
    struct linear_options linear = {.starts_empty = options->from_empty};
    struct feed_options feed = {.starts_empty = options->from_empty, .complete = options->complete};
    struct versions_options versions = {.complete = options->complete};
    linear_check(history, &linear, &reports[0]);
    feed_check(history, &feed, &reports[1]);
    versions_check(history, &versions, &reports[2]);
    bool good = reports[0].looked > 0;
    for (unsigned i = 0; i < 3; i++) {
        bool found = reports[i].findings > 0 || reports[i].undecided > 0;
        if (found && good && ret_report != NULL) {
            *ret_report = reports[i];
        }
        good = good && !found;
        line_print(&reports[i], out);
    }
    return good;
}

bool judge_history(struct history *history, const struct judge_options *options, FILE *out)
{
    return judge_history_report(history, options, out, NULL);
}
