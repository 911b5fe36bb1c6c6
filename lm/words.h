// SPDX-License-Identifier: Apache-2.0
// Cuts a text into words by regular expressions, as the pre-tokenizer of a tokenizer.json states them: each match and
// each gap between matches is a word; a further expression cuts each of these words on.
//
// The expressions are of Oniguruma's dialect, which Hugging Face's tokenizers use; PCRE2 matches them. What the two
// understand differently is refused. Immutable once filled; any thread.
#ifndef SL_LM_WORDS_H
#define SL_LM_WORDS_H

#include <stddef.h>

#include "core/error.h"

struct sl_words;

int sl_words_create(struct sl_words **out, struct sl_error *error);
void sl_words_destroy(struct sl_words *words); // accepts NULL

// One more expression. SL_ERR_TOKENIZER when it is malformed or not surely understood.
int sl_words_add(struct sl_words *words, const char *pattern, struct sl_error *error);

// Calls `word` for each word in order; a negative result ends the cutting and is returned. `text` is valid UTF-8.
// SL_ERR_TOKENIZER when an expression takes too many steps on it.
int sl_words_cut(const struct sl_words *words, const char *text, size_t size,
                 int (*word)(void *context, const char *text, size_t size), void *context, struct sl_error *error);

#endif
