// SPDX-License-Identifier: Apache-2.0
#include "core/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t prime1 = 0x9e3779b185ebca87u, prime2 = 0xc2b2ae3d27d4eb4fu, prime3 = 0x165667b19e3779f9u,
                      prime4 = 0x85ebca77c2b2ae63u, prime5 = 0x27d4eb2f165667c5u;

static uint64_t rotate(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

// Little-endian, whatever the machine.
static uint64_t read64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--) {
        value = value << 8 | p[i];
    }
    return value;
}

static uint64_t read32(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24;
}

static uint64_t lane_round(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * prime2, 31) * prime1;
}

// The four lanes over whole stripes of 32 bytes; *p is moved behind them.
static uint64_t stripes(const uint8_t **p, const uint8_t *end, uint64_t seed)
{
    uint64_t lane[4] = {seed + prime1 + prime2, seed + prime2, seed, seed - prime1};
    for (; end - *p >= 32; *p += 32) {
        for (int i = 0; i < 4; i++) {
            lane[i] = lane_round(lane[i], read64(*p + (ptrdiff_t)8 * i));
        }
    }
    uint64_t hash = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
    for (int i = 0; i < 4; i++) {
        hash = (hash ^ lane_round(0, lane[i])) * prime1 + prime4;
    }
    return hash;
}

uint64_t sl_hash64(const void *data, size_t size_bytes, uint64_t seed)
{
    const uint8_t *p = data;
    const uint8_t *end = p + size_bytes;
    uint64_t hash = size_bytes >= 32 ? stripes(&p, end, seed) : seed + prime5;
    hash += size_bytes;
    for (; end - p >= 8; p += 8) {
        hash = rotate(hash ^ lane_round(0, read64(p)), 27) * prime1 + prime4;
    }
    for (; end - p >= 4; p += 4) {
        hash = rotate(hash ^ read32(p) * prime1, 23) * prime2 + prime3;
    }
    for (; p < end; p++) {
        hash = rotate(hash ^ *p * prime5, 11) * prime1;
    }
    hash = (hash ^ hash >> 33) * prime2;
    hash = (hash ^ hash >> 29) * prime3;
    return hash ^ hash >> 32;
}

enum { BLOCKS = 16, BLOCK_BYTES = 65536 };

// Reads exactly `size`; a file that became shorter meanwhile is an error.
static int read_at(int file, const char *path, int64_t offset, uint8_t *to, int64_t size, struct sl_error *error)
{
    while (size > 0) {
        ssize_t got = pread(file, to, (size_t)size, offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return sl_fail(error, SL_ERR_IO, "%s: cannot read at byte %lld: %s", path, (long long)offset,
                           got == 0 ? "file became shorter" : strerror(errno));
        }
        offset += got;
        to += got;
        size -= got;
    }
    return SL_OK;
}

static int hash_blocks(int file, const char *path, int64_t size_bytes, uint64_t *hash, struct sl_error *error)
{
    uint8_t *block = malloc(BLOCK_BYTES);
    if (block == NULL) {
        return sl_fail(error, SL_ERR_MEMORY, "%s: no memory to read it", path);
    }
    int sampled = size_bytes > (int64_t)BLOCKS * BLOCK_BYTES;
    int64_t blocks = sampled ? BLOCKS : (size_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
    *hash = (uint64_t)size_bytes;
    int status = SL_OK;
    for (int64_t i = 0; i < blocks && status == SL_OK; i++) {
        // The division is done apart from the remainder, so that no size overflows.
        int64_t span = size_bytes - BLOCK_BYTES;
        int64_t offset = sampled ? span / (BLOCKS - 1) * i + span % (BLOCKS - 1) * i / (BLOCKS - 1) : i * BLOCK_BYTES;
        int64_t size = size_bytes - offset < BLOCK_BYTES ? size_bytes - offset : BLOCK_BYTES;
        status = read_at(file, path, offset, block, size, error);
        *hash = sl_hash64(block, (size_t)size, *hash);
    }
    free(block);
    return status;
}

int sl_fingerprint_file(const char *path, int64_t size_bytes, struct sl_fingerprint *out, struct sl_error *error)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe must not block us before we see what it is
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0) {
        int cause = errno;
        if (file >= 0) {
            close(file);
        }
        return sl_fail(error, SL_ERR_OPEN, "%s: %s", path, strerror(cause));
    }
    int status = SL_OK;
    if (!S_ISREG(about.st_mode)) {
        status = sl_fail(error, SL_ERR_OPEN, "%s: is not a regular file", path);
    } else if (about.st_size == 0) {
        status = sl_fail(error, SL_ERR_EMPTY, "%s: is empty", path);
    } else if (about.st_size < size_bytes) {
        status = sl_fail(error, SL_ERR_TRUNCATED, "%s: shorter than %lld bytes", path, (long long)size_bytes);
    } else {
        out->size_bytes = size_bytes < 0 ? about.st_size : size_bytes;
        status = hash_blocks(file, path, out->size_bytes, &out->hash, error);
    }
    close(file);
    return status;
}
