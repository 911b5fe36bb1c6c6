// SPDX-License-Identifier: Apache-2.0
// tokenizer.json (https://github.com/huggingface/tokenizers) as far as byte-level BPE models use it. Every part is
// either understood or refused.
//
// In the file each byte is written as a letter: printable ones as themselves, the others as the letters from U+0100 on
// (the GPT-2 alphabet). Here tokens are bytes.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/json.h"
#include "lm/bpe.h"
#include "lm/lm.h"
#include "lm/nfc.h"
#include "lm/utf8.h"
#include "lm/words.h"

enum {
    MAX_FILE_BYTES = 256 << 20,
    MAX_ID = 1 << 24,
    MAX_TEXT_BYTES = 256 << 20,
    LETTERS = 0x144, // the byte alphabet's letters are below
};

enum kind { ABSENT, PLAIN, ADDED };

struct token {
    uint32_t offset, size; // in `bytes`
    enum kind kind;
};

struct sl_tokenizer {
    struct token *tokens; // by id
    int32_t size;
    char *bytes; // of all tokens, one after another
    size_t bytes_used;
    int32_t *slots; // plain tokens by hash of their bytes; -1 is free
    size_t slot_mask;
    int32_t byte_token[256];
    int16_t byte_of_letter[LETTERS]; // -1: not in the alphabet
    struct sl_bpe *bpe;
    struct sl_words *words;
    int nfc;
    int ignore_merges; // a word that is a token is not built by merges
};

static int out_of_memory(struct sl_error *error)
{
    return sl_fail(error, SL_ERR_MEMORY, "no memory for a tokenizer");
}

// ---- Tokens

static void fill_alphabet(struct sl_tokenizer *tokenizer)
{
    int next = 0x100;
    memset(tokenizer->byte_of_letter, 0xff, sizeof tokenizer->byte_of_letter);
    for (int b = 0; b < 256; b++) {
        int visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        tokenizer->byte_of_letter[visible ? b : next++] = (int16_t)b;
    }
}

// Letters to bytes, in `bytes` of strlen(letters) at most; -1 when there is another letter.
static long to_bytes(const struct sl_tokenizer *tokenizer, const char *letters, char *bytes)
{
    long count = 0;
    size_t left = strlen(letters);
    while (left > 0) {
        int length = sl_utf8_character(letters, left);
        unsigned letter = (unsigned char)letters[0];
        if (length == 2) {
            letter = (letter & 0x1f) << 6 | ((unsigned char)letters[1] & 0x3f);
        }
        if (length < 1 || length > 2 || letter >= LETTERS || tokenizer->byte_of_letter[letter] < 0) {
            return -1;
        }
        bytes[count++] = (char)tokenizer->byte_of_letter[letter];
        letters += length;
        left -= (size_t)length;
    }
    return count;
}

// The slot of the plain token with these bytes, or the free one where it would stand.
static int32_t *find_slot(const struct sl_tokenizer *tokenizer, const char *bytes, size_t size)
{
    size_t at = (size_t)sl_hash64(bytes, size, 0) & tokenizer->slot_mask;
    for (;; at = (at + 1) & tokenizer->slot_mask) {
        int32_t id = tokenizer->slots[at];
        if (id < 0 || (tokenizer->tokens[id].size == size &&
                       memcmp(tokenizer->bytes + tokenizer->tokens[id].offset, bytes, size) == 0)) {
            return &tokenizer->slots[at];
        }
    }
}

static int read_id(const struct sl_json *json, const cJSON *item, const char *what, int32_t *id, struct sl_error *error)
{
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(value >= 0 && value < MAX_ID) || value != (double)(int32_t)value) {
        return sl_fail(error, json->status, "%s: token %s has no valid id", json->name, what);
    }
    *id = (int32_t)value;
    return SL_OK;
}

