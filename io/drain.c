/* An end in order, asked for by SIGTERM or SIGINT.
 *
 * Happy path: the shell hands over what others can do as well (hooks.drain) and says when it has (hooks.drained); then
 * no connection is accepted, requests are refused with CLOSED, and when every loop says that all it took is answered
 * and written, the runtime stops. Each step is looked at every DRAIN_LOOK_MS.
 *
 * How it fails: after the shell's drain_ns, or at a second signal, it stops whatever is left: nobody loses what was
 * acknowledged, whoever waits asks again. */
#include <stdlib.h>

#include "base/check.h"
#include "io/internal.h"

#define DRAIN_LOOK_MS 10u

struct drain {
    struct runtime *runtime;
    uv_timer_t timer;
    uint64_t begun_ns;
    bool handed_over;
    bool asked; /* the loops were asked how much is left */
};

static void look_task_run(struct loop *loop, struct task *task, bool drop)
{
    if (!drop) {
        atomic_store(&loop->unfinished, net_unfinished(loop->net));
    }
    free(task);
}

/* Asks every loop to count again; true when all had nothing left when they were asked last. */
static bool drain_is_dry(struct drain *drain)
{
    struct runtime *runtime = drain->runtime;
    uint64_t left = 0;
    for (unsigned i = 0; i < runtime->loop_count; i++) {
        left += drain->asked ? atomic_load(&runtime->loops[i].unfinished) : 1;
    }
    for (unsigned i = 0; i < runtime->loop_count && left > 0; i++) {
        struct task *look = mem_alloc(sizeof *look);
        look->run = look_task_run;
        atomic_store(&runtime->loops[i].unfinished, 1);
        loop_post(&runtime->loops[i], look);
    }
    drain->asked = true;
    return left == 0;
}

static void drain_end(struct drain *drain, const char *how)
{
    uint64_t ms = (clock_now_ns() - drain->begun_ns) / 1000000;
    io_log(LOG_INFO, ERR_OK, "stopped after %llu ms: %s", (unsigned long long)ms, how);
    uv_timer_stop(&drain->timer);
    runtime_stop(drain->runtime);
}

static void drain_look(uv_timer_t *timer)
{
    struct drain *drain = timer->data;
    struct runtime *runtime = drain->runtime;
    const struct runtime_hooks *hooks = &runtime->hooks;
    bool late = clock_now_ns() - drain->begun_ns >= hooks->drain_ns;
    if (!drain->handed_over && (late || hooks->drained == NULL || hooks->drained(hooks->context))) {
        drain->handed_over = true;
        net_stop_listening(runtime->loops[0].net);
        atomic_store(&runtime->refusing, true);
    }
    if (drain->handed_over && drain_is_dry(drain)) {
        drain_end(drain, "everything taken is answered");
    } else if (late) {
        drain_end(drain, "the time for it is over, some requests are not answered");
    }
}

void drain_signalled(struct runtime *runtime, int number)
{
    if (runtime->drain != NULL || runtime->hooks.drain_ns == 0) {
        io_log(LOG_INFO, ERR_OK, "stopping at once on signal %d", number);
        runtime_stop(runtime);
        return;
    }
    io_log(LOG_INFO, ERR_OK, "stopping on signal %d", number);
    struct drain *drain = mem_alloc(sizeof *drain);
    drain->runtime = runtime;
    drain->begun_ns = clock_now_ns();
    uv_timer_init(&runtime->loops[0].uv, &drain->timer);
    drain->timer.data = drain;
    runtime->drain = drain;
    if (runtime->hooks.drain != NULL) {
        runtime->hooks.drain(runtime->hooks.context);
    }
    uv_timer_start(&drain->timer, drain_look, 0, DRAIN_LOOK_MS);
}

void drain_close(struct runtime *runtime)
{
    if (runtime->drain != NULL) {
        uv_close((uv_handle_t *)&runtime->drain->timer, NULL);
    }
}

void drain_destroy(struct runtime *runtime)
{
    free(runtime->drain);
    runtime->drain = NULL;
}
