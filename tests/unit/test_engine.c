// SPDX-License-Identifier: Apache-2.0
// The engine over the plain device of the tests: answers, batching, sharing, limits, faults, and many threads at once
// (`make check-tsan` runs this file under ThreadSanitizer).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <time.h>

#include "core/config.h"
#include "lm/lm.h"
#include "tests/support/golden.h"
#include "tests/support/stub_device.h"

enum { MAX_IDS = 512 };

// ---- A model, and requests to it

struct model {
    struct sl_device *device;
    struct sl_weights *weights;
    struct sl_model_config config;
    struct sl_tokenizer *tokenizer;
    struct sl_engine *engine;
};

static void check(int rc, const struct sl_error *error)
{
    if (rc) {
        fail_msg("%s", error->text);
    }
}

static struct sl_engine_options options_of(int sequences)
{
    return (struct sl_engine_options){
        .compute = SL_F32, .max_sequences = sequences, .kv_tokens = 4096, .prefill_rows = 37};
}

static struct model open_model(const char *name, struct sl_engine_options options)
{
    struct model m = {.device = stub_create()};
    struct sl_error error = {0};
    char path[256];
    snprintf(path, sizeof path, GOLDEN_DATA "%s", name);
    m.weights = golden_open(name, "");
    check(sl_config_read(path, &m.config, &error), &error);
    check(sl_tokenizer_open(GOLDEN_DATA "tokenizer", &m.tokenizer, &error), &error);
    check(sl_engine_create(m.device, m.weights, &m.config, m.tokenizer, &options, &m.engine, &error), &error);
    return m;
}

static void close_model(struct model *m)
{
    sl_engine_destroy(m->engine);
    assert_int_equal(stub_of(m->device)->allocations, 0);
    sl_tokenizer_close(m->tokenizer);
    sl_weights_close(m->weights);
    m->device->ops->destroy(m->device);
}

// A request, its prompt, and what came of it.
struct client {
    struct sl_request request;
    struct sl_segment segments[3];
    int32_t ids[MAX_IDS];
    uint64_t ticket;

    pthread_mutex_t lock;
    pthread_cond_t change;
    int answers;
    struct sl_answer answer; // its arrays are the copies below
    int32_t got[MAX_IDS];
    float logprobs[MAX_IDS];
    size_t text_ends[MAX_IDS];
    int64_t token_us[MAX_IDS];
    char text[8 * MAX_IDS], streamed[8 * MAX_IDS];
    size_t streamed_bytes;
};

static void keep_text(void *context, const char *text, size_t size_bytes)
{
    struct client *c = context;
    memcpy(c->streamed + c->streamed_bytes, text, size_bytes);
    c->streamed_bytes += size_bytes;
}

static void keep_answer(void *context, const struct sl_answer *answer)
{
    struct client *c = context;
    size_t n = (size_t)answer->generated_tokens;
    pthread_mutex_lock(&c->lock);
    c->answers++;
    c->answer = *answer;
    if (n) {
        memcpy(c->got, answer->ids, n * sizeof *c->got);
        memcpy(c->logprobs, answer->logprobs, n * sizeof *c->logprobs);
        memcpy(c->text_ends, answer->text_ends, n * sizeof *c->text_ends);
        memcpy(c->token_us, answer->token_us, n * sizeof *c->token_us);
    }
    memcpy(c->text, answer->text, answer->size_bytes);
    c->text[answer->size_bytes] = 0;
    pthread_cond_broadcast(&c->change);
    pthread_mutex_unlock(&c->lock);
}

// `tokens` ids that depend on `seed`, after `shared` ids that do not.
static struct client *ask(int shared, int tokens, unsigned seed, int max_new_tokens)
{
    struct client *c = calloc(1, sizeof *c);
    for (int i = 0; i < shared + tokens; i++) {
        c->ids[i] = (int32_t)((i < shared ? 7u * i + 1 : 31u * i + 17 * seed) % 250);
    }
    c->segments[0] = (struct sl_segment){.count = shared + tokens, .ids = c->ids};
    c->request = (struct sl_request){.segments = c->segments,
                                     .segment_count = 1,
                                     .sampling = {.top_p = 1},
                                     .max_new_tokens = max_new_tokens,
                                     .context = c,
                                     .on_text = keep_text,
                                     .on_done = keep_answer};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->change, NULL);
    return c;
}

