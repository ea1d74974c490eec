/* Signals of a daemon, which arrive on loop 0: SIGTERM and SIGINT end it in order (drain.c), a second one at once,
 * SIGHUP has its shell read the configuration anew. What was not acknowledged is asked again by whoever asked. */
#include <signal.h>
#include <stdlib.h>

#include "base/check.h"
#include "io/internal.h"

#define SIGNALS_COUNT 3

static const int signal_numbers[SIGNALS_COUNT] = {SIGTERM, SIGINT, SIGHUP};

struct signals {
    struct runtime *runtime;
    uv_signal_t handles[SIGNALS_COUNT];
};

static void signalled(uv_signal_t *handle, int number)
{
    struct runtime *runtime = ((struct signals *)handle->data)->runtime;
    if (number != SIGHUP) {
        drain_signalled(runtime, number);
    } else if (runtime->hooks.reload != NULL) {
        runtime->hooks.reload(runtime->hooks.context);
    }
}

struct signals *signals_create(struct runtime *runtime)
{
    struct signals *signals = mem_alloc(sizeof *signals);
    signals->runtime = runtime;
    for (int i = 0; i < SIGNALS_COUNT; i++) {
        uv_signal_init(&runtime->loops[0].uv, &signals->handles[i]);
        signals->handles[i].data = signals;
        uv_signal_start(&signals->handles[i], signalled, signal_numbers[i]);
        uv_unref((uv_handle_t *)&signals->handles[i]);
    }
    return signals;
}

void signals_close(struct signals *signals)
{
    for (int i = 0; i < SIGNALS_COUNT; i++) {
        uv_close((uv_handle_t *)&signals->handles[i], NULL);
    }
}

void signals_destroy(struct signals *signals)
{
    free(signals);
}
