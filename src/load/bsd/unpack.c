/* Unpacks files (unpack.h). */
#include "load/bsd/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

bool unpack_is_packed(const uint8_t *data, size_t len)
{
	static const struct {
		uint8_t len;
		uint8_t bytes[6];
	} magics[] = {
		{ 3, { 0x1f, 0x8b, 8 } },
		{ 3, { 'B', 'Z', 'h' } },
		{ 6, { 0xfd, '7', 'z', 'X', 'Z', 0 } },
		{ 4, { 0x28, 0xb5, 0x2f, 0xfd } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
		if (len > magics[i].len &&
		    memcmp(data, magics[i].bytes, magics[i].len) == 0)
			return true;
	return false;
}

static struct archive *open_packed(const uint8_t *data, size_t len)
{
	struct archive *a = archive_read_new();

	if (a == NULL)
		return NULL;
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_raw(a);
	struct archive_entry *ae;
	if (archive_read_open_memory(a, data, len) != ARCHIVE_OK ||
	    archive_read_next_header(a, &ae) != ARCHIVE_OK ||
	    archive_filter_count(a) < 2) { /* nothing was unpacked */
		archive_read_free(a);
		return NULL;
	}
	return a;
}

int unpack(
    const uint8_t *data, size_t len, uint64_t limit, uint8_t **out, size_t *out_len)
{
	struct archive *a = open_packed(data, len);
	size_t room = 0, n = 0;
	uint8_t *p = NULL;
	int err = a == NULL ? -EBADMSG : 0;

	while (err == 0) {
		if (room - n < MiB) {
			uint8_t *more = realloc(p, room * 2 + 4 * MiB);
			if (more == NULL) {
				err = -ENOMEM;
				break;
			}
			p = more;
			room = room * 2 + 4 * MiB;
		}
		la_ssize_t got = archive_read_data(a, p + n, room - n - 1);
		if (got == 0)
			break;
		if (got < 0)
			err = -EBADMSG;
		else if ((n += (size_t)got) > limit)
			err = -EFBIG;
	}
	if (a != NULL)
		archive_read_free(a);
	if (err != 0) {
		free(p);
		return err;
	}
	p[n] = '\0';
	*out = p;
	*out_len = n;
	return 0;
}
