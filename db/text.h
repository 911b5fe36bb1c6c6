// SPDX-License-Identifier: Apache-2.0
// Private to db/: what text means to the index. Pure functions over UTF-8; any thread.
#ifndef SL_DB_TEXT_H
#define SL_DB_TEXT_H

#include <stdint.h>

#include "core/error.h"

// "Says the same": a 64-bit hash of the text without case, compatibility forms, space and punctuation. Words stay
// words ("1.5" is not "15"), except beside scripts that write no spaces. Invalid UTF-8 is SL_ERR_INTERNAL.
int text_key(const char *text, int64_t *key, struct sl_error *e);

// The text as the word index wants it: compatibility forms resolved, each character of a script without spaces (Han,
// kana) and of Hangul set apart by spaces. *words is NULL when that is the text itself. The caller frees it.
int text_words(const char *text, char **words, struct sl_error *e);

// An FTS5 query that asks for all the words, each as it stands: a phrase where it has several parts. *match is NULL
// when no word has a letter or digit. The caller frees it.
int text_match(const char *const *words, int count, char **match, struct sl_error *e);

#endif
