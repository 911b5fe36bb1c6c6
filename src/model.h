// SPDX-License-Identifier: Apache-2.0
// A checkpoint made ready on a device: weights, configuration, tokenizer, vision tower and engine, opened and closed
// together. The visual side (struct sl_clip, src/clip.h) works on the engine's thread through it.
#ifndef SL_SRC_MODEL_H
#define SL_SRC_MODEL_H

#include <stdatomic.h>

#include "core/config.h"
#include "core/device.h"
#include "core/weights.h"
#include "lm/lm.h"
#include "vision/vision.h"

// Of a GPU: for the surfaces of decoding sessions, as a dozen of them need for HD.
#define SL_MODEL_SURFACE_BYTES ((int64_t)3 << 30)

struct sl_model_options {
    const char *dir;         // Hugging Face folder
    const char *shape;       // a config.json: random weights of its shapes, and the tokenizer of `dir`; NULL: none
    const char *device;      // "auto", "cpu", "cuda", "cuda:N"
    int threads;             // CPU threads; 0: one for each core
    int max_tokens_per_pair; // the user's pixel limit; 0: none
    int pairs_per_window;    // frame pairs of a full window
    int max_new_tokens;      // of one answer
    int sequences;           // windows decoded at once; 0: as many as memory and device make sensible
    int deterministic;
};

struct sl_model {
    struct sl_device *device;
    int device_is_shared; // 1: not closed with the model
    struct sl_model_config config;
    struct sl_weights *weights;
    struct sl_tokenizer *tokenizer;
    struct sl_vision *vision;
    struct sl_engine *engine;
    enum sl_dtype compute;
    int64_t max_patches; // of one call of the vision tower
    int sequences;       // windows worth keeping in flight
    atomic_int flying;   // windows that the engine has and has not answered
    char name[128];      // the folder's name
    char hash[17];       // identity of the weights, hexadecimal
};

// `name` as in sl_model_options.device; threads of a CPU, 0: one for each core. Close with ops->destroy.
int sl_model_open_device(const char *name, int threads, int deterministic, struct sl_device **out,
                         struct sl_error *error);

// Only what needs no device: configuration, weights, tokenizer (for `info`). Close with sl_model_close.
int sl_model_open_files(const char *dir, struct sl_model *out, struct sl_error *error);
// The same for a config.json alone, with random weights. tokenizer_dir may be NULL: no tokenizer; else the
// configuration takes the tokenizer's ids of special tokens.
int sl_model_open_shape(const char *config_path, const char *tokenizer_dir, struct sl_model *out,
                        struct sl_error *error);
int sl_model_open(const struct sl_model_options *options, struct sl_model *out, struct sl_error *error);

// Several models on one device: files first, then each is placed, asked what it will take, and loaded.
void sl_model_place(const struct sl_model_options *options, struct sl_device *device, struct sl_model *model);
int64_t sl_model_weight_bytes(const struct sl_model *model); // on its device, once model->compute is known
int64_t sl_model_window_bytes(const struct sl_model_options *options, const struct sl_model *model);
int64_t sl_model_bytes(const struct sl_model_options *options, const struct sl_model *model); // but for windows
// Of a loaded one: what of that is still to be allocated, with the pictures of its windows.
int64_t sl_model_bytes_to_come(const struct sl_model_options *options, const struct sl_model *model);
struct sl_model_room {
    int64_t others_bytes; // of a GPU: what other models will allocate
    int sharers;          // models, this one among them, for whose windows the rest is
};
int sl_model_load(const struct sl_model_options *options, const struct sl_model_room *room, struct sl_model *model,
                  struct sl_error *error);

// 1: both take pictures of the same size, so that what was made for the one can be shown to the other.
int sl_model_sees_alike(const struct sl_model *a, const struct sl_model *b);
void sl_model_close(struct sl_model *model); // of a zeroed or failed one too

#endif
