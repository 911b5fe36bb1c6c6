// SPDX-License-Identifier: Apache-2.0
// The chat layout of Qwen3-VL with a video as transformers 4.57 expands it: no separator between frame groups, no outer
// pair of vision tokens. Each run of text between added tokens is encoded by itself, as Hugging Face does.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lm/lm.h"

// A prompt under construction. Text segments have no address yet: `ids` may still move.
struct builder {
    const struct sl_tokenizer *tokenizer;
    struct sl_prompt *prompt;
    size_t used, capacity; // of prompt->ids
    char *run;             // text since the last added token
    size_t run_size, run_capacity;
    struct sl_error *error;
};

static int out_of_memory(struct sl_error *error)
{
    return sl_fail(error, SL_ERR_MEMORY, "no memory for a prompt");
}

// ---- Pieces of text

static int append_text(struct builder *b, const char *text, size_t size)
{
    if (b->run_size + size > b->run_capacity) {
        size_t capacity = 2 * (b->run_size + size);
        char *grown = realloc(b->run, capacity);
        if (grown == NULL) {
            return out_of_memory(b->error);
        }
        b->run = grown;
        b->run_capacity = capacity;
    }
    if (size > 0) {
        memcpy(b->run + b->run_size, text, size);
    }
    b->run_size += size;
    return SL_OK;
}

// Ids go to the text segment at the end, which is made if a frame group stands there.
static int append_ids(struct builder *b, const int32_t *ids, size_t count)
{
    struct sl_prompt *prompt = b->prompt;
    if (b->used + count > b->capacity) {
        size_t capacity = 2 * (b->used + count);
        int32_t *grown = realloc(prompt->ids, capacity * sizeof *grown);
        if (grown == NULL) {
            return out_of_memory(b->error);
        }
        prompt->ids = grown;
        b->capacity = capacity;
    }
    if (count == 0) {
        return SL_OK;
    }
    if (prompt->segment_count == 0 || prompt->segments[prompt->segment_count - 1].visual != NULL) {
        prompt->segments[prompt->segment_count++] = (struct sl_segment){0};
    }
    memcpy(prompt->ids + b->used, ids, count * sizeof *ids);
    b->used += count;
    prompt->segments[prompt->segment_count - 1].count += (int64_t)count;
    return SL_OK;
}

static int finish_run(struct builder *b)
{
    int32_t *ids = NULL;
    size_t count = 0;
    int rc = sl_tokenizer_encode(b->tokenizer, b->run, b->run_size, &ids, &count, b->error);
    if (rc == SL_OK) {
        rc = append_ids(b, ids, count);
    }
    free(ids);
    b->run_size = 0;
    return rc;
}

static int append_added(struct builder *b, const char *content)
{
    int32_t id = sl_tokenizer_added(b->tokenizer, content);
    if (id < 0) {
        return sl_fail(b->error, SL_ERR_TOKENIZER, "tokenizer.json lacks the added token %s", content);
    }
    int rc = finish_run(b);
    return rc < 0 ? rc : append_ids(b, &id, 1);
}

