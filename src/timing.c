// SPDX-License-Identifier: Apache-2.0
#include "src/timing.h"

#include <stdlib.h>
#include <time.h>

double sl_timing_now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int64_t sl_timing_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double sl_timing_median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

struct sl_spread sl_timing_spread(double *values, int count)
{
    double median = sl_timing_median(values, count);
    return (struct sl_spread){.median = median, .low = values[0], .high = values[count - 1]};
}