static void submit(struct model *m, struct client *c)
{
    struct sl_error error = {0};
    check(sl_engine_submit(m->engine, &c->request, &c->ticket, &error), &error);
}

static void wait_for(struct client *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->answers) {
        pthread_cond_wait(&c->change, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
}

static void forget(struct client *c)
{
    assert_int_equal(c->answers, 1);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->change);
    free(c);
}

// A door that holds the engine's thread inside on_text, so that the test decides what is waiting then.
struct door {
    pthread_mutex_t lock;
    pthread_cond_t change;
    int reached, open;
};

static struct door door = {.lock = PTHREAD_MUTEX_INITIALIZER, .change = PTHREAD_COND_INITIALIZER};

static void wait_at_door(void *context, const char *text, size_t size_bytes)
{
    (void)context, (void)text, (void)size_bytes;
    pthread_mutex_lock(&door.lock);
    door.reached = 1;
    pthread_cond_broadcast(&door.change);
    while (!door.open) {
        pthread_cond_wait(&door.change, &door.lock);
    }
    pthread_mutex_unlock(&door.lock);
}

static void close_door(void)
{
    pthread_mutex_lock(&door.lock);
    door.reached = door.open = 0;
    pthread_mutex_unlock(&door.lock);
}

static void wait_until_reached(void)
{
    pthread_mutex_lock(&door.lock);
    while (!door.reached) {
        pthread_cond_wait(&door.change, &door.lock);
    }
    pthread_mutex_unlock(&door.lock);
}

static void open_door(void)
{
    pthread_mutex_lock(&door.lock);
    door.open = 1;
    pthread_cond_broadcast(&door.change);
    pthread_mutex_unlock(&door.lock);
}

// A request that holds the engine at its first text.
static struct client *occupy(struct model *m, int max_new_tokens)
{
    struct client *c = ask(0, 8, 3, max_new_tokens);
    close_door();
    c->request.on_text = wait_at_door;
    submit(m, c);
    wait_until_reached();
    return c;
}

static int is_utf8(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        int more = *p < 0x80 ? 0 : *p < 0xc2 ? -1 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : *p < 0xf5 ? 3 : -1;
        if (more < 0) {
            return 0;
        }
        for (p++; more--; p++) {
            if ((*p & 0xc0) != 0x80) {
                return 0;
            }
        }
    }
    return 1;
}

// ---- Visual features from a golden

struct clip {
    struct sl_visual visual;
    struct sl_weights *golden;
    struct sl_device *device;
    int64_t hidden, given; // tokens given so far
    int taps, fails;
};

static int golden_features(void *context, struct sl_stream *stream, int64_t first, int64_t count,
                           const struct sl_tensor *out, const struct sl_tensor *deepstack, struct sl_error *error)
{
    struct clip *clip = context;
    if (clip->fails) {
        return sl_fail(error, SL_ERR_DEVICE, "no picture");
    }
    clip->given += count;
    struct sl_tensor features = golden_tensor(clip->golden, "features", SL_F32);
    clip->device->ops->upload(stream, out->data, (float *)features.data + first * clip->hidden, sl_tensor_bytes(out));
    for (int k = 0; k < clip->taps; k++) {
        struct sl_tensor all = golden_tensor(clip->golden, "deepstack", SL_F32);
        clip->device->ops->upload(stream, deepstack[k].data,
                                  (float *)all.data + k * all.stride[0] + first * clip->hidden,
                                  sl_tensor_bytes(&deepstack[k]));
    }
    return SL_OK;
}

static struct clip *open_clip(struct model *m, const char *name)
{
    struct clip *clip = calloc(1, sizeof *clip);
    *clip = (struct clip){.visual = {.context = clip, .features = golden_features},
                          .golden = golden_open(name, "text"),
                          .device = m->device,
                          .hidden = m->config.text.hidden,
                          .taps = m->config.vision.deepstack_count};
    return clip;
}

static void close_clip(struct clip *clip)
{
    sl_weights_close(clip->golden);
    free(clip);
}

