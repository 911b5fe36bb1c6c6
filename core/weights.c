// SPDX-License-Identifier: Apache-2.0
// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of little-endian header length, a JSON
// header {"name": {"dtype", "shape", "data_offsets": [begin, end)}, "__metadata__": {...}}, then the data. Offsets
// count from the end of the header; the tensors cover the data without holes.
#include "core/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/hash.h"
#include "core/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors are little-endian and are used where they lie"
#endif

enum {
    MAX_RANK = 8,
    MAX_SHARDS = 10000,
    MAX_HEADER_BYTES = 100 << 20, // the format's own bound
    RANDOM_PERIOD = 1048573,      // prime, so that the rows of a matrix all differ
    RANDOM_BLOCK_BYTES = 1 << 30, // more than any cache holds; whole pages
};

struct type {
    const char *name;
    int bits;
    int known; // 1: `dtype` holds
    enum sl_dtype dtype;
};

static const struct type types[] = {
    {"F32", 32, 1, SL_F32}, {"BF16", 16, 1, SL_BF16}, {"F16", 16, 1, SL_F16}, {"I32", 32, 1, SL_I32},
    {"U8", 8, 1, SL_U8},    {"BOOL", 8, 0, 0},        {"I8", 8, 0, 0},        {"F8_E4M3", 8, 1, SL_F8E4M3},
    {"F8_E5M2", 8, 0, 0},   {"F8_E8M0", 8, 0, 0},     {"I16", 16, 0, 0},      {"U16", 16, 0, 0},
    {"U32", 32, 0, 0},      {"I64", 64, 0, 0},        {"U64", 64, 0, 0},      {"F64", 64, 0, 0},
    {"C64", 64, 0, 0},      {"F4", 4, 0, 0},          {"F6_E2M3", 6, 0, 0},   {"F6_E3M2", 6, 0, 0},
};

struct shard {
    char *name; // file name
    char *path;
    uint8_t *map;
    int64_t size;
    int64_t data_start; // where the header ends
};

struct entry {
    char *name;
    int shard;
    char type_name[16];
    int known; // 0: a type that scenelog does not compute with
    enum sl_dtype dtype;
    int rank;
    int64_t shape[MAX_RANK];
    int64_t begin, end; // bytes from data_start
    void *data;
    struct sl_tensor scale; // of F8_E4M3, once required
};

struct sl_weights {
    struct shard *shards;
    int shard_count;
    struct entry *entries; // sorted by name when open
    size_t entry_count, entry_capacity;
    uint64_t hash;
    int64_t bytes;
    int random; // 1: no files; the next five hold
    enum sl_dtype random_dtype;
    void *random_values;   // RANDOM_PERIOD of them
    int random_file;       // in memory: the values over and over; tensors are views of its pages
    int64_t random_filled; // bytes of the file so far
    int64_t random_at;     // where the next tensor begins
};

static int out_of_memory(struct sl_error *error)
{
    return sl_fail(error, SL_ERR_MEMORY, "out of memory while opening weights");
}

// ---- The sorted list of tensors

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

