// SPDX-License-Identifier: Apache-2.0
// The first byte chooses: a whole file; a header up to the first zero byte, its length put in front, and data; or an
// index beside a sound shard.
#include "core/hash.h"
#include "core/weights.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char sound[] = "\x40\0\0\0\0\0\0\0{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
                            "                \0\0\0\0";

// Reads every byte that the tensors claim.
static void use(struct sl_weights *weights)
{
    static const char *const names[] = {"x", "a", "lm_head.weight", ""};
    static volatile uint64_t hash;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sl_tensor t;
        if (sl_weights_find(weights, names[i], &t) && t.data != NULL) {
            hash = sl_hash64(t.data, (size_t)sl_tensor_bytes(&t), hash);
            if (sl_weights_require(weights, names[i], t.rank, t.shape, &t, NULL) == SL_OK && t.scale != NULL) {
                hash = sl_hash64(t.scale->data, (size_t)sl_tensor_bytes(t.scale), hash);
            }
        }
        (void)sl_weights_require(weights, names[i], 1, (const int64_t[]){1}, &t, NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (fuzz_folder[0] == 0) {
        fuzz_make_folder();
        fuzz_write("a.safetensors", sound, sizeof sound - 1);
    }
    if (size < 1) {
        return 0;
    }
    int mode = *data++ % 3;
    size--;
    unlink(fuzz_path("model.safetensors"));
    if (mode == 0) {
        fuzz_write("model.safetensors", data, size);
    } else if (mode == 1) {
        const uint8_t *end = memchr(data, 0, size);
        uint64_t length = end == NULL ? size : (uint64_t)(end - data);
        uint8_t *file = malloc(size + 8);
        if (file == NULL) {
            return 0;
        }
        memcpy(file, &length, 8);
        memcpy(file + 8, data, size);
        fuzz_write("model.safetensors", file, size + 8);
        free(file);
    } else {
        fuzz_write("model.safetensors.index.json", data, size);
    }
    struct sl_weights *weights = NULL;
    struct sl_error error = {0};
    if (sl_weights_open(fuzz_folder, &weights, &error) == SL_OK) {
        use(weights);
    } else if (error.text[0] == 0) {
        abort();
    }
    sl_weights_close(weights);
    return 0;
}