// Segments of a golden's prompt, malloc'ed.
static struct sl_segment *golden_segments(struct clip *clip, int *count)
{
    struct sl_tensor table = golden_tensor(clip->golden, "segments", SL_I32);
    const int32_t *row = table.data, *ids = golden_tensor(clip->golden, "ids", SL_I32).data;
    struct sl_segment *segments = calloc((size_t)table.shape[0], sizeof *segments);
    int64_t visual = 0;
    *count = (int)table.shape[0];
    for (int i = 0; i < *count; i++, ids += row[0], row += 3) {
        if (row[1]) {
            segments[i] = (struct sl_segment){
                .count = row[0], .visual = &clip->visual, .visual_first = visual, .rows = row[1], .columns = row[2]};
            visual += row[0];
        } else {
            segments[i] = (struct sl_segment){.count = row[0], .ids = ids};
        }
    }
    return segments;
}

// ---- Answers

static void answers_as_the_reference(void **state)
{
    (void)state;
    const char *cases[] = {"a", "b", "c", "d"};
    for (int i = 0; i < 4; i++) {
        struct model m = open_model(cases[i], options_of(2));
        struct clip *clip = open_clip(&m, cases[i]);
        struct client *c = ask(0, 1, 0, 64);
        struct sl_segment *segments = golden_segments(clip, &c->request.segment_count);
        c->request.segments = segments;
        submit(&m, c);
        wait_for(c);
        const int32_t *expected = golden_tensor(clip->golden, "greedy", SL_I32).data;
        assert_true(c->answer.finish == SL_FINISH_STOP || c->answer.finish == SL_FINISH_LENGTH);
        assert_true(c->answer.generated_tokens == 64 || c->answer.finish == SL_FINISH_STOP);
        assert_memory_equal(c->got, expected, (size_t)c->answer.generated_tokens * sizeof *expected);
        print_message("%s: %d tokens as the reference\n", cases[i], (int)c->answer.generated_tokens);
        forget(c);
        free(segments);
        close_clip(clip);
        close_model(&m);
    }
}

static void streams_whole_characters(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(2));
    for (unsigned seed = 0; seed < 6; seed++) {
        struct client *c = ask(0, 5, seed, 60);
        c->request.sampling = (struct sl_sampling){.temperature = 3, .top_p = 1, .seed = seed};
        submit(&m, c);
        wait_for(c);
        assert_true(is_utf8(c->text));
        assert_int_equal(c->streamed_bytes, c->answer.size_bytes);
        assert_memory_equal(c->streamed, c->text, c->streamed_bytes);
        int64_t n = c->answer.generated_tokens;
        assert_true(n > 0);
        assert_int_equal(c->text_ends[n - 1], c->answer.size_bytes);
        for (int64_t i = 0; i < n; i++) {
            assert_true(i == 0 || c->text_ends[i] >= c->text_ends[i - 1]);
            assert_true(c->logprobs[i] <= 0);
        }
        forget(c);
    }
    close_model(&m);
}

static void binds_answers_to_the_grammar(void **state)
{
    (void)state;
    struct model m = open_model("c", options_of(3));
    struct sl_answer_grammar grammar = {.window_us = 10000000, .max_events = 3, .max_text_bytes = 40};
    struct client *c[4];
    for (unsigned i = 0; i < 4; i++) {
        c[i] = ask(0, 9, i, 150);
        c[i]->request.grammar = i < 3 ? &grammar : NULL; // the last is free, in the same batch
        c[i]->request.sampling = (struct sl_sampling){.temperature = 1, .top_p = 1, .seed = i};
        submit(&m, c[i]);
    }
    for (int i = 0; i < 4; i++) {
        wait_for(c[i]);
        if (i < 3) {
            assert_int_equal(c[i]->answer.finish, SL_FINISH_STOP);
            assert_int_equal(strchr(c[i]->text, '{') == NULL, 0);
            assert_int_equal(strrchr(c[i]->text, '}') == NULL, 0);
            assert_true(is_utf8(c[i]->text));
        }
        forget(c[i]);
    }
    close_model(&m);
}