// Index of the first entry whose name is not before `name`.
static size_t lower_bound(const struct sl_weights *weights, const char *name)
{
    size_t low = 0, high = weights->entry_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(weights->entries[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct entry *find_entry(const struct sl_weights *weights, const char *name)
{
    size_t i = lower_bound(weights, name);
    return i < weights->entry_count && strcmp(weights->entries[i].name, name) == 0 ? &weights->entries[i] : NULL;
}

// Inserts a copy of *entry before index `at`; takes over entry->name.
static int insert_entry(struct sl_weights *weights, size_t at, const struct entry *entry, struct sl_error *error)
{
    if (weights->entry_count == weights->entry_capacity) {
        size_t capacity = weights->entry_capacity ? 2 * weights->entry_capacity : 1024;
        struct entry *grown = realloc(weights->entries, capacity * sizeof *grown);
        if (grown == NULL) {
            return out_of_memory(error);
        }
        weights->entries = grown;
        weights->entry_capacity = capacity;
    }
    memmove(&weights->entries[at + 1], &weights->entries[at], (weights->entry_count - at) * sizeof *entry);
    weights->entries[at] = *entry;
    weights->entry_count++;
    return SL_OK;
}

// ---- One header

static int whole_number(const cJSON *item, int64_t *out)
{
    const double exact_limit = 9007199254740992.0; // 2^53
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || item->valuedouble > exact_limit ||
        item->valuedouble != (double)(int64_t)item->valuedouble) {
        return 0;
    }
    *out = (int64_t)item->valuedouble;
    return 1;
}

static int parse_shape(const cJSON *shape, struct entry *entry, int64_t *elements)
{
    if (!cJSON_IsArray(shape)) {
        return 0;
    }
    int empty = 0;
    *elements = 1;
    for (const cJSON *item = shape->child; item != NULL; item = item->next) {
        int64_t size = 0;
        if (entry->rank == MAX_RANK || !whole_number(item, &size)) {
            return 0;
        }
        entry->shape[entry->rank++] = size;
        empty |= size == 0;
        // An axis of 0 does not hide the others: strides are products of some of them.
        if (__builtin_mul_overflow(*elements, size > 0 ? size : 1, elements)) {
            return 0;
        }
    }
    *elements = empty ? 0 : *elements;
    return 1;
}

// Fills *entry (but for its name) from {"dtype", "shape", "data_offsets"}.
static int parse_entry(const struct shard *shard, const cJSON *item, struct entry *entry, struct sl_error *error)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    int64_t elements = 0, bits = 0;
    if (!cJSON_IsString(dtype) || !parse_shape(shape, entry, &elements) || !cJSON_IsArray(offsets) ||
        cJSON_GetArraySize(offsets) != 2 || !whole_number(offsets->child, &entry->begin) ||
        !whole_number(offsets->child->next, &entry->end)) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: tensor %s: malformed header entry", shard->path, item->string);
    }
    int64_t data_bytes = shard->size - shard->data_start;
    if (entry->begin > entry->end || entry->end > data_bytes) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT,
                       "%s: tensor %s: data at bytes %" PRId64 " to %" PRId64 " lies outside the file of %" PRId64
                       " bytes: download the file again",
                       shard->path, item->string, shard->data_start + entry->begin, shard->data_start + entry->end,
                       shard->size);
    }
    snprintf(entry->type_name, sizeof entry->type_name, "%s", dtype->valuestring);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, dtype->valuestring) != 0) {
            continue;
        }
        entry->known = types[i].known;
        entry->dtype = types[i].dtype;
        if (__builtin_mul_overflow(elements, (int64_t)types[i].bits, &bits) || bits % 8 != 0 ||
            bits / 8 != entry->end - entry->begin) {
            return sl_fail(error, SL_ERR_MODEL_FORMAT,
                           "%s: tensor %s: %" PRId64 " elements of %s do not fill its %" PRId64
                           " bytes at byte %" PRId64,
                           shard->path, item->string, elements, entry->type_name, entry->end - entry->begin,
                           shard->data_start + entry->begin);
        }
    }
    entry->data = shard->map + shard->data_start + entry->begin;
    return SL_OK;
}

static int compare_begins(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return (x->end > y->end) - (x->end < y->end);
}

// The shard's entries, which begin at `first`, cover its data without hole or overlap.
static int check_coverage(struct sl_weights *weights, size_t first, const struct shard *shard, struct sl_error *error)
{
    size_t count = weights->entry_count - first;
    struct entry *entries = count > 0 ? weights->entries + first : NULL;
    int64_t covered = 0, data_bytes = shard->size - shard->data_start;
    if (count > 0) {
        qsort(entries, count, sizeof *entries, compare_begins);
    }
    for (size_t i = 0; i < count; i++) {
        if (entries[i].begin != covered) {
            return sl_fail(error, SL_ERR_MODEL_FORMAT,
                           "%s: tensor %s: data begins at byte %" PRId64 ", %s byte %" PRId64, shard->path,
                           entries[i].name, shard->data_start + entries[i].begin,
                           entries[i].begin < covered ? "overlapping what reaches to" : "leaving a hole from",
                           shard->data_start + covered);
        }
        covered = entries[i].end;
    }
    if (covered != data_bytes) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: %" PRId64 " bytes from byte %" PRId64 " on belong to no tensor",
                       shard->path, data_bytes - covered, shard->data_start + covered);
    }
    return SL_OK;
}

