// SPDX-License-Identifier: Apache-2.0
#include "src/format.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/time.h"

// A table's columns are as wide as its first rows need; the rest of a long one is written as it comes.
enum { TABLE_HEAD_ROWS = 256 };

struct row {
    char start[SL_TIME_TEXT], end[SL_TIME_TEXT], wall[SL_TIME_TEXT]; // wall: empty if not known
    char *source, *text;
};

struct sl_writer {
    FILE *file;
    enum sl_format format;
    const struct sl_zone *zone;
    int64_t count;
    struct row *rows; // of a table, until its head is written
    int head_written, source_width, wall_width;
};

// ---- Formats by name

static const char *const names[] = {"table", "jsonl", "csv", "srt", "vtt", "chapters"};

int sl_format_parse(const char *name, enum sl_format *out, struct sl_error *error)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum sl_format)i;
            return SL_OK;
        }
    }
    return sl_fail(error, SL_ERR_USAGE, "--format %s: must be table, jsonl, csv, srt, vtt or chapters", name);
}

int sl_format_is_of_one_file(enum sl_format format)
{
    return format >= SL_FORMAT_SRT;
}

// ---- Text

// The next character, a space for control characters (so that no text moves a terminal's cursor or ends a line), U+FFFD
// for what is not UTF-8; 0 at the end.
static int32_t next(const char **text)
{
    int32_t c = 0;
    if (**text == 0) {
        return 0;
    }
    // Up to 4 bytes are looked at; a terminating zero within them ends an incomplete one.
    utf8proc_ssize_t bytes = utf8proc_iterate((const uint8_t *)*text, (utf8proc_ssize_t)strnlen(*text, 4), &c);
    *text += bytes > 0 ? bytes : 1;
    if (bytes <= 0) {
        return 0xfffd;
    }
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 ? ' ' : c;
}

static void put(FILE *file, int32_t c)
{
    uint8_t bytes[4];
    utf8proc_ssize_t count = utf8proc_encode_char(c, bytes);
    fwrite(bytes, 1, (size_t)count, file);
}

static void put_text(FILE *file, const char *text)
{
    for (int32_t c; (c = next(&text)) != 0;) {
        put(file, c);
    }
}

// Puts `escape` before each of the ASCII characters in `special`.
static void put_escaped(FILE *file, const char *text, const char *special, const char *escape)
{
    for (int32_t c; (c = next(&text)) != 0;) {
        if (c < 0x80 && strchr(special, c) != NULL) {
            fputs(escape, file);
        }
        put(file, c);
    }
}

int sl_format_width(const char *text)
{
    int width = 0;
    for (int32_t c; (c = next(&text)) != 0;) {
        width += utf8proc_charwidth(c);
    }
    return width;
}

void sl_format_column(FILE *file, const char *text, int width)
{
    put_text(file, text);
    for (int i = sl_format_width(text); i < width; i++) {
        fputc(' ', file);
    }
}

void sl_format_json_string(FILE *file, const char *text)
{
    fputc('"', file);
    put_escaped(file, text, "\"\\", "\\");
    fputc('"', file);
}

// ---- Table

static void put_row(struct sl_writer *w, const struct row *row)
{
    sl_format_column(w->file, row->start, 14);
    sl_format_column(w->file, row->end, 14);
    if (w->wall_width > 0) {
        sl_format_column(w->file, row->wall, w->wall_width + 2);
    }
    sl_format_column(w->file, row->source, w->source_width + 2);
    put_text(w->file, row->text);
    fputc('\n', w->file);
}

static int wider(int width, const char *text)
{
    int own = sl_format_width(text);
    return own > width ? own : width;
}

// Settles the widths, then writes what was held back.
static void put_head(struct sl_writer *w)
{
    const struct row title = {.start = "START", .end = "END", .wall = "WALL", .source = "SOURCE", .text = "EVENT"};
    int rows = (int)w->count;
    w->head_written = 1;
    w->source_width = sl_format_width(title.source);
    for (int i = 0; i < rows; i++) {
        w->source_width = wider(w->source_width, w->rows[i].source);
        w->wall_width = wider(w->wall_width, w->rows[i].wall);
    }
    if (rows > 0) {
        put_row(w, &title);
    }
    for (int i = 0; i < rows; i++) {
        put_row(w, &w->rows[i]);
    }
}

