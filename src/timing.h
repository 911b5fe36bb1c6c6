// SPDX-License-Identifier: Apache-2.0
// The monotonic clock, and the median and spread of several measurements. No state; any thread.
#ifndef SL_SRC_TIMING_H
#define SL_SRC_TIMING_H

#include <stdint.h>

double sl_timing_now_s(void);
int64_t sl_timing_now_ms(void);
double sl_timing_median(double *values, int count); // sorts them

struct sl_spread {
    double median, low, high; // low: the smallest number, not the worst
};
struct sl_spread sl_timing_spread(double *values, int count); // sorts them

#endif
