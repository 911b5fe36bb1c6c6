// SPDX-License-Identifier: Apache-2.0
// The device's threads: a loop's tasks are handed out one by one to whoever is free, the caller among them.
//
// Not OpenMP: its threads spin for milliseconds after every loop, which takes the cores away from the decoder's threads
// and from everything else on the machine; and ThreadSanitizer cannot see its barriers. These spin for some
// microseconds, then sleep. One loop at a time: whoever calls must have the device's turn.
#ifndef SL_CPU_POOL_H
#define SL_CPU_POOL_H

#include <stdint.h>

struct cpu_pool;

// `worker` is below the loop's number of threads, and no two tasks run at once under the same: an index of buffers.
typedef void cpu_task(void *job, int64_t index, int worker);

// `threads` in all, with the caller. Fewer when the system gives no more; NULL when it gives no memory.
struct cpu_pool *cpu_pool_create(int threads);
void cpu_pool_destroy(struct cpu_pool *pool); // accepts NULL
int cpu_pool_threads(const struct cpu_pool *pool);

// Runs task(job, i, worker) for every i in [0, count) on up to `threads` threads; returns when all are done.
void cpu_pool_run(struct cpu_pool *pool, int threads, int64_t count, cpu_task *task, void *job);

#endif