// Whoever reads the answer must know that there may have been more to tell.
static void says_when_an_answer_was_closed_for_its_length(void **state)
{
    (void)state;
    struct model m = open_model("c", options_of(1));
    struct sl_answer_grammar grammar = {.window_us = 10000000, .max_events = 3, .max_text_bytes = 40};
    for (unsigned seed = 0; seed < 3; seed++) {
        struct client *c = ask(0, 9, seed, 28);
        c->request.grammar = &grammar;
        c->request.sampling = (struct sl_sampling){.temperature = 1, .top_p = 1, .seed = seed};
        submit(&m, c);
        wait_for(c);
        assert_int_equal(c->answer.finish, SL_FINISH_LENGTH);
        assert_non_null(strchr(c->text, '}'));
        forget(c);
    }
    close_model(&m);
}

// For measuring: neither an end of text nor the end of the grammar's object ends it.
static void gives_an_answer_of_a_fixed_length(void **state)
{
    (void)state;
    struct sl_answer_grammar rules = {.window_us = 2000000, .max_events = 1, .max_text_bytes = 1};
    struct model m = open_model("a", options_of(2));
    for (int bound = 0; bound < 2; bound++) {
        struct client *free_to_end = ask(0, 5, 1, 200), *fixed = ask(0, 5, 1, 200);
        free_to_end->request.sampling = (struct sl_sampling){.temperature = 30, .top_p = 1, .seed = 5};
        free_to_end->request.grammar = bound ? &rules : NULL;
        fixed->request.sampling = free_to_end->request.sampling;
        fixed->request.grammar = free_to_end->request.grammar;
        fixed->request.fixed_length = 1;
        submit(&m, free_to_end);
        submit(&m, fixed);
        wait_for(free_to_end);
        wait_for(fixed);
        assert_int_equal(free_to_end->answer.finish, SL_FINISH_STOP);
        assert_true(free_to_end->answer.generated_tokens < 200);
        assert_int_equal(fixed->answer.finish, SL_FINISH_LENGTH);
        assert_int_equal(fixed->answer.generated_tokens, 200);
        for (int i = 1; i < 200; i++) {
            assert_true(fixed->token_us[i] >= fixed->token_us[i - 1]);
        }
        assert_true(fixed->token_us[199] > fixed->token_us[0]);
        forget(free_to_end);
        forget(fixed);
    }
    close_model(&m);
}

static void bounds_thinking_and_keeps_it_out_of_the_text(void **state)
{
    (void)state;
    struct model m = open_model("b", options_of(1));
    struct sl_answer_grammar grammar = {.window_us = 10000000, .max_events = 2, .max_text_bytes = 20};
    int32_t think = sl_tokenizer_added(m.tokenizer, "<think>"), end = sl_tokenizer_added(m.tokenizer, "</think>");
    struct client *c = ask(0, 9, 1, 100);
    c->ids[8] = think;
    c->request.grammar = &grammar;
    submit(&m, c);
    wait_for(c);
    int at = 0;
    while (at < c->answer.generated_tokens && c->got[at] != end) {
        assert_int_equal(c->text_ends[at++], 0);
    }
    assert_true(at <= 50);
    assert_int_equal(c->got[at], end);
    assert_int_equal(c->answer.finish, SL_FINISH_STOP);
    assert_non_null(strchr(c->text, '}'));
    forget(c);
    close_model(&m);
}

static void answers_in_ids_without_a_tokenizer(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(1));
    struct sl_engine_options options = options_of(1);
    struct sl_answer_grammar grammar = {.window_us = 10000000, .max_events = 2, .max_text_bytes = 20};
    struct sl_error error = {0};
    sl_engine_destroy(m.engine);
    check(sl_engine_create(m.device, m.weights, &m.config, NULL, &options, &m.engine, &error), &error);
    struct client *c = ask(0, 9, 1, 12);
    submit(&m, c);
    wait_for(c);
    assert_int_equal(c->answer.generated_tokens, 12);
    assert_int_equal(c->answer.size_bytes, 0);
    c->request.grammar = &grammar;
    assert_int_equal(sl_engine_submit(m.engine, &c->request, NULL, &error), SL_ERR_USAGE);
    forget(c);
    close_model(&m);
}

// ---- What must not change an answer

static void run_all(struct sl_engine_options options, struct client **c, int n)
{
    struct model m = open_model("a", options);
    for (int i = 0; i < n; i++) {
        submit(&m, c[i]);
    }
    for (int i = 0; i < n; i++) {
        wait_for(c[i]);
    }
    close_model(&m);
}

