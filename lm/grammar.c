// SPDX-License-Identifier: Apache-2.0
// Three parts: the automaton over bytes (`step`), the fewest bytes from a state to the end (`bytes_left`), and the
// walk over the vocabulary that finds the tokens whose bytes the automaton takes.
//
// The walk goes through the tokens in the order of their bytes and keeps the automaton's position after each byte, so
// that what two neighbours share is stepped once, and what follows a byte that is not taken is skipped. Inside a text,
// where nearly every token may come, those without a quote or a backslash come from a mask made beforehand.
#include "lm/grammar.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_SPACES = 8,
    MAX_TOKEN_BYTES = 256, // longer ones are never admitted
    NEED_MASKS = 33,       // masks for 0..32 bytes of room
    LAST_TIME = 999 * 6000 + 5999,
    LONG_TIME = 100 * 6000, // from here on minutes have three digits
};

enum phase {
    OPENING,    // {
    FIRST,      // " or }
    NEXT,       // "
    START_TIME, // mm:ss.ff
    DASH,       // " - "
    END_TIME,   // mm:ss.ff
    KEY_END,    // "
    COLON,      // :
    TEXT_BEGIN, // "
    TEXT,
    ESCAPE,   // after a backslash
    UNICODE,  // after \u
    TEXT_END, // , or }
    CLOSED,
};

// ---- Times

// The completions of the first `n` bytes of a time with `width` digits of minutes: all from *low to *high, for the
// digits are those of a number. 0: there are none.
static int completions(const char *time, int n, int width, int32_t *low, int32_t *high)
{
    static const char forms[2][10] = {"MM:SM.MM", "LMM:SM.MM"}; // M: 0..9, S: 0..5, L: 1..9
    const char *form = forms[width - 2];
    int32_t weight = width == 2 ? 60000 : 600000;
    *low = *high = 0;
    for (int i = 0; form[i] != 0; i++) {
        if (form[i] == ':' || form[i] == '.') {
            if (i < n && time[i] != form[i]) {
                return 0;
            }
            continue;
        }
        int least = form[i] == 'L' ? 1 : 0, most = form[i] == 'S' ? 5 : 9;
        if (i < n) {
            int digit = time[i] - '0';
            if (digit < least || digit > most) {
                return 0;
            }
            least = most = digit;
        }
        *low += weight * least;
        *high += weight * most;
        weight /= form[i + 1] == ':' ? 6 : 10;
    }
    return 1;
}

// The fewest bytes that complete the time to one within [from, to]; -1 when nothing does.
static int time_left(const char *time, int n, int32_t from, int32_t to)
{
    for (int width = 2; width <= 3; width++) {
        int32_t low = 0, high = 0;
        if (n <= width + 6 && completions(time, n, width, &low, &high) && low <= to && high >= from) {
            return width + 6 - n;
        }
    }
    return -1;
}

// Takes one more byte of a time within [from, to]: 1, and 2 when the time is complete, its value in *value.
static int step_time(struct sl_grammar_position *at, uint8_t byte, int32_t from, int32_t to, int32_t *value)
{
    int32_t high = 0;
    if (at->count == sizeof at->time) {
        return 0;
    }
    at->time[at->count++] = (char)byte;
    int left = time_left(at->time, at->count, from, to);
    if (left == 0) {
        completions(at->time, at->count, at->count - 6, value, &high);
        return 2;
    }
    return left > 0;
}

// ---- Texts

static uint64_t mix(uint64_t hash, uint64_t value)
{
    return (hash ^ value) * 0x100000001b3u; // FNV-1a
}

// The first byte of a character: how many follow, and the range of the second (Unicode 15, table 3-7). C1 control
// characters are left out. -1: no character begins so.
static int lead_byte(uint8_t byte, uint8_t *low, uint8_t *high)
{
    *low = byte == 0xe0 || byte == 0xc2 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    *high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
    if (byte >= 0x20 && byte < 0x7f) {
        return 0;
    }
    return byte < 0xc2 || byte > 0xf4 ? -1 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
}

