/*
 * Texts from a disk: the first byte says whether the rest is a loader.conf, lines
 * for the prompt, a linker.hints, or a packed file.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "load/bsd/hints.h"
#include "load/bsd/loader.h"
#include "load/bsd/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LIMIT (1 * MiB)

/* No disk is there, so no kernel: nothing gets as far as a VM object. */
static void run_text(const uint8_t *data, size_t len, bool conf)
{
	static struct loader l;
	static int null = -1;

	if (null < 0)
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
	memset(&l, 0, sizeof(l));
	con_init(&l.con, null, null);
	l.memory = 64 * MiB;
	if (conf) {
		(void)conf_parse(&l, "loader.conf", (const char *)data, len);
	} else {
		char *line = strndup((const char *)data, len);
		l.depth = 1; /* the menu is not for files */
		if (line != NULL && command_run(&l, line) != 0 &&
		    l.error[0] == '\0')
			abort();
		free(line);
	}
	if (l.end == LOADER_BOOTED || l.files.count != 0)
		abort();
	for (size_t i = 1; i < l.env.count; i++)
		if (strcmp(l.env.var[i - 1].name, l.env.var[i].name) >= 0)
			abort();
	loader_free(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct module_version need = { "mod", 1, 2, 3 };
	char file[FS_NAME_MAX + 1] = "";
	uint8_t *out;
	size_t n;

	if (len < 1)
		return 0;
	switch (*data % 4) {
	case 0:
		run_text(data + 1, len - 1, true);
		break;
	case 1:
		run_text(data + 1, len - 1, false);
		break;
	case 2:
		if ((hints_find(data + 1, len - 1, "mod", NULL, file) ||
			hints_find(data + 1, len - 1, "mod", &need, file)) &&
		    (file[0] == '\0' || strchr(file, '/') != NULL))
			abort();
		break;
	default:
		if (unpack(data + 1, len - 1, LIMIT, &out, &n) == 0) {
			if (n > LIMIT)
				abort();
			free(out);
		}
	}
	return 0;
}