static int add_entries(struct sl_weights *weights, int shard_index, const cJSON *header, struct sl_error *error)
{
    const struct shard *shard = &weights->shards[shard_index];
    size_t first = weights->entry_count;
    for (const cJSON *item = header->child; item; item = item->next) {
        if (strcmp(item->string, "__metadata__") == 0) {
            continue;
        }
        struct entry entry = {.shard = shard_index};
        int rc = parse_entry(shard, item, &entry, error);
        if (rc < 0) {
            return rc;
        }
        entry.name = strdup(item->string);
        rc = entry.name ? insert_entry(weights, weights->entry_count, &entry, error) : out_of_memory(error);
        if (rc < 0) {
            free(entry.name);
            return rc;
        }
    }
    return check_coverage(weights, first, shard, error);
}

static int parse_header(struct sl_weights *weights, int shard_index, struct sl_error *error)
{
    struct shard *shard = &weights->shards[shard_index];
    uint64_t length = 0;
    if (shard->size < 8) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: %" PRId64 " bytes are too few for a safetensors file",
                       shard->path, shard->size);
    }
    memcpy(&length, shard->map, 8);
    if (length > MAX_HEADER_BYTES || (int64_t)length > shard->size - 8) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT,
                       "%s: header length %" PRIu64 " at byte 0 is longer than %s: download the file again",
                       shard->path, length, length > MAX_HEADER_BYTES ? "the format allows" : "the file");
    }
    shard->data_start = 8 + (int64_t)length;
    struct sl_json header = {0};
    int rc = sl_json_parse((const char *)shard->map + 8, length, shard->path, SL_ERR_MODEL_FORMAT, &header, error);
    if (rc == SL_OK && !cJSON_IsObject(header.root)) {
        rc = sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: header at byte 8 is not a JSON object", shard->path);
    }
    if (rc == SL_OK) {
        rc = add_entries(weights, shard_index, header.root, error);
    }
    sl_json_finish(&header);
    return rc;
}

// ---- Files

// Goes on from `hash` with the shard's name, size, header and sampled blocks.
static int hash_shard(const struct shard *shard, uint64_t *hash, struct sl_error *error)
{
    struct sl_fingerprint print;
    int rc = sl_fingerprint_file(shard->path, shard->size, &print, error);
    if (rc == SL_OK) {
        *hash = sl_hash64(shard->name, strlen(shard->name), *hash);
        *hash = sl_hash64(shard->map, (size_t)shard->data_start, *hash);
        *hash = sl_hash64(&print, sizeof print, *hash);
    }
    return rc;
}

static int map_file(struct shard *shard, struct sl_error *error)
{
    int fd = open(shard->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return sl_fail(error, SL_ERR_MODEL_MISSING, "cannot open weights %s: %s: complete the model folder",
                       shard->path, strerror(errno));
    }
    struct stat st;
    int rc = SL_OK;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        rc = sl_fail(error, SL_ERR_MODEL_MISSING, "%s is not a file", shard->path);
    } else if (st.st_size > 0) {
        shard->size = st.st_size;
        void *map = mmap(NULL, (size_t)shard->size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            rc = sl_fail(error, SL_ERR_IO, "cannot map %s: %s", shard->path, strerror(errno));
        } else {
            shard->map = map;
        }
    }
    close(fd);
    return rc;
}

