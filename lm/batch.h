// SPDX-License-Identifier: Apache-2.0
// A step of the engine: the next rows of all sequences through the decoder, and one token drawn for each that decodes.
//
// Owns the decoder, the KV pool, the stream and the sampling buffers. The engine's thread only.
#ifndef SL_LM_BATCH_H
#define SL_LM_BATCH_H

#include "lm/sequence.h"

struct sl_batch;

int sl_batch_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                    const struct sl_vocabulary *vocabulary, const struct sl_engine_options *options,
                    struct sl_batch **out, struct sl_error *error);
void sl_batch_destroy(struct sl_batch *batch); // accepts NULL

int64_t sl_batch_total_tokens(const struct sl_batch *batch); // of the KV pool
int sl_batch_has_room(const struct sl_batch *batch, int64_t tokens);

// KV pages for a sequence that has just begun. Where one of the `active` ones begins with the same tokens and the same
// frame groups of the same clip, what it has already computed is shared.
int sl_batch_admit(struct sl_batch *batch, struct sl_sequence *sequence, struct sl_sequence *const *active, int count,
                   struct sl_error *error);

// One step: a row of every sequence that decodes, and prompt rows of the first that do not, up to the limit. Sequences
// that end or fail with it are marked done.
void sl_batch_step(struct sl_batch *batch, struct sl_sequence *const *active, int count);

#endif
