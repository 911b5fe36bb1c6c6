// SPDX-License-Identifier: Apache-2.0
// A TZif file (RFC 9636) has two blocks of the same make: a header with counts, then transition times, the type that
// begins at each, the types, and more that is not needed here. The first block has 32-bit times for old readers and is
// skipped; the second has 64-bit times and is followed by a footer: a POSIX TZ rule, between newlines, for every time
// after the last transition.
#include "core/zone.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/time.h"

enum { MAX_FILE = 1 << 20, HEADER = 44, DAY = 86400 };

// The day of the year when the clock changes, and when on that day.
struct change {
    char kind; // 'J': day 1..365, leap day not counted; '0': day 0..365; 'M': weekday `day` of week `week` of `month`
    int month, week, day;
    int second; // of the day, in the local time before the change; may be negative or above a day
};

struct rule {
    int known;
    int standard_s, summer_s; // offsets; equal when there is no summer time
    struct change begin, end; // of summer time
};

struct sl_zone {
    int64_t *at;  // Unix times of the transitions, ascending
    int *offset;  // after each
    int count;    // of them
    int before_s; // offset before the first
    struct rule rule;
};

// ---- POSIX rules: std offset [dst [offset] [,begin[/time],end[/time]]]

static int read_integer(const char **p, int least, int most, int *out)
{
    int value = 0, digits = 0;
    for (; **p >= '0' && **p <= '9' && digits < 4; (*p)++, digits++) {
        value = value * 10 + (**p - '0');
    }
    *out = value;
    return digits > 0 && value >= least && value <= most;
}

// [+-]hours[:minutes[:seconds]]
static int read_seconds(const char **p, int most_hours, int *out)
{
    int sign = **p == '-' ? -1 : 1, hours, minutes = 0, seconds = 0;
    if (**p == '-' || **p == '+') {
        (*p)++;
    }
    if (!read_integer(p, 0, most_hours, &hours)) {
        return 0;
    }
    if (**p == ':') {
        (*p)++;
        if (!read_integer(p, 0, 59, &minutes)) {
            return 0;
        }
        if (**p == ':') {
            (*p)++;
            if (!read_integer(p, 0, 59, &seconds)) {
                return 0;
            }
        }
    }
    *out = sign * (hours * 3600 + minutes * 60 + seconds);
    return 1;
}

