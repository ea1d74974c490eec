/* Signals of a daemon: SIGTERM and SIGINT end it, SIGHUP has it read its configuration anew. They arrive on loop 0.
 *
 * Happy path of an end: the shell's `drain` tells the actors, the shell's `drained` is asked every few ms, and once it
 * says so the runtime stops. How it fails: what does not finish by the deadline is left, and said; a second signal does
 * not wait at all. */
#include <signal.h>
#include <stdlib.h>

#include "base/check.h"
#include "io/internal.h"

#define SIGNALS_COUNT 3
#define DRAIN_POLL_MS 5
#define NS_PER_MS     1000000u

static const int signal_numbers[SIGNALS_COUNT] = {SIGTERM, SIGINT, SIGHUP};

struct signals {
    struct runtime *runtime;
    uv_signal_t handles[SIGNALS_COUNT];
    uv_timer_t poll;
    bool draining;
    uint64_t began_ns;
};

static void drain_polled(uv_timer_t *timer)
{
    struct signals *signals = timer->data;
    const struct runtime_hooks *hooks = &signals->runtime->hooks;
    uint64_t took_ns = clock_now_ns() - signals->began_ns;
    if (hooks->drained(hooks->context)) {
        io_log(LOG_INFO, ERR_OK, "stopping: all work is finished after %llu ms",
               (unsigned long long)(took_ns / NS_PER_MS));
    } else if (took_ns > hooks->drain_ns) {
        io_log(LOG_WARN, ERR_TIMEOUT, "stopping: work is left after %llu ms",
               (unsigned long long)(took_ns / NS_PER_MS));
    } else {
        return;
    }
    runtime_stop(signals->runtime);
}

static void signals_end(struct signals *signals, int number)
{
    const struct runtime_hooks *hooks = &signals->runtime->hooks;
    if (hooks->drain == NULL || signals->draining) {
        io_log(LOG_INFO, ERR_OK, "stopping at once on signal %d", number);
        runtime_stop(signals->runtime);
        return;
    }
    io_log(LOG_INFO, ERR_OK, "signal %d: finishing what was begun", number);
    signals->draining = true;
    signals->began_ns = clock_now_ns();
    hooks->drain(hooks->context);
    uv_timer_start(&signals->poll, drain_polled, 0, DRAIN_POLL_MS);
}

static void signalled(uv_signal_t *handle, int number)
{
    struct signals *signals = handle->data;
    if (number != SIGHUP) {
        signals_end(signals, number);
    } else if (signals->runtime->hooks.reload != NULL) {
        signals->runtime->hooks.reload(signals->runtime->hooks.context);
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
    uv_timer_init(&runtime->loops[0].uv, &signals->poll);
    signals->poll.data = signals;
    return signals;
}

void signals_close(struct signals *signals)
{
    for (int i = 0; i < SIGNALS_COUNT; i++) {
        uv_close((uv_handle_t *)&signals->handles[i], NULL);
    }
    uv_close((uv_handle_t *)&signals->poll, NULL);
}

void signals_destroy(struct signals *signals)
{
    free(signals);
}