static int open_shard(struct sl_weights *weights, const char *dir, const char *name, struct sl_error *error)
{
    struct shard *grown = realloc(weights->shards, (size_t)(weights->shard_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return out_of_memory(error);
    }
    weights->shards = grown;
    struct shard *shard = &grown[weights->shard_count++];
    *shard = (struct shard){.name = strdup(name)};
    if (shard->name == NULL || asprintf(&shard->path, "%s/%s", dir, name) < 0) {
        shard->path = NULL;
        return out_of_memory(error);
    }
    int rc = map_file(shard, error);
    if (rc == SL_OK) {
        rc = parse_header(weights, weights->shard_count - 1, error);
    }
    if (rc == SL_OK) {
        rc = hash_shard(shard, &weights->hash, error);
        weights->bytes += shard->size;
    }
    return rc;
}

static int sort_entries(struct sl_weights *weights, struct sl_error *error)
{
    if (weights->entry_count > 0) {
        qsort(weights->entries, weights->entry_count, sizeof *weights->entries, compare_entries);
    }
    for (size_t i = 1; i < weights->entry_count; i++) {
        const struct entry *a = &weights->entries[i - 1], *b = &weights->entries[i];
        if (strcmp(a->name, b->name) == 0) {
            return sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: tensor %s is stored twice (also in %s)",
                           weights->shards[a->shard].path, a->name, weights->shards[b->shard].name);
        }
    }
    return SL_OK;
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Opens each file of the weight map once, in the order of names.
static int open_listed(struct sl_weights *weights, const char *dir, const char *index_path, const cJSON *map,
                       struct sl_error *error)
{
    size_t count = (size_t)cJSON_GetArraySize(map), i = 0;
    const char **names = malloc((count + 1) * sizeof *names);
    if (names == NULL) {
        return out_of_memory(error);
    }
    int rc = SL_OK;
    for (const cJSON *item = map->child; item && rc == SL_OK; item = item->next) {
        const char *name = cJSON_GetStringValue(item);
        if (name == NULL || *name == 0 || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            rc = sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: tensor %s: its shard must be a plain file name", index_path,
                         item->string);
        }
        names[i++] = name;
    }
    if (rc == SL_OK) {
        qsort(names, count, sizeof *names, compare_strings);
    }
    for (i = 0; i < count && rc == SL_OK; i++) {
        if (i > 0 && strcmp(names[i], names[i - 1]) == 0) {
            continue;
        }
        rc = weights->shard_count < MAX_SHARDS
                 ? open_shard(weights, dir, names[i], error)
                 : sl_fail(error, SL_ERR_MODEL_FORMAT, "%s: more than %d shards", index_path, MAX_SHARDS);
    }
    free(names);
    return rc;
}

// Every tensor that the index promises is in the shard it names.
static int check_promises(const struct sl_weights *weights, const cJSON *map, struct sl_error *error)
{
    for (const cJSON *item = map->child; item; item = item->next) {
        const struct entry *entry = find_entry(weights, item->string);
        if (entry == NULL || strcmp(weights->shards[entry->shard].name, item->valuestring) != 0) {
            return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s, promised by the index, is missing",
                           item->valuestring, item->string);
        }
    }
    return SL_OK;
}

static int open_index(struct sl_weights *weights, const char *dir, const char *index_path, struct sl_error *error)
{
    struct sl_json index = {0};
    const cJSON *map = NULL;
    int rc = sl_json_open(index_path, MAX_HEADER_BYTES, SL_ERR_MODEL_MISSING, SL_ERR_MODEL_FORMAT, &index, error);
    if (rc == SL_OK) {
        rc = sl_json_object(&index, "weight_map", &map, error);
    }
    if (rc == SL_OK) {
        rc = open_listed(weights, dir, index_path, map, error);
    }
    if (rc == SL_OK) {
        rc = sort_entries(weights, error);
    }
    if (rc == SL_OK) {
        rc = check_promises(weights, map, error);
    }
    sl_json_finish(&index);
    return rc;
}

int sl_weights_open(const char *model_dir, struct sl_weights **out, struct sl_error *error)
{
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    char single_path[PATH_MAX], index_path[PATH_MAX];
    *out = NULL;
    if ((size_t)snprintf(single_path, sizeof single_path, "%s/%s", model_dir, single) >= sizeof single_path ||
        (size_t)snprintf(index_path, sizeof index_path, "%s/%s", model_dir, index) >= sizeof index_path) {
        return sl_fail(error, SL_ERR_MODEL_MISSING, "model folder's path is too long: %s", model_dir);
    }
    struct sl_weights *weights = calloc(1, sizeof *weights);
    if (weights == NULL) {
        return out_of_memory(error);
    }
    int rc;
    if (access(single_path, F_OK) == 0) {
        rc = open_shard(weights, model_dir, single, error);
        if (rc == SL_OK) {
            rc = sort_entries(weights, error);
        }
    } else if (access(index_path, F_OK) == 0) {
        rc = open_index(weights, model_dir, index_path, error);
    } else {
        rc =
            sl_fail(error, SL_ERR_MODEL_MISSING,
                    "model folder %s has neither %s nor %s: give the folder of a checkpoint", model_dir, single, index);
    }
    if (rc < 0) {
        sl_weights_close(weights);
        return rc;
    }
    *out = weights;
    return SL_OK;
}

// ---- Random weights

static uint64_t next_random(uint64_t *state) // splitmix64
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

