/* Sizes as bhyve's -m takes them, and plain numbers as users type them. */
#pragma once

#include <stdint.h>

/*
 * "N[K|M|G|T]" (either case) into bytes. A number without suffix counts MiB when
 * it is below 1 MiB and bytes otherwise, as bhyve's memory option does.
 * 0, or -EINVAL (not a number), -ERANGE (overflow).
 */
int size_parse_memory(const char *s, uint64_t *bytes);

/*
 * strtoull base 0 over the whole string; 0, -EINVAL or -ERANGE (outside min..max).
 */
int number_parse(const char *s, uint64_t min, uint64_t max, uint64_t *out);