static int step_text(const struct sl_grammar_state *state, struct sl_grammar_position *at, uint8_t byte)
{
    int32_t room = state->max_text_bytes - at->text_bytes;
    if (at->missing > 0) {
        if (byte < at->low || byte > at->high) {
            return 0;
        }
        at->missing--;
        at->low = 0x80;
        at->high = 0xbf;
    } else if (byte == '"') {
        if (at->text_bytes == 0 || (at->blank && room > 0)) {
            return 0;
        }
        at->phase = TEXT_END;
        at->events++;
        return 1;
    } else if (byte == '\\') {
        if (room < 2) {
            return 0;
        }
        at->phase = ESCAPE;
        at->blank = 0;
    } else {
        int more = lead_byte(byte, &at->low, &at->high);
        if (more < 0 || room < 1 + more) {
            return 0;
        }
        at->missing = (uint8_t)more;
        at->blank &= byte == ' ';
    }
    at->text_bytes++;
    at->hash = mix(at->hash, byte);
    return 1;
}

static int step_escape(const struct sl_grammar_state *state, struct sl_grammar_position *at, uint8_t byte)
{
    if (byte == 'u' && state->max_text_bytes - at->text_bytes >= 5) {
        at->phase = UNICODE;
        at->count = 0;
        at->code = 0;
    } else if (byte != 0 && byte != 'u' && strchr("\"\\/bfnrt", byte) != NULL) {
        at->phase = TEXT;
    } else {
        return 0;
    }
    at->text_bytes++;
    at->hash = mix(at->hash, byte);
    return 1;
}

// Four digits that are neither a control character nor half of a surrogate pair.
static int step_unicode(struct sl_grammar_position *at, uint8_t byte)
{
    int digit = byte >= '0' && byte <= '9'   ? byte - '0'
                : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                             : -1;
    uint32_t code = at->code << 4 | (uint32_t)digit;
    int n = at->count + 1;
    if (digit < 0 || (n == 2 && code >= 0xd8 && code <= 0xdf) ||
        (n == 3 && (code < 0x2 || (code >= 0x8 && code < 0xa)))) {
        return 0;
    }
    if (n == 4 && code == 0x7f) {
        return 0;
    }
    at->code = code;
    at->count = (uint8_t)n;
    at->phase = n == 4 ? TEXT : UNICODE;
    at->text_bytes++;
    at->hash = mix(at->hash, byte);
    return 1;
}

// ---- The automaton

static int is_repeat(const struct sl_grammar_state *state, uint64_t hash)
{
    for (int i = 0; i < state->seen_count; i++) {
        if (state->seen[i] == hash) {
            return 1;
        }
    }
    return 0;
}

static int go(struct sl_grammar_position *at, enum phase phase)
{
    at->phase = (uint8_t)phase;
    at->spaces = 0;
    at->count = 0;
    return 1;
}

static int step_key(const struct sl_grammar_state *state, struct sl_grammar_position *at, uint8_t byte)
{
    int rc;
    switch (at->phase) {
    case START_TIME:
        rc = step_time(at, byte, 0, state->window - 1, &at->start);
        return rc == 2 ? go(at, DASH) : rc;
    case DASH:
        if (byte != (uint8_t) " - "[at->count]) {
            return 0;
        }
        return ++at->count == 3 ? go(at, END_TIME) : 1;
    case END_TIME:
        rc = step_time(at, byte, at->start + 1, state->window, &at->end);
        return rc == 2 ? go(at, KEY_END) : rc;
    default: // KEY_END
        return byte == '"' ? go(at, COLON) : 0;
    }
}

// What may stand between the parts.
static int step_structure(const struct sl_grammar_state *state, struct sl_grammar_position *at, uint8_t byte)
{
    if (byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t') {
        return at->spaces++ < MAX_SPACES;
    }
    switch (at->phase) {
    case OPENING:
        return byte == '{' ? go(at, FIRST) : 0;
    case FIRST:
        return byte == '}' ? go(at, CLOSED) : byte == '"' && state->window > 0 ? go(at, START_TIME) : 0;
    case NEXT:
        return byte == '"' ? go(at, START_TIME) : 0;
    case COLON:
        return byte == ':' ? go(at, TEXT_BEGIN) : 0;
    case TEXT_BEGIN:
        at->text_bytes = 0;
        at->missing = 0;
        at->blank = 1;
        at->hash = mix(mix(0xcbf29ce484222325u, (uint64_t)at->start), (uint64_t)at->end);
        return byte == '"' ? go(at, TEXT) : 0;
    case TEXT_END:
        if (byte == ',') {
            return at->events < state->max_events && !is_repeat(state, at->hash) ? go(at, NEXT) : 0;
        }
        return byte == '}' ? go(at, CLOSED) : 0;
    }
    return 0;
}

