// SPDX-License-Identifier: Apache-2.0
// The decoder: one step takes the rows of several sequences, prompt rows and decode rows together, through all
// layers, fills the KV cache and gives the logits of the rows asked for. Written once, above the device table.
//
// It owns its weights' device form and the activations of one step, sized at creation. The checkpoint stays mapped
// and the device open while it lives. One thread at a time.
#ifndef SL_LM_DECODER_H
#define SL_LM_DECODER_H

#include "core/config.h"
#include "core/weights.h"
#include "lm/kv.h"

struct sl_decoder;

struct sl_decoder_limits {
    int rows;         // of one step
    int sequences;    // of one step
    int logit_rows;   // of one step
    int64_t kv_pages; // of one sequence
};

// One step. The arrays are host memory of the decoder, as long as its limits say; the caller fills them.
struct sl_step {
    int sequences, rows, visual_rows, logit_rows;
    int32_t *ids;                     // [rows]; of a visual row: any id of the vocabulary
    int32_t *position[3];             // [rows] each: T, H, W
    int32_t *row_start;               // [sequences + 1]
    const struct sl_kv_sequence **kv; // [sequences], already grown by their rows of this step
    int32_t *visual_row;              // [visual_rows] rows that take a visual feature, ascending
    int32_t *logit_row;               // [logit_rows] rows whose logits are wanted
};

int sl_decoder_create(struct sl_device *device, struct sl_weights *weights, const struct sl_model_config *config,
                      enum sl_dtype compute, const struct sl_decoder_limits *limits, struct sl_decoder **out,
                      struct sl_error *error);
void sl_decoder_destroy(struct sl_decoder *decoder); // accepts NULL

struct sl_step *sl_decoder_step(struct sl_decoder *decoder);

// Where the features of visual rows [first, first + count) of the step go, before it is run.
void sl_decoder_visual(const struct sl_decoder *decoder, int first, int count,
                       struct sl_tensor *features /* [count, hidden] */,
                       struct sl_tensor *deepstack /* deepstack_count x [count, hidden] */);

// Enqueues the step. The logits stay until the next one.
void sl_decoder_run(struct sl_decoder *decoder, struct sl_stream *stream, const struct sl_kv *kv,
                    struct sl_tensor *logits /* [logit_rows, vocab] f32 */);
// Steps so far ran on a stream that will be no more.
void sl_decoder_forget_stream(struct sl_decoder *decoder);

#endif
