// SPDX-License-Identifier: Apache-2.0
// The input sets the limits and then draws tokens: there is always one to draw, advancing takes it, and what comes
// out is a JSON object, in time.
#include <cjson/cJSON.h>

#include "lm/grammar.h"
#include "tests/fuzz/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sl_tokenizer *tokenizer;
static struct sl_grammar *grammar;

static void open_grammar(void)
{
    struct sl_error error = {0};
    fuzz_make_folder();
    fuzz_write_tokenizer();
    if (sl_tokenizer_open(fuzz_folder, &tokenizer, &error) < 0 ||
        sl_grammar_create(tokenizer, FUZZ_VOCABULARY, (const int[]){FUZZ_EOS}, 1, &grammar, &error) < 0) {
        fprintf(stderr, "%s\n", error.text);
        abort();
    }
}

// The admitted token at or after `wish`, round about; -1 when there is none.
static int draw(const uint32_t *bits, int wish)
{
    for (int i = 0; i < FUZZ_VOCABULARY; i++) {
        int id = (wish + i) % FUZZ_VOCABULARY;
        if (bits[id / 32] >> (id % 32) & 1) {
            return id;
        }
    }
    return -1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (grammar == NULL) {
        open_grammar();
    }
    if (size < 6) {
        return 0;
    }
    const struct sl_answer_grammar limits = {((int64_t)data[0] << (data[1] % 40)) * 1000, 1 + data[2], 1 + data[3]};
    struct sl_grammar_state state;
    char text[1 << 12];
    size_t used = 0, at = 6;
    int left = 3 + data[4] + 4 * data[5];
    if (sl_grammar_start(&limits, &state, NULL) < 0) {
        abort();
    }
    for (;; left--) {
        uint32_t bits[(FUZZ_VOCABULARY + 31) / 32];
        sl_grammar_mask(grammar, &state, left, bits);
        int wish = at < size ? data[at++] : 0;
        int id = draw(bits, wish + (wish % 5 == 4 ? 200 : 0));
        if (id < 0 || left < 1 || !sl_grammar_advance(grammar, &state, id)) {
            abort();
        }
        if (id == FUZZ_EOS) {
            break;
        }
        size_t token_size = 0;
        const char *bytes = sl_tokenizer_bytes(tokenizer, id, &token_size);
        if (used + token_size < sizeof text) {
            memcpy(text + used, bytes, token_size);
            used += token_size;
        }
    }
    cJSON *json = cJSON_ParseWithLength(text, used);
    if (used + 20 < sizeof text && (!cJSON_IsObject(json) || cJSON_GetArraySize(json) > limits.max_events)) {
        abort();
    }
    cJSON_Delete(json);
    return 0;
}
