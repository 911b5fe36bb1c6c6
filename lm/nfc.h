// SPDX-License-Identifier: Apache-2.0
// Unicode normalisation form C. O(n log n) whatever the text. No state; any thread.
#ifndef SL_LM_NFC_H
#define SL_LM_NFC_H

#include <stddef.h>

#include "core/error.h"

// `text` is valid UTF-8. *out is malloc'ed, or NULL when the text is plainly in this form already.
int sl_nfc(const char *text, size_t size, char **out, size_t *out_size, struct sl_error *error);

#endif
