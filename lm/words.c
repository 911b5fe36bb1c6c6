// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lm/words.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERNS = 4, MAX_STEPS = 50 * 1000 * 1000, MAX_HEAP_KIB = 256 * 1024 };

struct sl_words {
    pcre2_code *code[MAX_PATTERNS];
    int count;
    pcre2_match_context *limits; // read only
};

int sl_words_create(struct sl_words **out, struct sl_error *error)
{
    struct sl_words *words = calloc(1, sizeof *words);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    if (words == NULL || limits == NULL) {
        free(words);
        pcre2_match_context_free(limits);
        return sl_fail(error, SL_ERR_MEMORY, "no memory for regular expressions");
    }
    pcre2_set_match_limit(limits, MAX_STEPS);
    pcre2_set_heap_limit(limits, MAX_HEAP_KIB);
    words->limits = limits;
    *out = words;
    return SL_OK;
}

void sl_words_destroy(struct sl_words *words)
{
    if (words == NULL) {
        return;
    }
    for (int i = 0; i < words->count; i++) {
        pcre2_code_free(words->code[i]);
    }
    pcre2_match_context_free(words->limits);
    free(words);
}

// Unicode's White_Space, which is Oniguruma's \s; PCRE2's has U+180E too.
#define SPACES                                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

// The length of the escape at `p`, 0 where the dialects differ or may. *instead: what PCRE2 is given for it, if not
// the same.
static size_t translate_escape(const char *p, int in_class, const char **instead)
{
    char c = p[1];
    if (c == 's') {
        *instead = in_class ? SPACES : "[" SPACES "]";
        return 2;
    }
    if (c == 'S' && !in_class) {
        *instead = "[^" SPACES "]";
        return 2;
    }
    if ((c == 'p' || c == 'P' || c == 'x') && p[2] == '{') {
        const char *end = strchr(p, '}');
        return end == NULL ? 0 : (size_t)(end - p) + 1;
    }
    return c != 0 && strchr("rntfdD/\\.^$|()[]{}*+?-'\"!#%&,:;<=>@_`~ ", c) != NULL ? 2 : 0;
}

// 1 when what stands at `p`, outside of sets and escapes, means or may mean different things to the two.
static int is_other_dialect(const char *p)
{
    static const char *const groups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
    if (*p == '^' || *p == '$' || strncmp(p, "(*", 2) == 0 || strncmp(p, "{,", 2) == 0 || strncmp(p, "}+", 2) == 0) {
        return 1;
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (strncmp(p, groups[i], strlen(groups[i])) == 0) {
            return 0;
        }
    }
    return strncmp(p, "(?", 2) == 0;
}

// The length of what stands at `p`, 0 where it is not surely understood.
static size_t translate_item(const char *p, int *in_class, const char **instead)
{
    if (*p == '\\') {
        return translate_escape(p, *in_class, instead);
    }
    if (*in_class) {
        *in_class = *p != ']';
        return *p == '[' || (*p == '&' && p[1] == '&') ? 0 : 1; // sets of sets
    }
    if (*p == '[') {
        size_t size = p[1] == '^' ? 2 : 1;
        *in_class = 1;
        return p[size] == ']' ? 0 : size;
    }
    return is_other_dialect(p) ? 0 : 1;
}

// Rewrites `pattern` for PCRE2 to `out`. Returns the offset of what is not understood, or -1.
static long translate(const char *pattern, char *out, size_t room)
{
    int in_class = 0;
    size_t used = 0;
    for (const char *p = pattern; *p != 0;) {
        const char *instead = NULL;
        size_t size = translate_item(p, &in_class, &instead);
        size_t put = instead == NULL ? size : strlen(instead);
        if (size == 0 || used + put >= room) {
            return p - pattern;
        }
        memcpy(out + used, instead == NULL ? p : instead, put);
        used += put;
        p += size;
    }
    out[used] = 0;
    return -1;
}

int sl_words_add(struct sl_words *words, const char *pattern, struct sl_error *error)
{
    char translated[4096];
    if (words->count == MAX_PATTERNS) {
        return sl_fail(error, SL_ERR_TOKENIZER, "more than %d regular expressions", MAX_PATTERNS);
    }
    long unknown = translate(pattern, translated, sizeof translated);
    if (unknown >= 0) {
        return sl_fail(error, SL_ERR_TOKENIZER, "regular expression is not understood at byte %ld: %.20s", unknown,
                       pattern + unknown);
    }
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)translated, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (compiled == NULL) {
        char why[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return sl_fail(error, SL_ERR_TOKENIZER, "regular expression: %s near %.20s", why, translated + at);
    }
    (void)pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); // without it: the same, slower
    words->code[words->count++] = compiled;
    return SL_OK;
}

struct cut {
    const struct sl_words *words;
    pcre2_match_data *match;
    int (*word)(void *context, const char *text, size_t size);
    void *context;
    struct sl_error *error;
};

static int match(const struct cut *cut, const pcre2_code *code, const char *text, size_t size, size_t from)
{
    int rc = pcre2_match(code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK, cut->match, cut->words->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { // the interpreter keeps its stack on the heap
        rc = pcre2_match(code, (PCRE2_SPTR)text, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, cut->match,
                         cut->words->limits);
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        char why[128];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)why, sizeof why);
        return sl_fail(cut->error, SL_ERR_TOKENIZER, "regular expression fails at byte %zu of a text: %s", from, why);
    }
    return rc >= 0;
}

// Cuts `text` by the expression `level` and the pieces by those after it.
static int cut_by(const struct cut *cut, int level, const char *text, size_t size)
{
    if (size == 0) {
        return SL_OK;
    }
    if (level == cut->words->count) {
        return cut->word(cut->context, text, size);
    }
    size_t done = 0; // what has been handed on
    for (size_t from = 0; from < size;) {
        int found = match(cut, cut->words->code[level], text, size, from);
        if (found < 0) {
            return found;
        }
        if (!found) {
            break;
        }
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(cut->match);
        size_t begin = span[0], end = span[1];
        int rc = cut_by(cut, level + 1, text + done, begin - done);
        // The pieces have used cut->match: only begin and end are good now.
        rc = rc < 0 ? rc : cut_by(cut, level + 1, text + begin, end - begin);
        if (rc < 0) {
            return rc;
        }
        done = from = end;
        if (begin == end) { // nothing was matched: look again one character on
            for (from++; from < size && ((unsigned char)text[from] & 0xc0) == 0x80;) {
                from++;
            }
        }
    }
    return cut_by(cut, level + 1, text + done, size - done);
}

int sl_words_cut(const struct sl_words *words, const char *text, size_t size,
                 int (*word)(void *context, const char *text, size_t size), void *context, struct sl_error *error)
{
    struct cut cut = {words, pcre2_match_data_create(1, NULL), word, context, error};
    if (cut.match == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "no memory to split a text");
    }
    int rc = cut_by(&cut, 0, text, size);
    pcre2_match_data_free(cut.match);
    return rc;
}