static void make_clients(struct client **c, int n)
{
    for (int i = 0; i < n; i++) {
        c[i] = ask(i % 2 ? 70 : 0, 3 + 7 * i, (unsigned)i, 8 + i);
        c[i]->request.sampling =
            (struct sl_sampling){.temperature = i % 3 ? 0.8f : 0, .top_p = 1, .presence = (float)(i % 2), .seed = 5};
    }
}

static void answers_alike_alone_and_in_a_batch(void **state)
{
    (void)state;
    enum { N = 8 };
    struct client *alone[N], *together[N], *small[N];
    make_clients(alone, N);
    make_clients(together, N);
    make_clients(small, N);
    struct sl_engine_options deterministic = options_of(4), narrow = options_of(4);
    deterministic.deterministic = 1;
    narrow.prefill_rows = 3;
    run_all(deterministic, alone, N);
    run_all(options_of(4), together, N);
    run_all(narrow, small, N);
    for (int i = 0; i < N; i++) {
        size_t n = (size_t)alone[i]->answer.generated_tokens;
        assert_int_equal(together[i]->answer.generated_tokens, n);
        assert_int_equal(small[i]->answer.generated_tokens, n);
        assert_memory_equal(together[i]->got, alone[i]->got, n * sizeof(int32_t));
        assert_memory_equal(small[i]->got, alone[i]->got, n * sizeof(int32_t));
        assert_memory_equal(together[i]->logprobs, alone[i]->logprobs, n * sizeof(float));
        forget(alone[i]);
        forget(together[i]);
        forget(small[i]);
    }
}

// Two questions over one clip: the second takes over what the first has in the cache.
static void shares_what_prompts_have_in_common(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(2));
    struct clip *clip = open_clip(&m, "a");
    struct client *first = ask(0, 1, 0, 40), *second = ask(0, 1, 0, 40), *later = ask(0, 1, 0, 40);
    struct sl_segment *segments = golden_segments(clip, &first->request.segment_count);
    int64_t visual = golden_tensor(clip->golden, "features", SL_F32).shape[0];
    first->request.segments = second->request.segments = later->request.segments = segments;
    second->request.segment_count = later->request.segment_count = first->request.segment_count;
    close_door();
    first->request.on_text = wait_at_door;
    submit(&m, first);
    wait_until_reached();
    submit(&m, second);
    open_door();
    wait_for(first);
    wait_for(second);
    assert_int_equal(clip->given, visual);
    submit(&m, later); // nobody left to share with
    wait_for(later);
    assert_int_equal(clip->given, 2 * visual);
    size_t n = (size_t)first->answer.generated_tokens;
    assert_int_equal(second->answer.generated_tokens, n);
    assert_memory_equal(second->got, first->got, n * sizeof(int32_t));
    assert_memory_equal(later->got, first->got, n * sizeof(int32_t));
    forget(first);
    forget(second);
    forget(later);
    free(segments);
    close_clip(clip);
    close_model(&m);
}

// ---- Order, cancelling, limits

static int finished_order[3], finished_count; // written on the engine's thread, read after all are done

static void note_order(void *context, const struct sl_answer *answer)
{
    struct client *c = context;
    finished_order[finished_count++] = c->request.priority;
    keep_answer(context, answer);
}

static void goes_by_priority_then_deadline(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(1));
    struct client *holder = occupy(&m, 4), *c[3];
    finished_count = 0;
    for (int i = 0; i < 3; i++) {
        c[i] = ask(0, 5, 1, 2);
        c[i]->request.on_done = note_order;
    }
    c[0]->request.priority = -1;
    c[1]->request.priority = 4;
    c[2]->request.priority = 4;
    c[2]->request.deadline_us = INT64_MAX - 1; // before one without
    submit(&m, c[0]);
    submit(&m, c[1]);
    submit(&m, c[2]);
    c[2]->request.priority = 5; // just the mark
    open_door();
    wait_for(holder);
    for (int i = 0; i < 3; i++) {
        wait_for(c[i]);
    }
    assert_int_equal(finished_order[0], 5);
    assert_int_equal(finished_order[1], 4);
    assert_int_equal(finished_order[2], -1);
    forget(holder);
    for (int i = 0; i < 3; i++) {
        forget(c[i]);
    }
    close_model(&m);
}

