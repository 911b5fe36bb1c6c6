// SPDX-License-Identifier: Apache-2.0
// Events as text: a table for people, JSON Lines and CSV for programs, subtitles and chapters for players.
//
// A writer belongs to its caller and to one thread. It writes to the file given and does not look at errors there: the
// caller checks the stream once at the end. Texts come from models and file names: control characters never reach the
// output, what is not UTF-8 becomes U+FFFD.
#ifndef SL_SRC_FORMAT_H
#define SL_SRC_FORMAT_H

#include <stdio.h>

#include "core/zone.h"
#include "db/db.h"

enum sl_format {
    SL_FORMAT_TABLE,
    SL_FORMAT_JSONL,    // one object a line
    SL_FORMAT_CSV,      // RFC 4180, with a header
    SL_FORMAT_SRT,      // SubRip
    SL_FORMAT_VTT,      // WebVTT
    SL_FORMAT_CHAPTERS, // FFmpeg's metadata file
};

int sl_format_parse(const char *name, enum sl_format *out, struct sl_error *error);
// 1: times are one file's media time and nothing says whose, so all events must be of one file.
int sl_format_is_of_one_file(enum sl_format format);

struct sl_writer;
// `zone` (NULL: UTC) is for wall times and must outlive the writer.
struct sl_writer *sl_writer_create(FILE *file, enum sl_format format, const struct sl_zone *zone,
                                   struct sl_error *error);
int sl_writer_add(struct sl_writer *writer, const struct sl_db_event *event, struct sl_error *error);
void sl_writer_end(struct sl_writer *writer); // writes what was held back
void sl_writer_destroy(struct sl_writer *writer);

// For other output of the same kind: a JSON string with its quotes; and a text filled up with spaces to `width`
// columns, never cut.
void sl_format_json_string(FILE *file, const char *text);
void sl_format_column(FILE *file, const char *text, int width);
int sl_format_width(const char *text); // columns on a terminal

#endif