// Bits of a power of two, 2^exponent, with sign and the top bits of the fraction from `random`.
static void put_value(void *to, enum sl_dtype dtype, int exponent, uint64_t random)
{
    uint32_t sign = (uint32_t)(random >> 63);
    if (dtype == SL_F32) {
        uint32_t bits = sign << 31 | (uint32_t)(exponent + 127) << 23 | (uint32_t)(random & 0x7fffff);
        memcpy(to, &bits, 4);
    } else if (dtype == SL_BF16) {
        uint16_t bits = (uint16_t)(sign << 15 | (uint32_t)(exponent + 127) << 7 | (uint32_t)(random & 0x7f));
        memcpy(to, &bits, 2);
    } else {
        uint16_t bits = (uint16_t)(sign << 15 | (uint32_t)(exponent + 15) << 10 | (uint32_t)(random & 0x3ff));
        memcpy(to, &bits, 2);
    }
}

int sl_weights_random(enum sl_dtype dtype, uint64_t seed, struct sl_weights **out, struct sl_error *error)
{
    *out = NULL;
    if (dtype != SL_F32 && dtype != SL_BF16 && dtype != SL_F16) {
        return sl_fail(error, SL_ERR_USAGE, "random weights are f32, bf16 or f16, not %s", sl_dtype_name(dtype));
    }
    struct sl_weights *weights = calloc(1, sizeof *weights);
    size_t width = (size_t)sl_dtype_bytes(dtype);
    void *values = malloc(RANDOM_PERIOD * width);
    int file = memfd_create("scenelog-random-weights", MFD_CLOEXEC);
    if (weights == NULL || values == NULL || file < 0) {
        free(weights);
        free(values);
        if (file >= 0) {
            close(file);
        }
        return out_of_memory(error);
    }
    uint64_t state = seed;
    for (size_t i = 0; i < RANDOM_PERIOD; i++) {
        // Between 2^-7 and 2^-5, root mean square 0.019: about what checkpoints are initialised with.
        uint64_t random = next_random(&state);
        put_value((char *)values + i * width, dtype, random >> 32 & 1 ? -6 : -7, random);
    }
    *weights = (struct sl_weights){.random = 1, .random_dtype = dtype, .random_values = values, .random_file = file};
    weights->hash = sl_hash64(&seed, sizeof seed, (uint64_t)dtype);
    *out = weights;
    return SL_OK;
}

static int ends_with(const char *name, size_t length, const char *end)
{
    size_t n = strlen(end);
    return length >= n && memcmp(name + length - n, end, n) == 0;
}

// The scales of norms: "...norm.weight", "...layernorm.weight", "...norm1.weight".
static int is_norm_scale(const char *name)
{
    size_t length = strlen(name);
    if (!ends_with(name, length, ".weight")) {
        return 0;
    }
    length -= strlen(".weight");
    while (length > 0 && name[length - 1] >= '0' && name[length - 1] <= '9') {
        length--;
    }
    return ends_with(name, length, "norm");
}

static int is_bias(const char *name)
{
    return ends_with(name, strlen(name), ".bias");
}

// Norm scales are 1; biases stay as mapped memory is, 0.
static void fill_constant(const struct entry *entry, int64_t elements)
{
    int64_t width = sl_dtype_bytes(entry->dtype);
    uint16_t half_one = entry->dtype == SL_BF16 ? 0x3f80 : 0x3c00;
    float one = 1.0f;
    for (int64_t i = 0; i < elements && !is_bias(entry->name); i++) {
        memcpy((char *)entry->data + i * width, width == 4 ? (void *)&one : (void *)&half_one, (size_t)width);
    }
}

// The file as far as `size` at least.
static int fill_file(struct sl_weights *weights, int64_t size)
{
    int64_t period = RANDOM_PERIOD * sl_dtype_bytes(weights->random_dtype);
    while (weights->random_filled < size) {
        int64_t from = weights->random_filled % period;
        int64_t left = size - weights->random_filled;
        int64_t run = period - from < left ? period - from : left;
        ssize_t put =
            pwrite(weights->random_file, (char *)weights->random_values + from, (size_t)run, weights->random_filled);
        if (put <= 0) {
            return 0;
        }
        weights->random_filled += put;
    }
    return 1;
}

