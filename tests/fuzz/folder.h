// SPDX-License-Identifier: Apache-2.0
// A folder of a fuzzer's own, for what reads files by name. Removed when the fuzzer ends by itself.
#ifndef SL_TESTS_FUZZ_FOLDER_H
#define SL_TESTS_FUZZ_FOLDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fuzz_folder[256];
static const char *fuzz_names[8];

static inline const char *fuzz_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    return path;
}

static inline void fuzz_remove_folder(void)
{
    for (int i = 0; i < 8 && fuzz_names[i] != NULL; i++) {
        unlink(fuzz_path(fuzz_names[i]));
    }
    rmdir(fuzz_folder);
}

static inline void fuzz_make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/fuzz.XXXXXX", parent == NULL ? "/tmp" : parent);
    if (mkdtemp(fuzz_folder) == NULL) {
        abort();
    }
    atexit(fuzz_remove_folder);
}

static inline void fuzz_write(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(fuzz_path(name), "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        abort();
    }
    for (int i = 0; i < 8 && (fuzz_names[i] == NULL || strcmp(fuzz_names[i], name) != 0); i++) {
        if (fuzz_names[i] == NULL) {
            fuzz_names[i] = name;
            break;
        }
    }
}

#endif
