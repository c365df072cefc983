/* Reads linker.hints (hints.h): records of {length, type, fields}. */
#include "load/bsd/hints.h"

#include <string.h>

#include "lib/util.h"
#include "load/bsd/bytes.h"
#include "load/bsd/preload.h"

#define VERSION     1
#define TYPE_MODULE 3 /* MDT_VERSION: module, version, file */

/* A string with its length before it; NULL when it leaves the record. */
static const uint8_t *take_string(
    const uint8_t *r, size_t len, size_t *at, size_t *n)
{
	if (*at >= len || r[*at] > len - *at - 1)
		return NULL;
	*n = r[*at];
	const uint8_t *s = r + *at + 1;
	*at += *n + 1;
	return s;
}

/* base: the record's place, as numbers are aligned from the hints' start. */
static bool read_record(const uint8_t *r, size_t len, size_t base,
    const char *module, int32_t *version, char file[FS_NAME_MAX + 1])
{
	size_t at = 4, n;

	if (len < 4 || get32(r) != TYPE_MODULE)
		return false;
	const uint8_t *name = take_string(r, len, &at, &n);
	if (name == NULL || n != strlen(module) || memcmp(name, module, n) != 0)
		return false;
	at = ROUND_UP(base + at, (size_t)4) - base;
	if (at > len || len - at < 4)
		return false;
	*version = (int32_t)get32(r + at);
	at += 4;
	const uint8_t *path = take_string(r, len, &at, &n);
	if (path == NULL || n == 0 || memchr(path, '/', n) != NULL ||
	    memchr(path, '\0', n) != NULL)
		return false;
	memcpy(file, path, n);
	file[n] = '\0';
	return true;
}

bool hints_find(const uint8_t *data, size_t len, const char *module,
    const struct module_version *need, char file[FS_NAME_MAX + 1])
{
	char candidate[FS_NAME_MAX + 1];
	int32_t best = 0, version;
	bool found = false;

	if (len < 4 || get32(data) != VERSION)
		return false;
	data += 4;
	len -= 4;
	for (size_t at = 0; len - at >= 8;) {
		uint32_t size = get32(data + at);
		at += 4;
		if (size < 4 || size > len - at)
			break;
		if (read_record(data + at, size, at, module, &version, candidate)) {
			bool exact = need == NULL || version == need->preferred;
			if (exact || (version >= need->min &&
					 version <= need->max && version > best)) {
				memcpy(file, candidate, sizeof(candidate));
				best = version;
				found = true;
			}
			if (exact)
				return true;
		}
		at += size;
	}
	return found;
}