// The next pages of the file, from its beginning again behind its end, in place of those at `data`. So memory stays
// small however large the model is, and yet all of it is read: no cache holds the whole file.
static int map_random(struct sl_weights *weights, char *data, int64_t size)
{
    int64_t page = sysconf(_SC_PAGESIZE);
    for (int64_t done = 0; done < size;) {
        int64_t left = (size - done + page - 1) / page * page;
        int64_t space = RANDOM_BLOCK_BYTES - weights->random_at;
        int64_t run = space < left ? space : left;
        if (!fill_file(weights, weights->random_at + run) ||
            mmap(data + done, (size_t)run, PROT_READ, MAP_SHARED | MAP_FIXED, weights->random_file,
                 weights->random_at) == MAP_FAILED) {
            return 0;
        }
        weights->random_at = (weights->random_at + run) % RANDOM_BLOCK_BYTES;
        done += run;
    }
    return 1;
}

static int make_random(struct sl_weights *weights, const char *name, int rank, const int64_t *shape,
                       struct sl_error *error)
{
    struct entry entry = {.known = 1, .dtype = weights->random_dtype, .rank = rank};
    int64_t elements = 1;
    snprintf(entry.type_name, sizeof entry.type_name, "%s", sl_dtype_name(entry.dtype));
    for (int i = 0; i < rank; i++) {
        entry.shape[i] = shape[i];
        elements *= shape[i];
    }
    entry.end = elements * sl_dtype_bytes(entry.dtype);
    entry.name = strdup(name);
    int constant = is_norm_scale(name) || is_bias(name);
    void *data = mmap(NULL, (size_t)(entry.end + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    entry.data = data == MAP_FAILED ? NULL : data;
    if (entry.name == NULL || entry.data == NULL || (!constant && !map_random(weights, data, entry.end)) ||
        insert_entry(weights, lower_bound(weights, name), &entry, error) < 0) {
        if (entry.data != NULL) {
            munmap(entry.data, (size_t)(entry.end + 1));
        }
        free(entry.name);
        return out_of_memory(error);
    }
    if (constant) {
        fill_constant(&entry, elements);
    }
    weights->bytes += entry.end;
    return SL_OK;
}

// ---- Handing out

static struct sl_tensor view(const struct entry *entry)
{
    const int64_t *s = entry->shape;
    switch (entry->rank) {
    case 0:
        return sl_tensor_1d(entry->data, entry->dtype, 1);
    case 1:
        return sl_tensor_1d(entry->data, entry->dtype, s[0]);
    case 2:
        return sl_tensor_2d(entry->data, entry->dtype, s[0], s[1]);
    case 3:
        return sl_tensor_3d(entry->data, entry->dtype, s[0], s[1], s[2]);
    case 4:
        return sl_tensor_4d(entry->data, entry->dtype, s[0], s[1], s[2], s[3]);
    }
    int64_t rest = 1;
    for (int i = 1; i < entry->rank; i++) {
        rest *= s[i];
    }
    return sl_tensor_2d(entry->data, entry->dtype, s[0], rest);
}

int sl_weights_find(const struct sl_weights *weights, const char *name, struct sl_tensor *out)
{
    const struct entry *entry = find_entry(weights, name);
    if (entry == NULL) {
        return 0;
    }
    *out = view(entry);
    if (!entry->known) {
        out->data = NULL;
    }
    return 1;
}

static void write_shape(char *to, size_t size, int rank, const int64_t *shape)
{
    size_t used = (size_t)snprintf(to, size, "[");
    for (int i = 0; i < rank && used < size; i++) {
        used += (size_t)snprintf(to + used, size - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    }
    if (used < size) {
        snprintf(to + used, size - used, "]");
    }
}

static const char *path_of(const struct sl_weights *weights, const struct entry *entry)
{
    return weights->random ? "random weights" : weights->shards[entry->shard].path;
}

static int check_entry(const struct sl_weights *weights, const struct entry *entry, int rank, const int64_t *shape,
                       struct sl_error *error)
{
    const char *path = path_of(weights, entry);
    if (entry->rank != rank || memcmp(entry->shape, shape, (size_t)rank * sizeof *shape) != 0) {
        char have[160], want[160];
        write_shape(have, sizeof have, entry->rank, entry->shape);
        write_shape(want, sizeof want, rank, shape);
        return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s has shape %s, config.json needs %s", path, entry->name,
                       have, want);
    }
    if ((uintptr_t)entry->data % (uintptr_t)(entry->known ? sl_dtype_bytes(entry->dtype) : 1) != 0) {
        return sl_fail(error, SL_ERR_MODEL_FORMAT,
                       "%s: tensor %s at byte %" PRId64 " is not aligned to its type: save the checkpoint again", path,
                       entry->name, weights->shards[entry->shard].data_start + entry->begin);
    }
    return SL_OK;
}

static int check_float(const struct sl_weights *weights, const struct entry *entry, struct sl_error *error)
{
    if (!entry->known || (entry->dtype != SL_F32 && entry->dtype != SL_BF16 && entry->dtype != SL_F16)) {
        return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s has type %s, needed is F32, BF16 or F16",
                       path_of(weights, entry), entry->name, entry->type_name);
    }
    return SL_OK;
}

// The scales of an F8 tensor: one for each block of its last two axes, whichever way round these are.
static int find_scale(const struct sl_weights *weights, struct entry *entry, struct sl_error *error)
{
    char name[512];
    int64_t shape[MAX_RANK];
    if (entry->rank != 2 && entry->rank != 3) {
        return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s is %s with %d axes: scenelog knows it with 2 or 3",
                       path_of(weights, entry), entry->name, entry->type_name, entry->rank);
    }
    snprintf(name, sizeof name, "%s_scale_inv", entry->name);
    const struct entry *scale = find_entry(weights, name);
    if (scale == NULL) {
        return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s is %s, and its scale %s is missing",
                       path_of(weights, entry), entry->name, entry->type_name, name);
    }
    for (int i = 0; i < entry->rank; i++) {
        int blocked = i >= entry->rank - 2;
        shape[i] =
            blocked ? entry->shape[i] / SL_SCALE_BLOCK + (entry->shape[i] % SL_SCALE_BLOCK != 0) : entry->shape[i];
    }
    int rc = check_entry(weights, scale, entry->rank, shape, error);
    if (rc == SL_OK) {
        rc = check_float(weights, scale, error);
    }
    if (rc == SL_OK) {
        entry->scale = view(scale);
    }
    return rc;
}

