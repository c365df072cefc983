/* Files packed with gzip, bzip2, xz or zstd, unpacked by libarchive. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Told by their first bytes. */
bool unpack_is_packed(const uint8_t *data, size_t len);
/* The contents, allocated. 0, -EFBIG (more than limit), -EBADMSG (damaged). */
int unpack(const uint8_t *data, size_t len, uint64_t limit, uint8_t **out,
    size_t *out_len);