static void cancels_waiting_and_running_requests(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(1));
    struct client *running = occupy(&m, 300), *waiting = ask(0, 5, 1, 10), *late = ask(0, 5, 1, 10);
    late->request.deadline_us = 1;
    submit(&m, waiting);
    submit(&m, late);
    sl_engine_cancel(m.engine, waiting->ticket);
    sl_engine_cancel(m.engine, running->ticket);
    sl_engine_cancel(m.engine, 12345); // nobody's
    open_door();
    struct client *all[] = {running, waiting, late};
    for (int i = 0; i < 3; i++) {
        wait_for(all[i]);
        assert_int_equal(all[i]->answer.finish, SL_FINISH_CANCELLED);
        assert_int_equal(all[i]->answer.error.status, SL_ERR_INTERRUPTED);
    }
    assert_true(running->answer.generated_tokens > 0);
    assert_int_equal(waiting->answer.generated_tokens, 0);
    assert_non_null(strstr(late->answer.error.text, "deadline"));
    for (int i = 0; i < 3; i++) {
        forget(all[i]);
    }
    close_model(&m);
}

static void answers_busy_when_the_list_is_full(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(1));
    struct client *holder = occupy(&m, 4), *c[64];
    struct sl_error error = {0};
    int accepted = 0, rc = SL_OK;
    while (!rc && accepted < 64) {
        c[accepted] = ask(0, 5, 1, 2);
        rc = sl_engine_submit(m.engine, &c[accepted]->request, NULL, &error);
        accepted += !rc;
    }
    assert_int_equal(rc, SL_ERR_BUSY);
    assert_true(accepted > 0);
    free(c[accepted]);
    open_door();
    wait_for(holder);
    forget(holder);
    for (int i = 0; i < accepted; i++) {
        wait_for(c[i]);
        assert_int_equal(c[i]->answer.generated_tokens > 0, 1);
        forget(c[i]);
    }
    close_model(&m);
}

static void cancels_all_on_destroy(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(1));
    struct client *running = occupy(&m, 400), *waiting = ask(0, 5, 1, 10);
    submit(&m, waiting);
    open_door();
    close_model(&m);
    assert_int_equal(running->answers, 1);
    assert_int_equal(waiting->answer.finish, SL_FINISH_CANCELLED);
    forget(running);
    forget(waiting);
}

static int try(struct model *m, const struct sl_request *request, struct sl_error *error)
{
    return sl_engine_submit(m->engine, request, NULL, error);
}

static void refuses_what_can_never_be(void **state)
{
    (void)state;
    struct sl_engine_options options = options_of(2);
    options.kv_tokens = 100; // two pages
    struct model m = open_model("d", options);
    struct client *c = ask(0, 100, 1, 20);
    struct sl_error error = {0};
    assert_int_equal(try(&m, &c->request, &error), SL_OK);
    wait_for(c);
    struct sl_request r = c->request;
    r.max_new_tokens = 29;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    assert_non_null(strstr(error.text, "a prompt of 99"));
    r.max_new_tokens = 1024;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    assert_non_null(strstr(error.text, "1024"));
    r.max_new_tokens = 0;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    r = c->request;
    r.sampling.temperature = NAN;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    r.sampling = (struct sl_sampling){.top_p = 0};
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    r = c->request;
    struct sl_answer_grammar impossible = {.window_us = -1, .max_events = 1, .max_text_bytes = 1};
    r.grammar = &impossible;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    c->ids[50] = m.config.text.vocab;
    assert_int_equal(try(&m, &c->request, &error), SL_ERR_USAGE);
    assert_non_null(strstr(error.text, "302"));
    struct sl_segment broken = {.count = 6, .visual = (const struct sl_visual *)c, .rows = 2, .columns = 2};
    r = c->request;
    r.segments = &broken;
    assert_int_equal(try(&m, &r, &error), SL_ERR_USAGE);
    forget(c);
    close_model(&m);
}

// ---- Faults