// Makes room for all ids and all bytes.
static int reserve_tokens(struct sl_tokenizer *tokenizer, const struct sl_json *json, const cJSON *vocab,
                          const cJSON *added, struct sl_error *error)
{
    size_t bytes = 1, count = 0, slots = 16;
    int32_t id = 0, last = -1;
    for (const cJSON *item = vocab->child; item != NULL; item = item->next) {
        int rc = read_id(json, item, item->string, &id, error);
        if (rc < 0) {
            return rc;
        }
        last = id > last ? id : last;
        bytes += strlen(item->string);
        count++;
    }
    for (const cJSON *item = added == NULL ? NULL : added->child; item != NULL; item = item->next) {
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "content"));
        if (content == NULL || *content == 0) {
            return sl_fail(error, json->status, "%s: an added token has no content", json->name);
        }
        int rc = read_id(json, cJSON_GetObjectItemCaseSensitive(item, "id"), content, &id, error);
        if (rc < 0) {
            return rc;
        }
        last = id > last ? id : last;
        bytes += strlen(content);
    }
    while (slots < 2 * count) {
        slots *= 2;
    }
    tokenizer->size = last + 1;
    tokenizer->tokens = calloc((size_t)tokenizer->size + 1, sizeof *tokenizer->tokens);
    tokenizer->bytes = malloc(bytes);
    tokenizer->slots = malloc(slots * sizeof *tokenizer->slots);
    if (tokenizer->tokens == NULL || tokenizer->bytes == NULL || tokenizer->slots == NULL || bytes > UINT32_MAX) {
        return out_of_memory(error);
    }
    memset(tokenizer->slots, 0xff, slots * sizeof *tokenizer->slots);
    tokenizer->slot_mask = slots - 1;
    return SL_OK;
}

static int add_plain_tokens(struct sl_tokenizer *tokenizer, const struct sl_json *json, const cJSON *vocab,
                            struct sl_error *error)
{
    for (const cJSON *item = vocab->child; item != NULL; item = item->next) {
        int32_t id = (int32_t)item->valuedouble;
        char *bytes = tokenizer->bytes + tokenizer->bytes_used;
        long size = to_bytes(tokenizer, item->string, bytes);
        if (size < 1) {
            return sl_fail(error, json->status, "%s: token \"%s\" is not written in the byte alphabet", json->name,
                           item->string);
        }
        int32_t *slot = find_slot(tokenizer, bytes, (size_t)size);
        if (*slot >= 0 || tokenizer->tokens[id].kind != ABSENT) {
            return sl_fail(error, json->status, "%s: token \"%s\" or its id %d is there twice", json->name,
                           item->string, id);
        }
        tokenizer->tokens[id] = (struct token){(uint32_t)tokenizer->bytes_used, (uint32_t)size, PLAIN};
        *slot = id;
        tokenizer->bytes_used += (size_t)size;
    }
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        tokenizer->byte_token[b] = *find_slot(tokenizer, &byte, 1);
        if (tokenizer->byte_token[b] < 0) {
            return sl_fail(error, json->status, "%s: lacks a token for byte 0x%02x", json->name, (unsigned)b);
        }
    }
    return SL_OK;
}

// Added tokens are never looked for in texts, so of their flags only those matter that would change the text beside.
static int add_added_tokens(struct sl_tokenizer *tokenizer, const struct sl_json *json, const cJSON *added,
                            struct sl_error *error)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    for (const cJSON *item = added == NULL ? NULL : added->child; item != NULL; item = item->next) {
        const char *content = cJSON_GetObjectItemCaseSensitive(item, "content")->valuestring;
        int32_t id = (int32_t)cJSON_GetObjectItemCaseSensitive(item, "id")->valuedouble;
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
            if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, flags[i]))) {
                return sl_fail(error, json->status, "%s: added token %s: %s is not supported", json->name, content,
                               flags[i]);
            }
        }
        struct token *token = &tokenizer->tokens[id];
        size_t size = strlen(content);
        // An added token may stand in the vocabulary as well.
        if (token->kind != ABSENT &&
            (token->size != size || memcmp(tokenizer->bytes + token->offset, content, size) != 0)) {
            return sl_fail(error, json->status, "%s: added token %s has the id %d of another token", json->name,
                           content, id);
        }
        if (token->kind == ABSENT) {
            memcpy(tokenizer->bytes + tokenizer->bytes_used, content, size);
            *token = (struct token){(uint32_t)tokenizer->bytes_used, (uint32_t)size, ADDED};
            tokenizer->bytes_used += size;
        }
        token->kind = ADDED;
    }
    return SL_OK;
}

