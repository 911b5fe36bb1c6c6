// SPDX-License-Identifier: Apache-2.0
#include "core/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t second_us = 1000000, minute_us = 60000000, hour_us = 3600000000;

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// ---- Spans

// A decimal number: whole part, and billionths.
struct decimal {
    int64_t whole, nano;
    int has_fraction;
};

// Reads digits [. digits] at *p and moves it behind them. 0 when there are none, or too many to hold.
static int read_decimal(const char **p, struct decimal *out)
{
    *out = (struct decimal){0};
    if (!is_digit(**p)) {
        return 0;
    }
    for (; is_digit(**p); (*p)++) {
        if (__builtin_mul_overflow(out->whole, 10, &out->whole) ||
            __builtin_add_overflow(out->whole, **p - '0', &out->whole)) {
            return 0;
        }
    }
    if (**p != '.') {
        return 1;
    }
    (*p)++;
    out->has_fraction = is_digit(**p);
    for (int64_t place = 100000000; is_digit(**p); (*p)++, place /= 10) {
        out->nano += (**p - '0') * place; // place is 0 behind the ninth digit
    }
    return out->has_fraction;
}

// *sum += number * unit. 0 when that does not fit.
static int add(int64_t *sum, const struct decimal *number, int64_t unit_us)
{
    int64_t whole_us;
    return !__builtin_mul_overflow(number->whole, unit_us, &whole_us) && !__builtin_add_overflow(*sum, whole_us, sum) &&
           !__builtin_add_overflow(*sum, number->nano * unit_us / 1000000000, sum);
}

// [H:]M:S[.fraction]
static int read_clock(const char *p, int64_t *sum)
{
    struct decimal fields[3];
    int count = 0;
    for (;;) {
        if (count == 3 || !read_decimal(&p, &fields[count++])) {
            return 0;
        }
        if (*p == 0) {
            break;
        }
        if (*p++ != ':' || fields[count - 1].has_fraction) {
            return 0;
        }
    }
    const struct decimal *second = &fields[count - 1], *minute = &fields[count - 2];
    if (second->whole > 59 || (count == 3 && minute->whole > 59)) {
        return 0;
    }
    return (count == 2 || add(sum, &fields[0], hour_us)) && add(sum, minute, minute_us) && add(sum, second, second_us);
}

// 90, 2500ms, 1h2m3.5s
static int read_units(const char *p, int64_t *sum)
{
    const struct {
        const char *name;
        int64_t us;
    } units[] = {{"h", hour_us}, {"m", minute_us}, {"s", second_us}, {"ms", 1000}, {"us", 1}};
    const int count = sizeof units / sizeof *units;
    const char *text = p;
    int next = 0; // units before this one have had their turn
    while (*p != 0) {
        struct decimal number;
        const char *begin = p;
        if (!read_decimal(&p, &number)) {
            return 0;
        }
        if (*p == 0 && begin == text) {
            return add(sum, &number, second_us);
        }
        size_t size = strspn(p, "abcdefghijklmnopqrstuvwxyz");
        while (next < count && (strlen(units[next].name) != size || strncmp(units[next].name, p, size) != 0)) {
            next++;
        }
        p += size;
        if (next == count || (number.has_fraction && *p != 0) || !add(sum, &number, units[next++].us)) {
            return 0;
        }
    }
    return p != text;
}

int sl_time_parse_span(const char *text, int64_t *out_us, struct sl_error *error)
{
    const char *p = text + (*text == '-');
    int64_t us = 0;
    if (!(strchr(p, ':') != NULL ? read_clock(p, &us) : read_units(p, &us))) {
        return sl_fail(error, SL_ERR_USAGE, "'%s' is no time: write 90, 1:30, 01:02:03.250, 2500ms or 2h30m", text);
    }
    *out_us = *text == '-' ? -us : us;
    return SL_OK;
}

// ---- Calendar

int64_t sl_time_days(int64_t year, int month, int day)
{
    // Years are counted from March, so that the leap day comes last; 146097 days are 400 years.
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

void sl_time_date(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (year_of_era * 365 + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * march_month + 2) / 5 + 1);
    *month = (int)(march_month < 10 ? march_month + 3 : march_month - 9);
    *year = era * 400 + year_of_era + (*month <= 2);
}

static int days_in_month(int64_t year, int month)
{
    return (int)(month == 12 ? 31 : sl_time_days(year, month + 1, 1) - sl_time_days(year, month, 1));
}

// ---- Absolute times

// Exactly `digits` digits at *p, a value of least..most.
static int read_field(const char **p, int digits, int least, int most, int *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, (*p)++) {
        if (!is_digit(**p)) {
            return 0;
        }
        *out = *out * 10 + (**p - '0');
    }
    return *out >= least && *out <= most;
}

static int read_char(const char **p, const char *any_of)
{
    if (**p == 0 || strchr(any_of, **p) == NULL) {
        return 0;
    }
    (*p)++;
    return 1;
}

static int read_date(const char **p, int64_t *days)
{
    int year, month, day;
    if (!read_field(p, 4, 0, 9999, &year) || !read_char(p, "-") || !read_field(p, 2, 1, 12, &month) ||
        !read_char(p, "-") || !read_field(p, 2, 1, days_in_month(year, month), &day)) {
        return 0;
    }
    *days = sl_time_days(year, month, day);
    return 1;
}

