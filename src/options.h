// SPDX-License-Identifier: Apache-2.0
// The options of a command, and their values read strictly: what is not wholly a value is SL_ERR_USAGE, naming the
// option.
#ifndef SL_SRC_OPTIONS_H
#define SL_SRC_OPTIONS_H

#include <getopt.h>
#include <stdint.h>

#include "core/error.h"

// Gives each option of the command argv[0] to `set`, until one fails; the operands begin at optind then. `letters` and
// `words` are getopt_long()'s; the former begin with ':'.
int sl_options_read(int argc, char **argv, const char *letters, const struct option *words,
                    int (*set)(void *context, int option, const char *text, struct sl_error *error), void *context,
                    struct sl_error *error);

int sl_option_int(const char *name, const char *text, int64_t min, int64_t max, int64_t *out, struct sl_error *error);
int sl_option_real(const char *name, const char *text, double min, double max, double *out, struct sl_error *error);
// "2", "0.5", "29.97", "30000/1001": a positive fraction in lowest terms.
int sl_option_rate(const char *name, const char *text, int64_t *num, int64_t *den, struct sl_error *error);
int sl_option_span(const char *name, const char *text, int64_t *out_us, struct sl_error *error);
// --decode-lanes "12" or "12+8": on the usual decoder, and on the CPU beside it.
int sl_option_lanes(const char *text, int *lanes, int *cpu_lanes, struct sl_error *error);
// Without the blanks around it; cuts `text` itself.
char *sl_option_trimmed(char *text);
// The whole of a text file, at most max_bytes, malloc'ed, without the last newline.
int sl_option_file(const char *name, const char *path, int64_t max_bytes, char **out, struct sl_error *error);

const char *sl_default_index(void); // $SCENELOG_INDEX, else scenelog.db
const char *sl_default_model(void); // $SCENELOG_MODEL, else the installed demo model

// Prints "scenelog: text" to stderr and returns the exit code.
int sl_report(const struct sl_error *error);

#endif