// ---- Merges

// The two halves of a merge, "a b" or ["a", "b"]; `text` is for the first form.
static int halves(const cJSON *item, char *text, size_t room, const char **left, const char **right)
{
    if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2) {
        *left = cJSON_GetStringValue(item->child);
        *right = cJSON_GetStringValue(item->child->next);
        return *left != NULL && *right != NULL;
    }
    if (!cJSON_IsString(item) || strlen(item->valuestring) >= room) {
        return 0;
    }
    strcpy(text, item->valuestring);
    char *space = strchr(text, ' ');
    if (space == NULL) {
        return 0;
    }
    *space = 0;
    *left = text;
    *right = space + 1;
    return 1;
}

static int add_merge(struct sl_tokenizer *tokenizer, const struct sl_json *json, const cJSON *item, int32_t rank,
                     struct sl_error *error)
{
    char text[2048], bytes[2048];
    const char *left = NULL, *right = NULL;
    if (!halves(item, text, sizeof text, &left, &right) || strlen(left) + strlen(right) > sizeof bytes) {
        return sl_fail(error, json->status, "%s: merge %d is malformed", json->name, rank);
    }
    long left_size = to_bytes(tokenizer, left, bytes);
    long right_size = left_size < 1 ? -1 : to_bytes(tokenizer, right, bytes + left_size);
    if (right_size < 1) {
        return sl_fail(error, json->status, "%s: merge %d is not written in the byte alphabet", json->name, rank);
    }
    int32_t left_id = *find_slot(tokenizer, bytes, (size_t)left_size);
    int32_t right_id = *find_slot(tokenizer, bytes + left_size, (size_t)right_size);
    int32_t joined = *find_slot(tokenizer, bytes, (size_t)(left_size + right_size));
    if (left_id < 0 || right_id < 0 || joined < 0) {
        return sl_fail(error, json->status, "%s: merge %d (\"%s\" \"%s\") is not of tokens", json->name, rank, left,
                       right);
    }
    sl_bpe_add(tokenizer->bpe, left_id, right_id, rank, joined);
    return SL_OK;
}

// ---- The file's parts

static int is_type(const cJSON *item, const char *type)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "type"));
    return value != NULL && strcmp(value, type) == 0;
}

static int is_true(const cJSON *item, const char *key)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(item, key));
}

static int unknown_part(const struct sl_json *json, const char *part, const cJSON *item, struct sl_error *error)
{
    char *text = cJSON_PrintUnformatted(item);
    int rc =
        sl_fail(error, json->status, "%s: %s is not supported: %.160s", json->name, part, text == NULL ? "?" : text);
    cJSON_free(text);
    return rc;
}

// The elements of a Sequence, under whatever name they stand, or the item itself.
static const cJSON *elements(const cJSON *item, const char *list)
{
    if (!is_type(item, "Sequence")) {
        return item;
    }
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(item, list);
    return cJSON_IsArray(array) ? array->child : NULL;
}

static int read_normalizer(struct sl_tokenizer *tokenizer, const struct sl_json *json, struct sl_error *error)
{
    const cJSON *normalizer = sl_json_find(json, "normalizer");
    int sequence = is_type(normalizer, "Sequence");
    for (const cJSON *item = elements(normalizer, "normalizers"); item != NULL; item = sequence ? item->next : NULL) {
        if (!is_type(item, "NFC")) {
            return unknown_part(json, "normalizer", item, error);
        }
        tokenizer->nfc = 1;
    }
    return SL_OK;
}

