// SPDX-License-Identifier: Apache-2.0
// A small sound tokenizer.json: the bytes, some merges, the added tokens of the chat format.
#ifndef SL_TESTS_FUZZ_TOKENIZER_H
#define SL_TESTS_FUZZ_TOKENIZER_H

#include "tests/fuzz/folder.h"

enum { FUZZ_VOCABULARY = 300, FUZZ_EOS = 291 };

static inline void fuzz_write_tokenizer(void)
{
    static const char *const merges[] = {"\\\" :", "\\\": \xc4\xa0", "\xc4\xa0 -", "\xc4\xa0- \xc4\xa0", "0 0",
                                         "00 :",   "\\\" }",         "\\\" ,",     "\xc3\x83 \xc2\xa9",  "a a",
                                         "aa aa",  ". \\\""};
    static const char *const added[] = {"<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
                                        "<|video_pad|>"};
    char text[1 << 14];
    size_t used = 0, room = sizeof text;
    int id = 0, next = 0x100;
    used += (size_t)snprintf(text, room, "{\"added_tokens\":[");
    for (int i = 0; i < 5; i++) {
        used += (size_t)snprintf(text + used, room - used, "%s{\"id\":%d,\"content\":\"%s\"}", i ? "," : "", 290 + i,
                                 added[i]);
    }
    used += (size_t)snprintf(text + used, room - used,
                             "],\"normalizer\":{\"type\":\"NFC\"},\"decoder\":{\"type\":\"ByteLevel\"},"
                             "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                             "\"pattern\":{\"Regex\":\"(?i:'s|'t)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"
                             " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
                             "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]},"
                             "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        int visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        used +=
            (size_t)snprintf(text + used, room - used, "%s\"\\u%04x\":%d", b ? "," : "", visible ? b : next++, id++);
    }
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        const char *space = strchr(merges[i], ' ');
        used += (size_t)snprintf(text + used, room - used, ",\"%.*s%s\":%d", (int)(space - merges[i]), merges[i],
                                 space + 1, id++);
    }
    used += (size_t)snprintf(text + used, room - used, "},\"merges\":[");
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        used += (size_t)snprintf(text + used, room - used, "%s\"%s\"", i ? "," : "", merges[i]);
    }
    used += (size_t)snprintf(text + used, room - used, "]}}");
    fuzz_write("tokenizer.json", text, used);
}

#endif