// A text with added tokens in it: literals of ours only.
static int append_layout(struct builder *b, const char *layout)
{
    static const char *const added[] = {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<think>"};
    int rc = SL_OK;
    while (*layout != 0 && rc == SL_OK) {
        size_t size = 1, i = 0, count = sizeof added / sizeof *added;
        while (i < count && strncmp(layout, added[i], strlen(added[i])) != 0) {
            i++;
        }
        if (i < count) {
            size = strlen(added[i]);
            rc = append_added(b, added[i]);
        } else {
            rc = append_text(b, layout, size);
        }
        layout += size;
    }
    return rc;
}

// ---- The layout

static int append_group(struct builder *b, const struct sl_prompt_pair *pair, int index, int rows, int columns,
                        const struct sl_visual *visual)
{
    char label[64];
    // The double that transformers has, so that "%.1f" rounds alike.
    double seconds = ((double)pair->first_us / 1e6 + (double)pair->second_us / 1e6) / 2;
    snprintf(label, sizeof label, "<%.1f seconds><|vision_start|>", seconds);
    int rc = append_layout(b, label);
    if (rc == SL_OK) {
        int64_t count = (int64_t)rows * columns;
        b->prompt->segments[b->prompt->segment_count++] = (struct sl_segment){
            .count = count, .visual = visual, .visual_first = index * count, .rows = rows, .columns = columns};
        rc = append_layout(b, "<|vision_end|>");
    }
    return rc;
}

static int append_turns(struct builder *b, const struct sl_prompt_pair *pairs, int pair_count, int rows, int columns,
                        const struct sl_visual *visual, const char *system, const char *text, int thinking)
{
    int rc = SL_OK;
    if (system != NULL) {
        rc = append_layout(b, "<|im_start|>system\n");
        rc = rc < 0 ? rc : append_text(b, system, strlen(system));
        rc = rc < 0 ? rc : append_layout(b, "<|im_end|>\n");
    }
    rc = rc < 0 ? rc : append_layout(b, "<|im_start|>user\n");
    for (int i = 0; i < pair_count && rc == SL_OK; i++) {
        rc = append_group(b, &pairs[i], i, rows, columns, visual);
    }
    rc = rc < 0 ? rc : append_text(b, text, strlen(text));
    rc = rc < 0 ? rc : append_layout(b, "<|im_end|>\n<|im_start|>assistant\n");
    rc = rc < 0 || !thinking ? rc : append_layout(b, "<think>\n");
    return rc < 0 ? rc : finish_run(b);
}

static int check_ids(const struct sl_tokenizer *tokenizer, const struct sl_model_config *config, struct sl_error *error)
{
    const struct {
        const char *content;
        int id;
    } ids[] = {{"<|video_pad|>", config->video_token},
               {"<|vision_start|>", config->vision_start},
               {"<|vision_end|>", config->vision_end}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        int32_t id = sl_tokenizer_added(tokenizer, ids[i].content);
        if (id != ids[i].id) {
            return sl_fail(error, SL_ERR_TOKENIZER,
                           "%s is %" PRId32 " in tokenizer.json and %d in config.json: the files are not of one model",
                           ids[i].content, id, ids[i].id);
        }
    }
    if (sl_tokenizer_size(tokenizer) > config->text.vocab) {
        return sl_fail(error, SL_ERR_TOKENIZER,
                       "tokenizer.json has ids up to %" PRId32
                       ", config.json a vocabulary of %d: the files are not of one model",
                       sl_tokenizer_size(tokenizer) - 1, config->text.vocab);
    }
    return SL_OK;
}

static void place_segments(struct sl_prompt *prompt)
{
    const int32_t *ids = prompt->ids;
    for (int i = 0; i < prompt->segment_count; i++) {
        struct sl_segment *segment = &prompt->segments[i];
        prompt->tokens += segment->count;
        if (segment->visual == NULL) {
            segment->ids = ids;
            ids += segment->count;
        }
    }
}

int sl_prompt_create(const struct sl_tokenizer *tokenizer, const struct sl_model_config *config,
                     const struct sl_prompt_pair *pairs, int pair_count, int rows, int columns,
                     const struct sl_visual *visual, const char *system, const char *text, struct sl_prompt *out,
                     struct sl_error *error)
{
    memset(out, 0, sizeof *out);
    if (pair_count < 0 || (pair_count > 0 && (rows < 1 || columns < 1 || visual == NULL))) {
        return sl_fail(error, SL_ERR_INTERNAL, "a prompt of %d pairs of %d x %d tokens", pair_count, rows, columns);
    }
    int rc = check_ids(tokenizer, config, error);
    if (rc < 0) {
        return rc;
    }
    struct builder b = {.tokenizer = tokenizer, .prompt = out, .error = error};
    out->segments = malloc((2 * (size_t)pair_count + 1) * sizeof *out->segments);
    rc = out->segments == NULL
             ? out_of_memory(error)
             : append_turns(&b, pairs, pair_count, rows, columns, visual, system, text, config->thinking);
    free(b.run);
    if (rc < 0) {
        sl_prompt_finish(out);
        return rc;
    }
    place_segments(out);
    return SL_OK;
}

void sl_prompt_finish(struct sl_prompt *prompt)
{
    free(prompt->segments);
    free(prompt->ids);
    memset(prompt, 0, sizeof *prompt);
}