// Takes one byte: 1, or 0 (and *at is of no use any more).
static int step(const struct sl_grammar_state *state, struct sl_grammar_position *at, uint8_t byte)
{
    switch (at->phase) {
    case TEXT:
        return step_text(state, at, byte);
    case ESCAPE:
        return step_escape(state, at, byte);
    case UNICODE:
        return step_unicode(at, byte);
    case START_TIME:
    case DASH:
    case END_TIME:
    case KEY_END:
        return step_key(state, at, byte);
    case CLOSED:
        return 0;
    default:
        return step_structure(state, at, byte);
    }
}

// The fewest bytes from here to the closed object, or a little more: but then some byte leads to a place from which
// it is at least one byte less. So whoever has as many tokens left can always close it.
static int bytes_left(const struct sl_grammar_state *state, const struct sl_grammar_position *at)
{
    enum { AFTER_TEXT = 2, AFTER_KEY = 6 }; // "}  and  ":"x"}
    int time = state->window >= LONG_TIME ? 9 : 8;
    switch (at->phase) {
    case OPENING:
        return 2;
    case FIRST:
    case TEXT_END:
        return 1;
    case NEXT:
        return 1 + 8 + 3 + time + AFTER_KEY;
    case START_TIME:
        return time_left(at->time, at->count, 0, state->window - 1) + 3 + time + AFTER_KEY;
    case DASH:
        return 3 - at->count + time + AFTER_KEY;
    case END_TIME:
        return time_left(at->time, at->count, at->start + 1, state->window) + AFTER_KEY;
    case KEY_END:
        return AFTER_KEY;
    case COLON:
        return AFTER_KEY - 1;
    case TEXT_BEGIN:
        return AFTER_KEY - 2;
    case TEXT:
        return (at->blank && at->text_bytes < state->max_text_bytes) + at->missing + AFTER_TEXT;
    case ESCAPE:
        return 1 + AFTER_TEXT;
    case UNICODE:
        return 4 - at->count + AFTER_TEXT;
    }
    return 0;
}

// ---- The vocabulary

struct entry {
    const uint8_t *bytes;
    int32_t id;
    uint16_t size;
    uint16_t shared; // bytes in common with the entry before
};

// Tokens in the order of their bytes; those that begin with byte b are first[b] .. first[b + 1] - 1.
struct list {
    struct entry *entries;
    int32_t count;
    int32_t first[257];
};

// A plain token that takes many bytes of a text.
struct long_token {
    int32_t id, need;
};

struct sl_grammar {
    const struct sl_tokenizer *tokenizer;
    int vocab;
    size_t mask_words;
    int eos[SL_MAX_EOS];
    int eos_count;
    struct list all;
    struct list marked;             // of them, those with a quote or a backslash
    uint32_t *plain;                // NEED_MASKS masks of the plain tokens that need that many bytes of a text at most
    struct long_token *long_tokens; // plain tokens that need more
    int32_t long_count;
};

static void set_bit(uint32_t *bits, int32_t id)
{
    bits[id / 32] |= 1u << (id % 32);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->bytes, y->bytes, size);
    return order != 0 ? order : (int)x->size - (int)y->size;
}

// Fills shared and first of a sorted list.
static void index_list(struct list *list)
{
    int32_t next = 0;
    for (int32_t i = 0; i < list->count; i++) {
        struct entry *entry = &list->entries[i];
        entry->shared = 0;
        while (i > 0 && entry->shared < entry->size && entry->shared < entry[-1].size &&
               entry->bytes[entry->shared] == entry[-1].bytes[entry->shared]) {
            entry->shared++;
        }
        while (next <= entry->bytes[0]) {
            list->first[next++] = i;
        }
    }
    while (next <= 256) {
        list->first[next++] = list->count;
    }
}

