/*
 * A device.map from anywhere: what is accepted has sane names, each once, and a
 * path.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "load/grub/devmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Messages are formatted, not shown. */
void log_at(enum log_level level, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	(void)level;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct devmap map;
	FILE *f = len > 0 ? fmemopen((void *)data, len, "r") : NULL;

	if (f == NULL)
		return 0;
	int err = devmap_parse(&map, f, "device.map");
	fclose(f);
	if (err != 0)
		return map.count == 0 ? 0 : (abort(), 0);
	for (unsigned i = 0; i < map.count; i++) {
		const char *name = map.entries[i].name;
		if (name[0] == '\0' || strpbrk(name, "(), '\n") != NULL ||
		    map.entries[i].path[0] == '\0')
			abort();
		for (unsigned j = 0; j < i; j++) {
			if (strcmp(name, map.entries[j].name) == 0)
				abort();
		}
	}
	devmap_free(&map);
	return 0;
}