static void fill_row(struct sl_writer *w, const struct sl_db_event *event, struct row *row)
{
    sl_time_format_clock(event->start_us, row->start);
    sl_time_format_clock(event->end_us, row->end);
    row->wall[0] = 0;
    if (event->wall_start_us != SL_NO_TIME) {
        sl_time_format_absolute(event->wall_start_us, w->zone, row->wall);
    }
}

static int add_to_table(struct sl_writer *w, const struct sl_db_event *event, struct sl_error *error)
{
    if (w->count == TABLE_HEAD_ROWS && !w->head_written) {
        put_head(w);
    }
    struct row row;
    fill_row(w, event, &row);
    if (w->head_written) {
        row.source = (char *)event->source;
        row.text = (char *)event->text;
        put_row(w, &row);
        return SL_OK;
    }
    row.source = strdup(event->source);
    row.text = strdup(event->text);
    w->rows[w->count] = row;
    return row.source != NULL && row.text != NULL ? SL_OK : sl_fail(error, SL_ERR_MEMORY, "out of memory");
}

// ---- JSON Lines

static void put_json_time(FILE *file, const char *name, const char *text)
{
    if (text != NULL) {
        fprintf(file, ",\"%s\":\"%s\"", name, text);
    } else {
        fprintf(file, ",\"%s\":null", name);
    }
}

static void put_json_text(FILE *file, const char *name, const char *text)
{
    fprintf(file, ",\"%s\":", name);
    sl_format_json_string(file, text);
}

struct times {
    char start[SL_TIME_TEXT], end[SL_TIME_TEXT], wall_start[SL_TIME_TEXT], wall_end[SL_TIME_TEXT];
    int has_wall;
};

static struct times times_of(const struct sl_writer *w, const struct sl_db_event *event)
{
    struct times t = {.has_wall = event->wall_start_us != SL_NO_TIME};
    sl_time_format_clock(event->start_us, t.start);
    sl_time_format_clock(event->end_us, t.end);
    if (t.has_wall) {
        sl_time_format_absolute(event->wall_start_us, w->zone, t.wall_start);
        sl_time_format_absolute(event->wall_end_us, w->zone, t.wall_end);
    }
    return t;
}

static void put_json(struct sl_writer *w, const struct sl_db_event *event)
{
    FILE *file = w->file;
    struct times t = times_of(w, event);
    fprintf(file, "{\"id\":%" PRId64, event->id);
    put_json_text(file, "source", event->source);
    fprintf(file, ",\"start_us\":%" PRId64 ",\"end_us\":%" PRId64, event->start_us, event->end_us);
    put_json_time(file, "start", t.start);
    put_json_time(file, "end", t.end);
    put_json_text(file, "text", event->text);
    if (event->confidence >= 0) {
        fprintf(file, ",\"confidence\":%.4f", event->confidence);
    } else {
        fputs(",\"confidence\":null", file);
    }
    fprintf(file, ",\"revision\":%" PRId64 ",\"open\":%s", event->revision, event->open ? "true" : "false");
    put_json_time(file, "wall_start", t.has_wall ? t.wall_start : NULL);
    put_json_time(file, "wall_end", t.has_wall ? t.wall_end : NULL);
    put_json_text(file, "model", event->model);
    fprintf(file, ",\"task\":%" PRId64 "}\n", event->task);
}

// ---- CSV

static void put_field(FILE *file, const char *text)
{
    int quoted = text[strcspn(text, ",\"\r\n")] != 0;
    if (quoted) {
        fputc('"', file);
    }
    put_escaped(file, text, "\"", "\"");
    fputs(quoted ? "\"," : ",", file);
}

static void put_csv(struct sl_writer *w, const struct sl_db_event *event)
{
    FILE *file = w->file;
    struct times t = times_of(w, event);
    fprintf(file, "%" PRId64 ",", event->id);
    put_field(file, event->source);
    fprintf(file, "%s,%s,%" PRId64 ",%" PRId64 ",%s,%s,", t.start, t.end, event->start_us, event->end_us, t.wall_start,
            t.wall_end);
    put_field(file, event->text);
    if (event->confidence >= 0) {
        fprintf(file, "%.4f", event->confidence);
    }
    fprintf(file, ",%" PRId64 ",%d,", event->revision, event->open);
    put_field(file, event->model);
    fprintf(file, "%" PRId64 "\r\n", event->task);
}