int sl_weights_require(struct sl_weights *weights, const char *name, int rank, const int64_t *shape,
                       struct sl_tensor *out, struct sl_error *error)
{
    if (rank < 1 || rank > MAX_RANK) {
        return sl_fail(error, SL_ERR_INTERNAL, "tensor %s asked for with %d axes", name, rank);
    }
    if (weights->random && find_entry(weights, name) == NULL) {
        int rc = make_random(weights, name, rank, shape, error);
        if (rc < 0) {
            return rc;
        }
    }
    struct entry *entry = find_entry(weights, name);
    if (entry == NULL) {
        return sl_fail(error, SL_ERR_MODEL_SHAPE, "%s: tensor %s is missing",
                       weights->shard_count == 1 ? weights->shards[0].path : "model.safetensors.index.json", name);
    }
    int f8 = entry->known && entry->dtype == SL_F8E4M3;
    int rc = check_entry(weights, entry, rank, shape, error);
    if (rc == SL_OK) {
        rc = f8 ? find_scale(weights, entry, error) : check_float(weights, entry, error);
    }
    if (rc == SL_OK) {
        *out = view(entry);
        out->scale = f8 ? &entry->scale : NULL;
    }
    return rc;
}

uint64_t sl_weights_hash(const struct sl_weights *weights)
{
    return weights->hash;
}

int64_t sl_weights_bytes(const struct sl_weights *weights)
{
    return weights->bytes;
}

void sl_weights_close(struct sl_weights *weights)
{
    if (weights == NULL) {
        return;
    }
    for (size_t i = 0; i < weights->entry_count; i++) {
        if (weights->random) {
            munmap(weights->entries[i].data, (size_t)(weights->entries[i].end + 1));
        }
        free(weights->entries[i].name);
    }
    for (int i = 0; i < weights->shard_count; i++) {
        struct shard *shard = &weights->shards[i];
        if (shard->map != NULL) {
            munmap(shard->map, (size_t)shard->size);
        }
        free(shard->path);
        free(shard->name);
    }
    free(weights->entries);
    free(weights->shards);
    if (weights->random) {
        close(weights->random_file);
    }
    free(weights->random_values);
    free(weights);
}