// One pre-tokenizer; *done when it is the ByteLevel at the end.
static int read_pre_tokenizer(struct sl_tokenizer *tokenizer, const struct sl_json *json, const cJSON *item, int *done,
                              struct sl_error *error)
{
    // What ByteLevel does itself unless told not to (https://github.com/openai/gpt-2, src/encoder.py).
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const char *pattern = NULL;
    if (is_type(item, "Split") && !*done) {
        const cJSON *regex = cJSON_GetObjectItemCaseSensitive(item, "pattern");
        const char *behavior = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "behavior"));
        pattern = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(regex, "Regex"));
        if (pattern == NULL || behavior == NULL || strcmp(behavior, "Isolated") != 0 || is_true(item, "invert")) {
            return unknown_part(json, "pre_tokenizer", item, error);
        }
    } else if (is_type(item, "ByteLevel") && !*done && !is_true(item, "add_prefix_space")) {
        const cJSON *use_regex = cJSON_GetObjectItemCaseSensitive(item, "use_regex");
        pattern = cJSON_IsFalse(use_regex) ? NULL : gpt2;
        *done = 1;
    } else {
        return unknown_part(json, "pre_tokenizer", item, error);
    }
    int rc = pattern == NULL ? SL_OK : sl_words_add(tokenizer->words, pattern, error);
    return rc < 0 ? sl_fail_at(error, "%s", json->name) : SL_OK;
}

static int read_pre_tokenizers(struct sl_tokenizer *tokenizer, const struct sl_json *json, struct sl_error *error)
{
    const cJSON *all = sl_json_find(json, "pre_tokenizer");
    int sequence = is_type(all, "Sequence"), done = 0;
    int rc = sl_words_create(&tokenizer->words, error);
    for (const cJSON *item = elements(all, "pretokenizers"); item != NULL && rc == SL_OK;
         item = sequence ? item->next : NULL) {
        rc = read_pre_tokenizer(tokenizer, json, item, &done, error);
    }
    if (rc == SL_OK && !done) {
        rc = sl_fail(error, json->status, "%s: pre_tokenizer is not byte-level", json->name);
    }
    return rc;
}

// A post-processor that adds no token to a single text: none, ByteLevel, or the template of the text alone.
static int adds_nothing(const cJSON *post)
{
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(post, "single");
    return post == NULL || is_type(post, "ByteLevel") ||
           (is_type(post, "TemplateProcessing") && cJSON_GetArraySize(single) == 1 &&
            cJSON_GetObjectItemCaseSensitive(single->child, "Sequence") != NULL);
}

// Parts that must be absent or empty, or switched off.
static int check_model(const struct sl_json *json, struct sl_error *error)
{
    static const char *const empty[] = {"model.dropout", "model.unk_token", "model.continuing_subword_prefix",
                                        "model.end_of_word_suffix"};
    const cJSON *model = sl_json_find(json, "model");
    if (!is_type(model, "BPE") || is_true(model, "byte_fallback")) {
        return sl_fail(error, json->status, "%s: model is not byte-level BPE", json->name);
    }
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        const cJSON *item = sl_json_find(json, empty[i]);
        int nothing = item == NULL || (cJSON_IsString(item) && *item->valuestring == 0) ||
                      (cJSON_IsNumber(item) && item->valuedouble == 0);
        if (!nothing) {
            return unknown_part(json, empty[i], item, error);
        }
    }
    const cJSON *decoder = sl_json_find(json, "decoder"), *post = sl_json_find(json, "post_processor");
    if (!is_type(decoder, "ByteLevel")) {
        return unknown_part(json, "decoder", decoder, error);
    }
    return adds_nothing(post) ? SL_OK : unknown_part(json, "post_processor", post, error);
}