static void fails_requests_but_never_hangs(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(3));
    for (long after = 1; after < 60; after += 7) {
        struct client *c[3];
        stub_of(m.device)->linears_until_failure = after;
        for (int i = 0; i < 3; i++) {
            c[i] = ask(0, 30, (unsigned)i, 8);
            submit(&m, c[i]);
        }
        int failed = 0;
        for (int i = 0; i < 3; i++) {
            wait_for(c[i]);
            if (c[i]->answer.finish == SL_FINISH_FAILED) {
                failed++;
                assert_non_null(strstr(c[i]->answer.error.text, "failed as told"));
            }
            forget(c[i]);
        }
        assert_true(failed > 0);
        struct client *next = ask(0, 30, 9, 8);
        submit(&m, next);
        wait_for(next);
        assert_int_not_equal(next->answer.finish, SL_FINISH_FAILED);
        forget(next);
    }
    close_model(&m);
}

static void a_failing_provider_takes_only_its_request(void **state)
{
    (void)state;
    struct model m = open_model("a", options_of(2));
    struct clip *clip = open_clip(&m, "a");
    clip->fails = 1;
    struct client *holder = occupy(&m, 30), *blind = ask(0, 1, 0, 10);
    struct sl_segment *segments = golden_segments(clip, &blind->request.segment_count);
    blind->request.segments = segments;
    submit(&m, blind);
    open_door();
    wait_for(blind);
    wait_for(holder);
    assert_int_equal(blind->answer.finish, SL_FINISH_FAILED);
    assert_string_equal(blind->answer.error.text, "no picture");
    assert_int_not_equal(holder->answer.finish, SL_FINISH_FAILED);
    forget(blind);
    forget(holder);
    free(segments);
    close_clip(clip);
    close_model(&m);
}

// ---- Many threads

struct crowd {
    struct model *model;
    unsigned seed;
    int completed, cancelled;
};

static void *submit_and_cancel(void *argument)
{
    struct crowd *crowd = argument;
    for (unsigned i = 0; i < 12; i++) {
        struct client *c = ask((i % 3) * 40, 4 + (int)(i * 5 % 23), crowd->seed + i, 3 + (int)(i % 5));
        struct sl_error error;
        c->request.priority = (int)(i % 3);
        c->request.sampling.temperature = (float)(i % 2);
        while (sl_engine_submit(crowd->model->engine, &c->request, &c->ticket, &error) == SL_ERR_BUSY) {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        }
        if (i % 4 == crowd->seed % 4) {
            sl_engine_cancel(crowd->model->engine, c->ticket);
        }
        wait_for(c);
        crowd->completed += c->answer.finish == SL_FINISH_STOP || c->answer.finish == SL_FINISH_LENGTH;
        crowd->cancelled += c->answer.finish == SL_FINISH_CANCELLED;
        forget(c);
    }
    return NULL;
}

static void serves_many_threads_at_once(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    struct model m = open_model("a", options_of(3));
    pthread_t thread[THREADS];
    struct crowd crowd[THREADS];
    int before = stub_of(m.device)->allocations, completed = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        crowd[i] = (struct crowd){.model = &m, .seed = i};
        assert_int_equal(pthread_create(&thread[i], NULL, submit_and_cancel, &crowd[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        assert_int_equal(crowd[i].completed + crowd[i].cancelled, 12);
        completed += crowd[i].completed;
    }
    assert_true(completed >= THREADS * 9);
    assert_int_equal(stub_of(m.device)->allocations, before);
    close_model(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_as_the_reference),
        cmocka_unit_test(streams_whole_characters),
        cmocka_unit_test(binds_answers_to_the_grammar),
        cmocka_unit_test(says_when_an_answer_was_closed_for_its_length),
        cmocka_unit_test(gives_an_answer_of_a_fixed_length),
        cmocka_unit_test(bounds_thinking_and_keeps_it_out_of_the_text),
        cmocka_unit_test(answers_in_ids_without_a_tokenizer),
        cmocka_unit_test(answers_alike_alone_and_in_a_batch),
        cmocka_unit_test(shares_what_prompts_have_in_common),
        cmocka_unit_test(goes_by_priority_then_deadline),
        cmocka_unit_test(cancels_waiting_and_running_requests),
        cmocka_unit_test(answers_busy_when_the_list_is_full),
        cmocka_unit_test(cancels_all_on_destroy),
        cmocka_unit_test(refuses_what_can_never_be),
        cmocka_unit_test(fails_requests_but_never_hangs),
        cmocka_unit_test(a_failing_provider_takes_only_its_request),
        cmocka_unit_test(serves_many_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