static int read_time_of_day(const char **p, int seconds_needed, int64_t *us)
{
    int hour, minute, second = 0;
    int64_t fraction_us = 0;
    if (!read_field(p, 2, 0, 23, &hour) || !read_char(p, ":") || !read_field(p, 2, 0, 59, &minute)) {
        return 0;
    }
    if (read_char(p, ":")) {
        if (!read_field(p, 2, 0, 60, &second)) {
            return 0;
        }
        if (read_char(p, ".")) {
            if (!is_digit(**p)) {
                return 0;
            }
            for (int64_t place = 100000; is_digit(**p); (*p)++, place /= 10) {
                fraction_us += (**p - '0') * place;
            }
        }
    } else if (seconds_needed) {
        return 0;
    }
    *us = hour * hour_us + minute * minute_us + second * second_us + fraction_us;
    return 1;
}

// Z or +hh:mm, to the end of the text.
static int read_offset(const char *p, int64_t *seconds)
{
    int hour, minute, west = *p == '-';
    if (read_char(&p, "Zz")) {
        *seconds = 0;
        return *p == 0;
    }
    if (!read_char(&p, "+-") || !read_field(&p, 2, 0, 23, &hour) || !read_char(&p, ":") ||
        !read_field(&p, 2, 0, 59, &minute) || *p != 0) {
        return 0;
    }
    *seconds = (hour * 3600 + minute * 60) * (west ? -1 : 1);
    return 1;
}

// What stands in the text, as if in UTC. *offset_s: what to subtract, when *has_offset.
static int read_absolute(const char *p, int may_be_short, int64_t *local_us, int64_t *offset_s, int *has_offset)
{
    int64_t days, time_us = 0;
    if (!read_date(&p, &days)) {
        return 0;
    }
    int date_only = *p == 0;
    if (!date_only && (!read_char(&p, "Tt ") || !read_time_of_day(&p, !may_be_short, &time_us))) {
        return 0;
    }
    *local_us = days * 24 * hour_us + time_us;
    *has_offset = *p != 0;
    return *has_offset ? read_offset(p, offset_s) : may_be_short;
}

int sl_time_parse_absolute(const char *text, const struct sl_zone *zone, int64_t *unix_us, struct sl_error *error)
{
    int64_t local_us, offset_s;
    int has_offset;
    if (!read_absolute(text, zone != NULL, &local_us, &offset_s, &has_offset)) {
        return sl_fail(error, SL_ERR_USAGE, "'%s' is no date and time: write 2026-03-01T12:00:00%s", text,
                       zone != NULL ? "" : "+01:00, or Z at the end for UTC");
    }
    if (has_offset) {
        *unix_us = local_us - offset_s * second_us;
    } else {
        int64_t fraction_us = (local_us % second_us + second_us) % second_us;
        *unix_us = sl_zone_to_unix(zone, (local_us - fraction_us) / second_us) * second_us + fraction_us;
    }
    return SL_OK;
}

// ---- Formats

static uint64_t magnitude(int64_t value)
{
    return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

void sl_time_format_clock(int64_t us, char out[SL_TIME_TEXT])
{
    uint64_t ms = magnitude(us) / 1000;
    snprintf(out, SL_TIME_TEXT, "%s%02" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, us < 0 && ms > 0 ? "-" : "",
             ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
}

void sl_time_format_minutes(int64_t us, char out[SL_TIME_TEXT])
{
    uint64_t hundredths = magnitude(us) / 10000;
    snprintf(out, SL_TIME_TEXT, "%s%02" PRIu64 ":%02" PRIu64 ".%02" PRIu64, us < 0 && hundredths > 0 ? "-" : "",
             hundredths / 6000, hundredths / 100 % 60, hundredths % 100);
}

void sl_time_format_absolute(int64_t unix_us, const struct sl_zone *zone, char out[SL_TIME_TEXT])
{
    int64_t sub_us = (unix_us % second_us + second_us) % second_us;
    int64_t unix_s = unix_us / second_us - (unix_us % second_us < 0);
    int offset_s = sl_zone_offset(zone, unix_s);
    int64_t local_s = unix_s + offset_s;
    int64_t of_day = (local_s % 86400 + 86400) % 86400;
    int64_t year;
    int month, day;
    sl_time_date((local_s - of_day) / 86400, &year, &month, &day);
    int used = snprintf(out, SL_TIME_TEXT, "%04" PRId64 "-%02d-%02dT%02d:%02d:%02d.%03d", year, month, day,
                        (int)(of_day / 3600), (int)(of_day / 60 % 60), (int)(of_day % 60), (int)(sub_us / 1000));
    size_t room = (size_t)(SL_TIME_TEXT - used);
    if (zone == NULL) {
        snprintf(out + used, room, "Z");
    } else {
        // RFC 3339 knows whole minutes only; offsets with seconds ended in 1972.
        int minutes = abs(offset_s) / 60;
        snprintf(out + used, room, "%c%02d:%02d", offset_s < 0 ? '-' : '+', minutes / 60 % 100, minutes % 60);
    }
}