static int read_tokens(struct sl_tokenizer *tokenizer, const struct sl_json *json, struct sl_error *error)
{
    const cJSON *vocab = NULL, *merges = sl_json_find(json, "model.merges");
    const cJSON *added = sl_json_find(json, "added_tokens");
    int rc = sl_json_object(json, "model.vocab", &vocab, error);
    if (rc == SL_OK && !cJSON_IsArray(merges)) {
        rc = sl_fail(error, json->status, "%s: lacks model.merges", json->name);
    }
    if (rc == SL_OK) {
        rc = reserve_tokens(tokenizer, json, vocab, added, error);
    }
    if (rc == SL_OK) {
        rc = add_plain_tokens(tokenizer, json, vocab, error);
    }
    if (rc == SL_OK) {
        rc = sl_bpe_create((size_t)cJSON_GetArraySize(merges), &tokenizer->bpe, error);
    }
    int32_t rank = 0;
    for (const cJSON *item = rc == SL_OK ? merges->child : NULL; item != NULL && rc == SL_OK; item = item->next) {
        rc = add_merge(tokenizer, json, item, rank++, error);
    }
    return rc < 0 ? rc : add_added_tokens(tokenizer, json, added, error);
}

static int check_specials(const struct sl_tokenizer *tokenizer, const struct sl_json *json, struct sl_error *error)
{
    static const char *const needed[] = {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
                                         "<|video_pad|>"};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        if (sl_tokenizer_added(tokenizer, needed[i]) < 0) {
            return sl_fail(error, json->status, "%s: lacks the added token %s: not a tokenizer of Qwen3-VL", json->name,
                           needed[i]);
        }
    }
    return SL_OK;
}

static int read_tokenizer(struct sl_tokenizer *tokenizer, const struct sl_json *json, struct sl_error *error)
{
    fill_alphabet(tokenizer);
    tokenizer->ignore_merges = cJSON_IsTrue(sl_json_find(json, "model.ignore_merges"));
    int rc = check_model(json, error);
    if (rc == SL_OK) {
        rc = read_normalizer(tokenizer, json, error);
    }
    if (rc == SL_OK) {
        rc = read_pre_tokenizers(tokenizer, json, error);
    }
    if (rc == SL_OK) {
        rc = read_tokens(tokenizer, json, error);
    }
    return rc < 0 ? rc : check_specials(tokenizer, json, error);
}

int sl_tokenizer_open(const char *model_dir, struct sl_tokenizer **out, struct sl_error *error)
{
    char path[PATH_MAX];
    struct sl_json json = {0};
    *out = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/tokenizer.json", model_dir) >= sizeof path) {
        return sl_fail(error, SL_ERR_MODEL_MISSING, "model folder's path is too long: %s", model_dir);
    }
    struct sl_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (tokenizer == NULL) {
        return out_of_memory(error);
    }
    int rc = sl_json_open(path, MAX_FILE_BYTES, SL_ERR_MODEL_MISSING, SL_ERR_TOKENIZER, &json, error);
    if (rc == SL_OK) {
        rc = read_tokenizer(tokenizer, &json, error);
    }
    sl_json_finish(&json);
    if (rc < 0) {
        sl_tokenizer_close(tokenizer);
        return rc;
    }
    *out = tokenizer;
    return SL_OK;
}

void sl_tokenizer_close(struct sl_tokenizer *tokenizer)
{
    if (tokenizer == NULL) {
        return;
    }
    sl_bpe_destroy(tokenizer->bpe);
    sl_words_destroy(tokenizer->words);
    free(tokenizer->tokens);
    free(tokenizer->bytes);
    free(tokenizer->slots);
    free(tokenizer);
}

// ---- Encoding

struct encoding {
    const struct sl_tokenizer *tokenizer;
    struct sl_bpe_scratch scratch;
    int32_t *ids;
    size_t count;
    struct sl_error *error;
};

