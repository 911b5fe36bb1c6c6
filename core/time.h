// SPDX-License-Identifier: Apache-2.0
// Times as people write them. All values are int64 microseconds and exact: digits are never read through a double, what
// does not fit is an error, digits finer than a microsecond are cut off. No state; any thread.
#ifndef SL_CORE_TIME_H
#define SL_CORE_TIME_H

#include <stdint.h>

#include "core/error.h"
#include "core/zone.h"

enum { SL_TIME_TEXT = 48 }; // room for any of the formats below

// A span of media time, in FFmpeg's grammar: [-][H:]M:S[.fraction], or [-]seconds[.fraction][s|ms|us]; and also units
// one after another, each at most once: 2h30m, 1h2m3.5s. Errors: SL_ERR_USAGE.
int sl_time_parse_span(const char *text, int64_t *out_us, struct sl_error *error);

// A date and time to Unix time, as RFC 3339 has it (2026-03-01T12:00:00.5+01:00). When `zone` is given, the zone may be
// left out of the text, and so may the seconds, the time of day (midnight), and 'T' may be a space. A leap second is
// taken for the second after it. Errors: SL_ERR_USAGE.
int sl_time_parse_absolute(const char *text, const struct sl_zone *zone, int64_t *unix_us, struct sl_error *error);

void sl_time_format_clock(int64_t us, char out[SL_TIME_TEXT]);   // HH:MM:SS.mmm; hours may pass 99
void sl_time_format_minutes(int64_t us, char out[SL_TIME_TEXT]); // mm:ss.ff; minutes may pass 59
// 2026-03-01T12:00:00.500+01:00; in UTC, ending in Z, when `zone` is NULL.
void sl_time_format_absolute(int64_t unix_us, const struct sl_zone *zone, char out[SL_TIME_TEXT]);

// The Gregorian calendar, also before it was: days since 1970-01-01.
int64_t sl_time_days(int64_t year, int month, int day);
void sl_time_date(int64_t days, int64_t *year, int *month, int *day);

#endif