// A token that stays in the text it begins in: the bytes of room it needs, those that complete its last character
// included. 0: it does not stay there. *marked: it has a quote or a backslash.
static int32_t text_need(const struct entry *entry, int *marked)
{
    int32_t need = 0;
    uint8_t low = 0, high = 0;
    *marked = 0;
    for (int32_t i = 0, missing = 0; i < entry->size; i++) {
        uint8_t byte = entry->bytes[i];
        if (missing > 0) {
            missing--;
        } else if (byte == '"' || byte == '\\') {
            *marked = 1;
            return 0;
        } else {
            missing = lead_byte(byte, &low, &high);
            if (missing < 0) {
                return 0;
            }
            need += 1 + missing;
            continue;
        }
        if (byte < low || byte > high) {
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

static void sort_plain_tokens(struct sl_grammar *grammar)
{
    for (int32_t i = 0; i < grammar->all.count; i++) {
        const struct entry *entry = &grammar->all.entries[i];
        int marked = 0;
        int32_t need = text_need(entry, &marked);
        if (marked) {
            grammar->marked.entries[grammar->marked.count++] = *entry;
        } else if (need >= NEED_MASKS) {
            grammar->long_tokens[grammar->long_count++] = (struct long_token){entry->id, need};
        }
        for (int32_t room = need; need > 0 && room < NEED_MASKS; room++) {
            set_bit(grammar->plain + (size_t)room * grammar->mask_words, entry->id);
        }
    }
}

int sl_grammar_create(const struct sl_tokenizer *tokenizer, int vocab, const int *eos, int eos_count,
                      struct sl_grammar **out, struct sl_error *error)
{
    int32_t size = sl_tokenizer_size(tokenizer);
    *out = NULL;
    if (vocab < size || eos_count < 1 || eos_count > SL_MAX_EOS) {
        return sl_fail(error, SL_ERR_USAGE, "a grammar for %d logits, %d tokens and %d ends of text", vocab, size,
                       eos_count);
    }
    struct sl_grammar *grammar = calloc(1, sizeof *grammar);
    if (grammar == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "no memory for the answer's grammar");
    }
    grammar->tokenizer = tokenizer;
    grammar->vocab = vocab;
    grammar->mask_words = ((size_t)vocab + 31) / 32;
    grammar->eos_count = eos_count;
    memcpy(grammar->eos, eos, (size_t)eos_count * sizeof *eos);
    grammar->all.entries = malloc((size_t)size * sizeof *grammar->all.entries);
    grammar->marked.entries = malloc((size_t)size * sizeof *grammar->marked.entries);
    grammar->long_tokens = malloc((size_t)size * sizeof *grammar->long_tokens);
    grammar->plain = calloc(NEED_MASKS * grammar->mask_words, sizeof *grammar->plain);
    if (grammar->all.entries == NULL || grammar->marked.entries == NULL || grammar->long_tokens == NULL ||
        grammar->plain == NULL) {
        sl_grammar_destroy(grammar);
        return sl_fail(error, SL_ERR_MEMORY, "no memory for the answer's grammar");
    }
    for (int32_t id = 0; id < size; id++) {
        size_t bytes = 0;
        const char *token = sl_tokenizer_bytes(tokenizer, id, &bytes);
        if (token != NULL && bytes > 0 && bytes <= MAX_TOKEN_BYTES && !sl_tokenizer_is_added(tokenizer, id)) {
            grammar->all.entries[grammar->all.count++] = (struct entry){(const uint8_t *)token, id, (uint16_t)bytes, 0};
        }
    }
    qsort(grammar->all.entries, (size_t)grammar->all.count, sizeof *grammar->all.entries, compare_entries);
    sort_plain_tokens(grammar);
    index_list(&grammar->all);
    index_list(&grammar->marked);
    *out = grammar;
    return SL_OK;
}

void sl_grammar_destroy(struct sl_grammar *grammar)
{
    if (grammar != NULL) {
        free(grammar->all.entries);
        free(grammar->marked.entries);
        free(grammar->long_tokens);
        free(grammar->plain);
        free(grammar);
    }
}

// ---- Masks

// Sets the bits of the listed tokens, all of which begin with the same byte, that the automaton takes whole and after
// which `budget` bytes suffice to close the object.
static void walk(const struct sl_grammar_state *state, const struct entry *entries, int32_t count, int budget,
                 uint32_t *bits)
{
    struct sl_grammar_position after[MAX_TOKEN_BYTES + 1];
    int taken = 0; // after[0 .. taken] are of the entry before; its byte `taken`, if any, was not taken
    after[0] = state->at;
    for (int32_t i = 0; i < count; i++) {
        const struct entry *entry = &entries[i];
        int at = i == 0 ? 0 : entry->shared;
        if (at > taken) {
            continue;
        }
        for (taken = at; taken < entry->size; taken++) {
            after[taken + 1] = after[taken];
            if (!step(state, &after[taken + 1], entry->bytes[taken])) {
                break;
            }
        }
        if (taken == entry->size && bytes_left(state, &after[taken]) <= budget) {
            set_bit(bits, entry->id);
        }
    }
}

static void walk_list(const struct sl_grammar_state *state, const struct list *list, int budget, uint32_t *bits)
{
    for (int byte = 0; byte < 256; byte++) {
        struct sl_grammar_position at = state->at;
        int32_t count = list->first[byte + 1] - list->first[byte];
        if (count > 0 && step(state, &at, (uint8_t)byte)) {
            walk(state, list->entries + list->first[byte], count, budget, bits);
        }
    }
}

// Inside a text and between characters.
static void copy_plain(const struct sl_grammar *grammar, int32_t room, uint32_t *bits)
{
    size_t mask = room < NEED_MASKS ? (size_t)room : NEED_MASKS - 1;
    memcpy(bits, grammar->plain + mask * grammar->mask_words, grammar->mask_words * sizeof *bits);
    for (int32_t i = 0; i < grammar->long_count; i++) {
        if (grammar->long_tokens[i].need <= room) {
            set_bit(bits, grammar->long_tokens[i].id);
        }
    }
}

void sl_grammar_mask(const struct sl_grammar *grammar, const struct sl_grammar_state *state, int64_t tokens_left,
                     uint32_t *bits)
{
    enum { TEXT_LEFT = 2 + 3 }; // the most that bytes_left is after a plain token
    const struct sl_grammar_position *at = &state->at;
    if (at->phase == CLOSED) {
        memset(bits, 0, grammar->mask_words * sizeof *bits);
        for (int i = 0; i < grammar->eos_count; i++) {
            if (grammar->eos[i] >= 0 && grammar->eos[i] < grammar->vocab) {
                set_bit(bits, grammar->eos[i]);
            }
        }
        return;
    }
    // This token and the end of text are two. With too few left, at least the shortest way stays open.
    int least = bytes_left(state, at) - 1;
    int budget = tokens_left - 2 > INT32_MAX ? INT32_MAX : tokens_left - 2 < least ? least : (int)tokens_left - 2;
    if (at->phase == TEXT && at->missing == 0 && budget >= TEXT_LEFT) {
        copy_plain(grammar, state->max_text_bytes - at->text_bytes, bits);
        walk_list(state, &grammar->marked, budget, bits);
    } else {
        memset(bits, 0, grammar->mask_words * sizeof *bits);
        walk_list(state, &grammar->all, budget, bits);
    }
}

// ---- States

int sl_grammar_start(const struct sl_answer_grammar *limits, struct sl_grammar_state *state, struct sl_error *error)
{
    if (limits->window_us < 0 || limits->max_events < 1 || limits->max_events > SL_GRAMMAR_MAX_EVENTS ||
        limits->max_text_bytes < 1) {
        return sl_fail(error, SL_ERR_USAGE, "a window of %lld us with %d events of %d bytes at most is impossible",
                       (long long)limits->window_us, limits->max_events, limits->max_text_bytes);
    }
    int64_t window = limits->window_us / 10000;
    *state = (struct sl_grammar_state){
        .at = {.phase = OPENING},
        .window = (int32_t)(window < LAST_TIME ? window : LAST_TIME),
        .max_events = limits->max_events,
        .max_text_bytes = limits->max_text_bytes,
    };
    return SL_OK;
}

int sl_grammar_advance(const struct sl_grammar *grammar, struct sl_grammar_state *state, int32_t token)
{
    struct sl_grammar_position at = state->at;
    if (at.phase == CLOSED) {
        for (int i = 0; i < grammar->eos_count; i++) {
            if (token == grammar->eos[i]) {
                return 1;
            }
        }
        return 0;
    }
    size_t size = 0;
    const char *bytes = sl_tokenizer_bytes(grammar->tokenizer, token, &size);
    if (bytes == NULL || size > MAX_TOKEN_BYTES || sl_tokenizer_is_added(grammar->tokenizer, token)) {
        return 0;
    }
    for (size_t i = 0; i < size; i++) {
        if (!step(state, &at, (uint8_t)bytes[i])) {
            return 0;
        }
        if (at.phase == NEXT && at.spaces == 0) {
            state->seen[at.events - 1] = at.hash; // counts from the token's end on, as the mask saw it
        }
    }
    state->at = at;
    state->seen_count = at.phase == TEXT_END || at.phase == CLOSED ? at.events - (at.events > 0) : at.events;
    return 1;
}

int sl_grammar_finished(const struct sl_grammar_state *state)
{
    return state->at.phase == CLOSED;
}