// Letters, or anything between < and >.
static int read_name(const char **p)
{
    const char *begin = *p;
    if (**p == '<') {
        *p += strcspn(*p, ">");
        return *(*p)++ == '>';
    }
    *p += strspn(*p, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    return *p - begin >= 3;
}

static int read_change(const char **p, struct change *out)
{
    *out = (struct change){.kind = '0', .second = 7200};
    if (**p == 'M') {
        out->kind = *(*p)++;
        if (!read_integer(p, 1, 12, &out->month) || *(*p)++ != '.' || !read_integer(p, 1, 5, &out->week) ||
            *(*p)++ != '.' || !read_integer(p, 0, 6, &out->day)) {
            return 0;
        }
    } else {
        if (**p == 'J') {
            out->kind = *(*p)++;
        }
        if (!read_integer(p, out->kind == 'J', 365, &out->day)) {
            return 0;
        }
    }
    if (**p != '/') {
        return 1;
    }
    (*p)++;
    return read_seconds(p, 167, &out->second);
}

static int read_rule(const char *p, struct rule *out)
{
    int west;
    if (!read_name(&p) || !read_seconds(&p, 24, &west)) {
        return 0;
    }
    *out = (struct rule){.known = 1, .standard_s = -west, .summer_s = -west};
    if (*p == 0) {
        return 1;
    }
    if (!read_name(&p)) {
        return 0;
    }
    out->summer_s = out->standard_s + 3600;
    if (*p != ',' && *p != 0) {
        if (!read_seconds(&p, 24, &west)) {
            return 0;
        }
        out->summer_s = -west;
    }
    if (*p == 0) { // POSIX leaves it open; everyone takes the rule of the United States
        p = ",M3.2.0,M11.1.0";
    }
    return *p++ == ',' && read_change(&p, &out->begin) && *p++ == ',' && read_change(&p, &out->end) && *p == 0;
}

// Local time of the change in that year, as if it were UTC.
static int64_t change_in(const struct change *change, int64_t year)
{
    int64_t first = sl_time_days(year, 1, 1), day = first + change->day;
    if (change->kind == 'J') {
        int leap = sl_time_days(year + 1, 1, 1) - first == 366;
        day += leap && change->day >= 60 ? 0 : -1;
    } else if (change->kind == 'M') {
        int64_t month = sl_time_days(year, change->month, 1);
        int64_t next = change->month == 12 ? sl_time_days(year + 1, 1, 1) : sl_time_days(year, change->month + 1, 1);
        int64_t weekday = ((month + 4) % 7 + 7) % 7; // 1970-01-01 was a Thursday
        day = month + (change->day - weekday + 7) % 7 + (change->week - 1) * 7;
        day -= day >= next ? 7 : 0; // week 5: the last
    }
    return day * DAY + change->second;
}

static int rule_offset(const struct rule *rule, int64_t unix_s)
{
    if (rule->standard_s == rule->summer_s) {
        return rule->standard_s;
    }
    int64_t local_s = unix_s + rule->standard_s, year;
    int month, day;
    sl_time_date(local_s / DAY - (local_s % DAY < 0), &year, &month, &day);
    int64_t begin_s = change_in(&rule->begin, year) - rule->standard_s;
    int64_t end_s = change_in(&rule->end, year) - rule->summer_s;
    int summer = begin_s < end_s ? unix_s >= begin_s && unix_s < end_s : unix_s >= begin_s || unix_s < end_s;
    return summer ? rule->summer_s : rule->standard_s;
}

// ---- Files

static int64_t big_endian(const uint8_t *p, int bytes)
{
    uint64_t value = p[0] & 0x80 ? UINT64_MAX : 0; // sign
    for (int i = 0; i < bytes; i++) {
        value = value << 8 | p[i];
    }
    return (int64_t)value;
}

struct counts {
    int64_t utc, standard, leap, time, type, letter;
};

static int read_header(const uint8_t *p, const uint8_t *end, struct counts *out)
{
    if (end - p < HEADER || memcmp(p, "TZif", 4) != 0 || p[4] < '2') {
        return 0;
    }
    *out = (struct counts){.utc = big_endian(p + 20, 4),
                           .standard = big_endian(p + 24, 4),
                           .leap = big_endian(p + 28, 4),
                           .time = big_endian(p + 32, 4),
                           .type = big_endian(p + 36, 4),
                           .letter = big_endian(p + 40, 4)};
    return out->utc >= 0 && out->standard >= 0 && out->leap >= 0 && out->time >= 0 && out->type >= 1 &&
           out->type <= 256 && out->letter >= 0;
}

// Bytes of a block behind its header. All counts are below 2^31, so nothing overflows.
static int64_t block_bytes(const struct counts *counts, int time_bytes)
{
    return counts->time * (time_bytes + 1) + counts->type * 6 + counts->letter + counts->leap * (time_bytes + 4) +
           counts->standard + counts->utc;
}

static int read_transitions(const uint8_t *p, const struct counts *counts, struct sl_zone *zone)
{
    const uint8_t *types = p + counts->time * 8, *infos = types + counts->time;
    zone->count = (int)counts->time;
    zone->at = calloc((size_t)zone->count + 1, sizeof *zone->at);
    zone->offset = calloc((size_t)zone->count + 1, sizeof *zone->offset);
    if (zone->at == NULL || zone->offset == NULL) {
        return 0;
    }
    zone->before_s = (int)big_endian(infos, 4);
    for (int i = 0; i < zone->count; i++) {
        zone->at[i] = big_endian(p + (ptrdiff_t)8 * i, 8);
        if (types[i] >= counts->type || (i > 0 && zone->at[i] <= zone->at[i - 1])) {
            return 0;
        }
        zone->offset[i] = (int)big_endian(infos + (ptrdiff_t)6 * types[i], 4);
        if (abs(zone->offset[i]) > 26 * 3600) {
            return 0;
        }
    }
    return abs(zone->before_s) <= 26 * 3600;
}

// `text` holds size bytes and a zero behind them.
static int read_file(const uint8_t *text, size_t size, struct sl_zone *zone)
{
    const uint8_t *p = text, *end = text + size;
    struct counts counts;
    if (!read_header(p, end, &counts) || block_bytes(&counts, 4) > end - p - HEADER) {
        return 0;
    }
    p += HEADER + block_bytes(&counts, 4);
    if (!read_header(p, end, &counts) || block_bytes(&counts, 8) > end - p - HEADER || counts.leap != 0) {
        return 0; // leap seconds are in the "right/" zones only, and Unix time has none
    }
    p += HEADER;
    if (!read_transitions(p, &counts, zone)) {
        return 0;
    }
    p += block_bytes(&counts, 8);
    char *footer = (char *)p;
    size_t footer_size = p < end && *p == '\n' ? strcspn(footer + 1, "\n") : 0;
    if (footer_size == 0) {
        return 1; // no rule: the last transition's offset stays
    }
    char rule[256];
    if (footer_size >= sizeof rule) {
        return 0;
    }
    memcpy(rule, footer + 1, footer_size);
    rule[footer_size] = 0;
    return read_rule(rule, &zone->rule);
}

// ---- Opening

// 1: read; 0: there, but no zone file; -1: not there.
static int load(const char *path, struct sl_zone *zone)
{
    FILE *file = fopen(path, "rb");
    uint8_t *text = malloc(MAX_FILE + 1);
    int result = -1;
    if (file != NULL && text != NULL) {
        size_t size = fread(text, 1, MAX_FILE, file);
        text[size] = 0;
        result = read_file(text, size, zone);
    }
    if (file != NULL) {
        fclose(file);
    }
    free(text);
    return result;
}

// "+05:30"; POSIX counts the other way round.
static int read_fixed(const char *name, struct rule *out)
{
    int offset_s;
    const char *p = name;
    if ((*p != '+' && *p != '-') || !read_seconds(&p, 24, &offset_s) || *p != 0) {
        return 0;
    }
    *out = (struct rule){.known = 1, .standard_s = offset_s, .summer_s = offset_s};
    return 1;
}

static int is_plain_name(const char *name)
{
    return *name != 0 && *name != '/' && strstr(name, "..") == NULL && strlen(name) < 100;
}

static int find(const char *name, struct sl_zone *zone)
{
    char path[160];
    if (strcmp(name, "UTC") == 0 || strcmp(name, "Z") == 0) {
        zone->rule.known = 1; // and the offset 0; needs no files
        return 1;
    }
    if (read_fixed(name, &zone->rule)) {
        return 1;
    }
    if (is_plain_name(name)) {
        snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", name);
        int loaded = load(path, zone);
        if (loaded >= 0) {
            return loaded;
        }
    }
    return read_rule(name, &zone->rule);
}

static int find_own(struct sl_zone *zone)
{
    const char *name = getenv("TZ");
    if (name != NULL && *name != 0) {
        name += *name == ':';
        return *name == '/' ? load(name, zone) == 1 : find(name, zone);
    }
    return load("/etc/localtime", zone) != 0;
}

int sl_zone_open(const char *name, struct sl_zone **out, struct sl_error *error)
{
    struct sl_zone *zone = calloc(1, sizeof *zone);
    if (zone == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "no memory for a time zone");
    }
    if (!(name == NULL ? find_own(zone) : find(name, zone))) {
        sl_zone_close(zone);
        return sl_fail(error, SL_ERR_USAGE, "unknown time zone '%s': see /usr/share/zoneinfo (package tzdata)",
                       name == NULL ? "of this machine" : name);
    }
    *out = zone;
    return SL_OK;
}

void sl_zone_close(struct sl_zone *zone)
{
    if (zone != NULL) {
        free(zone->at);
        free(zone->offset);
        free(zone);
    }
}

// ---- Using

int sl_zone_offset(const struct sl_zone *zone, int64_t unix_s)
{
    if (zone == NULL) {
        return 0;
    }
    if (zone->rule.known && (zone->count == 0 || unix_s >= zone->at[zone->count - 1])) {
        return rule_offset(&zone->rule, unix_s);
    }
    int low = 0, high = zone->count; // the transitions before `low` have happened, those from `high` on have not
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (zone->at[middle] <= unix_s) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low == 0 ? zone->before_s : zone->offset[low - 1];
}

int64_t sl_zone_to_unix(const struct sl_zone *zone, int64_t local_s)
{
    // No zone changes twice within two days, so a day before and a day after show both clocks that may hold.
    int before_s = sl_zone_offset(zone, local_s - DAY), after_s = sl_zone_offset(zone, local_s + DAY);
    int holds_before = sl_zone_offset(zone, local_s - before_s) == before_s;
    int holds_after = sl_zone_offset(zone, local_s - after_s) == after_s;
    return local_s - (!holds_before && holds_after ? after_s : before_s);
}
