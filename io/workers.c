/* Pools: threads beside the loops for work that would hold a loop up (compute jobs, flushes, fallocate, preads).
 * Happy path: post under the lock, one thread wakes, runs it, the job posts its completion to its loop. Jobs of
 * priority 0 go first. At the end the jobs that never ran are dropped. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/internal.h"

#define POOL_PRIORITIES 3u
#define POOL_THREADS    64u

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *head[POOL_PRIORITIES];
    struct job **tail[POOL_PRIORITIES];
    bool stopping;
    unsigned thread_count;
    pthread_t threads[POOL_THREADS];
    char node[48];
};

static struct job *pool_take(struct pool *pool)
{
    for (unsigned i = 0; i < POOL_PRIORITIES; i++) {
        struct job *job = pool->head[i];
        if (job != NULL) {
            pool->head[i] = job->next;
            if (pool->head[i] == NULL) {
                pool->tail[i] = &pool->head[i];
            }
            return job;
        }
    }
    return NULL;
}

static void *pool_main(void *argument)
{
    struct pool *pool = argument;
    io_log_set_thread(pool->node);
    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        struct job *job = pool_take(pool);
        if (job == NULL) {
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        job->run(job, false);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

struct pool *pool_create(unsigned threads, const char *node)
{
    CHECK(threads >= 1);
    struct pool *pool = mem_alloc(sizeof *pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    snprintf(pool->node, sizeof pool->node, "%s", node);
    for (unsigned i = 0; i < POOL_PRIORITIES; i++) {
        pool->tail[i] = &pool->head[i];
    }
    threads = threads < POOL_THREADS ? threads : POOL_THREADS;
    for (; pool->thread_count < threads; pool->thread_count++) {
        int rc = pthread_create(&pool->threads[pool->thread_count], NULL, pool_main, pool);
        CHECK(rc == 0);
    }
    return pool;
}

void pool_post(struct pool *pool, struct job *job)
{
    CHECK(job->priority < POOL_PRIORITIES);
    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    CHECK(!pool->stopping);
    *pool->tail[job->priority] = job;
    pool->tail[job->priority] = &job->next;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    for (struct job *job = pool_take(pool); job != NULL; job = pool_take(pool)) {
        job->run(job, true);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
