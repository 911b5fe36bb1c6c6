// SPDX-License-Identifier: Apache-2.0
// The second half of a decoder layer, its feed-forward: a dense one, or a mixture of experts behind a router.
//
// A feed owns its weights' device form; the checkpoint stays mapped while it lives. What the layers of a decoder share,
// activations of one step, is made once. One thread at a time.
#ifndef SL_LM_FEED_H
#define SL_LM_FEED_H

#include "core/config.h"
#include "core/weights.h"

struct sl_feed {
    struct sl_linear *gate_up, *down; // dense: both
    struct sl_linear *router;         // sparse: both
    struct sl_experts *experts;
};

struct sl_feed_room {
    const struct sl_device_ops *ops;
    float eps;
    int normalise;
    struct sl_tensor normed;         // [rows, hidden], of whoever made the room
    struct sl_tensor mlp;            // [rows, intermediate]
    struct sl_tensor logits;         // [rows, experts] f32
    struct sl_tensor expert, weight; // [rows, experts_per_token] i32, f32
};

// Errors: SL_ERR_MODEL_SHAPE where the tensors do not hold the layer that the config describes.
int sl_feed_create(struct sl_device *device, struct sl_weights *weights, const struct sl_text_config *config, int layer,
                   enum sl_dtype compute, struct sl_feed *out, struct sl_error *error);
void sl_feed_destroy(struct sl_device *device, struct sl_feed *feed); // one that was not made whole is fine

int sl_feed_room_create(struct sl_device *device, const struct sl_text_config *config, enum sl_dtype compute,
                        const struct sl_tensor *normed, struct sl_feed_room *out, struct sl_error *error);
void sl_feed_room_destroy(struct sl_device *device, struct sl_feed_room *room); // likewise

// Enqueues hidden += feed(rmsnorm(hidden) * norm).
void sl_feed_run(const struct sl_feed_room *room, struct sl_stream *stream, const struct sl_feed *feed,
                 const struct sl_tensor *norm /* [hidden] */, const struct sl_tensor *hidden /* [rows, hidden] */);

#endif
