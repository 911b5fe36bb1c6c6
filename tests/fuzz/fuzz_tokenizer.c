// SPDX-License-Identifier: Apache-2.0
// The first byte chooses: the rest is a tokenizer.json, or a text for a sound tokenizer.
#include "lm/lm.h"
#include "tests/fuzz/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sl_tokenizer *open_sound(void)
{
    struct sl_tokenizer *tokenizer = NULL;
    struct sl_error error = {0};
    fuzz_write_tokenizer();
    if (sl_tokenizer_open(fuzz_folder, &tokenizer, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
    return tokenizer;
}

// The tokens' bytes make the text again; where it is ASCII, the very same.
static void encode(const struct sl_tokenizer *tokenizer, const char *text, size_t size)
{
    int32_t *ids = NULL;
    size_t count = 0, at = 0;
    int ascii = 1;
    if (sl_tokenizer_encode(tokenizer, text, size, &ids, &count, NULL) < 0) {
        return; // an expression that takes too long is an error, not a fault
    }
    for (size_t i = 0; i < size; i++) {
        ascii &= (unsigned char)text[i] < 0x80;
    }
    for (size_t i = 0; i < count; i++) {
        size_t token_size = 0;
        const char *bytes = sl_tokenizer_bytes(tokenizer, ids[i], &token_size);
        if (bytes == NULL || (ascii && (at + token_size > size || memcmp(text + at, bytes, token_size) != 0))) {
            abort();
        }
        at += token_size;
    }
    if (ascii && at != size) {
        abort();
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sl_tokenizer *sound;
    if (sound == NULL) {
        fuzz_make_folder();
        sound = open_sound();
    }
    if (size < 1) {
        return 0;
    }
    if (data[0] % 2 == 0) {
        encode(sound, (const char *)data + 1, size - 1);
        return 0;
    }
    struct sl_tokenizer *tokenizer = NULL;
    struct sl_error error = {0};
    fuzz_write("tokenizer.json", data + 1, size - 1);
    if (sl_tokenizer_open(fuzz_folder, &tokenizer, &error) == SL_OK) {
        encode(tokenizer, "The red circle's 12 \xc3\xa9\xcc\x81\n", 25);
    } else if (error.text[0] == 0) {
        abort();
    }
    sl_tokenizer_close(tokenizer);
    return 0;
}
