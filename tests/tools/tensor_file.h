// SPDX-License-Identifier: Apache-2.0
// Writes a safetensors file: tensors are collected, then written at once (github.com/huggingface/safetensors, format).
#ifndef SL_TESTS_TOOLS_TENSOR_FILE_H
#define SL_TESTS_TOOLS_TENSOR_FILE_H

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

enum { TENSOR_FILE_MAX = 64 };

struct tensor_file {
    struct {
        char name[64], dtype[8]; // "F32", "I32", "I64", "U8"
        int rank;
        int64_t shape[4], size_bytes;
        void *data; // a copy
    } item[TENSOR_FILE_MAX];
    int count;
};

// Copies the data. 0 when it does not fit or memory is out.
static int tensor_file_add(struct tensor_file *file, const char *name, const char *dtype, int rank,
                           const int64_t *shape, const void *data)
{
    int64_t element = strcmp(dtype, "U8") == 0 ? 1 : strcmp(dtype, "I64") == 0 ? 8 : 4;
    if (file->count == TENSOR_FILE_MAX || rank > 4) {
        return 0;
    }
    int i = file->count;
    int64_t n = element;
    for (int d = 0; d < rank; d++) {
        file->item[i].shape[d] = shape[d];
        n *= shape[d];
    }
    file->item[i].rank = rank;
    file->item[i].size_bytes = n;
    file->item[i].data = malloc((size_t)n + 1);
    if (file->item[i].data == NULL) {
        return 0;
    }
    memcpy(file->item[i].data, data, (size_t)n);
    snprintf(file->item[i].name, sizeof file->item[i].name, "%s", name);
    snprintf(file->item[i].dtype, sizeof file->item[i].dtype, "%s", dtype);
    file->count++;
    return 1;
}

static char *tensor_file_header(const struct tensor_file *file)
{
    cJSON *header = cJSON_CreateObject();
    int64_t offset = 0;
    for (int i = 0; i < file->count; i++) {
        cJSON *entry = cJSON_AddObjectToObject(header, file->item[i].name);
        cJSON_AddStringToObject(entry, "dtype", file->item[i].dtype);
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (int d = 0; d < file->item[i].rank; d++) {
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)file->item[i].shape[d]));
        }
        cJSON *offsets = cJSON_AddArrayToObject(entry, "data_offsets");
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)offset));
        offset += file->item[i].size_bytes;
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)offset));
    }
    char *text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    return text;
}

static int tensor_file_write(const struct tensor_file *file, const char *path, struct sl_error *error)
{
    char *header = tensor_file_header(file);
    FILE *out = header != NULL ? fopen(path, "wb") : NULL;
    if (out == NULL) {
        free(header);
        return sl_fail(error, SL_ERR_IO, "%s: cannot be written", path);
    }
    uint64_t size = strlen(header);
    uint64_t padded = (size + 7) / 8 * 8;
    int whole = fwrite(&padded, 8, 1, out) == 1 && fwrite(header, 1, size, out) == size &&
                fprintf(out, "%*s", (int)(padded - size), "") == (int)(padded - size);
    for (int i = 0; i < file->count && whole; i++) {
        size_t bytes = (size_t)file->item[i].size_bytes;
        whole = fwrite(file->item[i].data, 1, bytes, out) == bytes;
    }
    free(header);
    whole = fclose(out) == 0 && whole;
    return whole ? SL_OK : sl_fail(error, SL_ERR_IO, "%s: could not be written whole", path);
}

static void tensor_file_finish(struct tensor_file *file)
{
    for (int i = 0; i < file->count; i++) {
        free(file->item[i].data);
    }
    file->count = 0;
}

#endif
