// SPDX-License-Identifier: Apache-2.0
// Preloaded into a program, sets its wall clock 5 s forward as soon as the file named in CLOCK_AHEAD exists. The
// monotonic clock goes on, as it does when a machine's clock is set. Built by tests/live/long.py: cc -shared -fPIC.
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { STEP_S = 5 };

static time_t ahead_s(void)
{
    const char *file = getenv("CLOCK_AHEAD");
    return file != NULL && access(file, F_OK) == 0 ? STEP_S : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = (int)syscall(SYS_clock_gettime, clock, now);
    if (code == 0 && clock == CLOCK_REALTIME) {
        now->tv_sec += ahead_s();
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
