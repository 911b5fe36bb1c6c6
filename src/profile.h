// SPDX-License-Identifier: Apache-2.0
// What one camera is asked, and which of its events are worth telling: a file of "key = value" lines, # begins a
// remark.
//
//   prompt = ...            instead of the built-in request; prompt-file = FILE likewise
//   context = the gate is on the left     added to the request; may come several times
//   language = German       of the sentences
//   fps = 2, window = 10s, max-tokens-per-pair = 200
//   words = person, car     tell events that hold one of these only (sinks, not the index)
//   min-length = 2s         tell events of at least this length only
//   cool-down = 1m          having told an event, be silent about the same words for so long
#ifndef SL_SRC_PROFILE_H
#define SL_SRC_PROFILE_H

#include "src/window.h"

enum { SL_PROFILE_WORDS = 64 };

// Which events go to commands, URLs and brokers.
struct sl_tell_rules {
    char *words[SL_PROFILE_WORDS]; // lower case
    int word_count;
    int64_t min_length_us, cool_down_us;
};

struct sl_profile {
    struct sl_window_rules rules; // its prompt is ours
    struct sl_tell_rules tell;
    char *prompt, *base, *context, *language; // context: lines
};

// Starts from `defaults`; `path` NULL: that is all. SL_ERR_USAGE names file and line.
int sl_profile_read(const char *path, const struct sl_window_rules *defaults, struct sl_profile *out,
                    struct sl_error *error);
void sl_profile_finish(struct sl_profile *profile);
int sl_profile_equal(const struct sl_profile *a, const struct sl_profile *b);

#endif