// ---- Players

// Milliseconds; what is shorter than one lasts one, as players drop what ends when it begins.
static void put_cue_times(FILE *file, const struct sl_db_event *event, char point)
{
    char start[SL_TIME_TEXT], end[SL_TIME_TEXT];
    int64_t last_us = event->end_us / 1000 > event->start_us / 1000 ? event->end_us : event->start_us + 1000;
    sl_time_format_clock(event->start_us, start);
    sl_time_format_clock(last_us, end);
    *strchr(start, '.') = point;
    *strchr(end, '.') = point;
    fprintf(file, "%s --> %s\n", start, end);
}

static void put_srt(struct sl_writer *w, const struct sl_db_event *event)
{
    fprintf(w->file, "%" PRId64 "\n", w->count + 1);
    put_cue_times(w->file, event, ',');
    put_text(w->file, event->text);
    fputs("\n\n", w->file);
}

static void put_vtt(struct sl_writer *w, const struct sl_db_event *event)
{
    put_cue_times(w->file, event, '.');
    const char *text = event->text;
    for (int32_t c; (c = next(&text)) != 0;) {
        if (c == '&' || c == '<' || c == '>') {
            fputs(c == '&' ? "&amp;" : c == '<' ? "&lt;" : "&gt;", w->file);
        } else {
            put(w->file, c);
        }
    }
    fputs("\n\n", w->file);
}

static void put_chapter(struct sl_writer *w, const struct sl_db_event *event)
{
    fprintf(w->file, "[CHAPTER]\nTIMEBASE=1/1000000\nSTART=%" PRId64 "\nEND=%" PRId64 "\ntitle=", event->start_us,
            event->end_us);
    put_escaped(w->file, event->text, "=;#\\", "\\");
    fputc('\n', w->file);
}

// ---- Writers

// What stands before the first event, and also where there is none.
static const char *const heads[] = {
    [SL_FORMAT_TABLE] = "",
    [SL_FORMAT_JSONL] = "",
    [SL_FORMAT_CSV] = ("id,source,start,end,start_us,end_us,wall_start,wall_end,text,confidence,revision,open,model,"
                       "task\r\n"),
    [SL_FORMAT_SRT] = "",
    [SL_FORMAT_VTT] = "WEBVTT\n\n",
    [SL_FORMAT_CHAPTERS] = ";FFMETADATA1\n",
};

struct sl_writer *sl_writer_create(FILE *file, enum sl_format format, const struct sl_zone *zone,
                                   struct sl_error *error)
{
    struct sl_writer *w = calloc(1, sizeof *w);
    if (w != NULL && format == SL_FORMAT_TABLE) {
        w->rows = calloc(TABLE_HEAD_ROWS, sizeof *w->rows);
    }
    if (w == NULL || (format == SL_FORMAT_TABLE && w->rows == NULL)) {
        free(w);
        sl_fail(error, SL_ERR_MEMORY, "out of memory");
        return NULL;
    }
    w->file = file;
    w->format = format;
    w->zone = zone;
    fputs(heads[format], file);
    return w;
}

int sl_writer_add(struct sl_writer *w, const struct sl_db_event *event, struct sl_error *error)
{
    int status = SL_OK;
    switch (w->format) {
    case SL_FORMAT_TABLE:
        status = add_to_table(w, event, error);
        break;
    case SL_FORMAT_JSONL:
        put_json(w, event);
        break;
    case SL_FORMAT_CSV:
        put_csv(w, event);
        break;
    case SL_FORMAT_SRT:
        put_srt(w, event);
        break;
    case SL_FORMAT_VTT:
        put_vtt(w, event);
        break;
    case SL_FORMAT_CHAPTERS:
        put_chapter(w, event);
        break;
    }
    w->count++;
    return status;
}

void sl_writer_end(struct sl_writer *w)
{
    if (w->format == SL_FORMAT_TABLE && !w->head_written) {
        put_head(w);
    }
}

void sl_writer_destroy(struct sl_writer *w)
{
    if (w == NULL) {
        return;
    }
    for (int i = 0; w->rows != NULL && i < TABLE_HEAD_ROWS; i++) {
        free(w->rows[i].source);
        free(w->rows[i].text);
    }
    free(w->rows);
    free(w);
}
