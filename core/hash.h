// SPDX-License-Identifier: Apache-2.0
// A 64-bit hash, and by it the identity of large files without reading all of them. Not for defence against forgery.
// No state; any thread.
#ifndef SL_CORE_HASH_H
#define SL_CORE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

// XXH64 as published (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). Several pieces: give the last result as the next
// seed. Some 10 GB/s.
uint64_t sl_hash64(const void *data, size_t size_bytes, uint64_t seed);

struct sl_fingerprint {
    int64_t size_bytes;
    uint64_t hash;
};

// The file's size and a hash of it and of 16 blocks of 64 KiB, evenly spaced from the first byte to the last (of the
// whole content, if that is no more). Cost: 1 MiB read, whatever the size. What changes between the blocks and keeps
// the size goes unseen.
// size_bytes: -1, or how many bytes from the front to take for the file, to recognise one that has grown since.
// Errors: SL_ERR_OPEN (also for what is no regular file), SL_ERR_EMPTY, SL_ERR_TRUNCATED (shorter than size_bytes),
// SL_ERR_IO.
int sl_fingerprint_file(const char *path, int64_t size_bytes, struct sl_fingerprint *out, struct sl_error *error);

#endif
