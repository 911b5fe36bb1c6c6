// SPDX-License-Identifier: Apache-2.0
// Preloaded into a program, sets its wall clock forward by CLOCK_AHEAD_MS as soon as the file named in CLOCK_AHEAD
// exists. The monotonic clock goes on, as it does when a machine's clock is set. Built by tests/live/long.py: cc
// -shared -fPIC.
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead_ms(void)
{
    const char *file = getenv("CLOCK_AHEAD"), *ms = getenv("CLOCK_AHEAD_MS");
    return file != NULL && ms != NULL && access(file, F_OK) == 0 ? atol(ms) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = (int)syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && clock == CLOCK_REALTIME) {
        long ms = now->tv_nsec / 1000000 + ahead_ms();
        now->tv_sec += ms / 1000;
        now->tv_nsec = ms % 1000 * 1000000 + now->tv_nsec % 1000000;
    }
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec at;
    (void)zone;
    int code = clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return code;
}