static int encode_word(void *context, const char *text, size_t size)
{
    struct encoding *e = context;
    if (e->tokenizer->ignore_merges) {
        int32_t id = *find_slot(e->tokenizer, text, size);
        if (id >= 0) {
            e->ids[e->count++] = id;
            return SL_OK;
        }
    }
    // No text has more tokens than bytes, so the room is there.
    int32_t *ids = e->ids + e->count;
    for (size_t i = 0; i < size; i++) {
        ids[i] = e->tokenizer->byte_token[(unsigned char)text[i]];
    }
    int rc = sl_bpe_merge(e->tokenizer->bpe, &e->scratch, ids, &size, e->error);
    e->count += size;
    return rc;
}

// Valid UTF-8 (each bad byte is U+FFFD) in the normal form that the file states. *owned is NULL or *text.
static int normalise(const struct sl_tokenizer *tokenizer, const char **text, size_t *size, char **owned,
                     struct sl_error *error)
{
    size_t valid = 0;
    for (int length = 1; valid < *size && length > 0; valid += length > 0 ? (size_t)length : 0) {
        length = sl_utf8_character(*text + valid, *size - valid);
    }
    if (valid < *size) {
        struct sl_utf8 stream = {0};
        char *repaired = malloc(3 * (*size + 3));
        if (repaired == NULL) {
            return out_of_memory(error);
        }
        size_t used = sl_utf8_push(&stream, *text, *size, repaired);
        *size = used + sl_utf8_finish(&stream, repaired + used);
        *text = *owned = repaired;
    }
    char *normal = NULL;
    size_t normal_size = 0;
    int rc = tokenizer->nfc ? sl_nfc(*text, *size, &normal, &normal_size, error) : SL_OK;
    if (normal != NULL) {
        free(*owned);
        *text = *owned = normal;
        *size = normal_size;
    }
    return rc;
}

int sl_tokenizer_encode(const struct sl_tokenizer *tokenizer, const char *text, size_t size_bytes, int32_t **ids,
                        size_t *count, struct sl_error *error)
{
    char *owned = NULL;
    *ids = NULL;
    *count = 0;
    if (size_bytes > MAX_TEXT_BYTES) {
        return sl_fail(error, SL_ERR_USAGE, "a text of %zu bytes is too long", size_bytes);
    }
    struct encoding e = {.tokenizer = tokenizer, .error = error};
    int rc = normalise(tokenizer, &text, &size_bytes, &owned, error);
    if (rc == SL_OK) {
        e.ids = malloc((size_bytes + 1) * sizeof *e.ids);
        rc = e.ids == NULL ? out_of_memory(error)
                           : sl_words_cut(tokenizer->words, text, size_bytes, encode_word, &e, error);
    }
    sl_bpe_scratch_finish(&e.scratch);
    free(owned);
    if (rc < 0) {
        free(e.ids);
        return rc;
    }
    *ids = e.ids;
    *count = e.count;
    return SL_OK;
}

// ---- Looking up

int32_t sl_tokenizer_added(const struct sl_tokenizer *tokenizer, const char *content)
{
    size_t size = strlen(content);
    // Added tokens stand at the end.
    for (int32_t id = tokenizer->size - 1; id >= 0; id--) {
        const struct token *token = &tokenizer->tokens[id];
        if (token->kind == ADDED && token->size == size &&
            memcmp(tokenizer->bytes + token->offset, content, size) == 0) {
            return id;
        }
    }
    return -1;
}

const char *sl_tokenizer_bytes(const struct sl_tokenizer *tokenizer, int32_t id, size_t *size_bytes)
{
    if (id < 0 || id >= tokenizer->size || tokenizer->tokens[id].kind == ABSENT) {
        *size_bytes = 0;
        return NULL;
    }
    *size_bytes = tokenizer->tokens[id].size;
    return tokenizer->bytes + tokenizer->tokens[id].offset;
}

int sl_tokenizer_is_added(const struct sl_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->size && tokenizer->tokens[id].kind == ADDED;
}

int32_t sl_tokenizer_size(const struct sl_tokenizer *tokenizer)
{
    return tokenizer->size;
}
