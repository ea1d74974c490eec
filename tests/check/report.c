/* Findings (report.h). */
#include "report.h"

#include <stdarg.h>
#include <stdio.h>

void report_find(struct report *report, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (report->findings++ == 0) {
        vsnprintf(report->text, sizeof report->text, format, arguments);
    }
    va_end(arguments);
}
