/*
 * Text from users: -k files, -o and -s options. Nothing of it may crash, and what
 * was accepted must come out of a dump as it went in.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "lib/log.h"

static int count(const char *name, void *arg)
{
	(void)name;
	++*(unsigned *)arg;
	return 0;
}

static void load(struct config *cfg, const uint8_t *data, size_t size)
{
	char path[64];
	int fd = memfd_create("config", 0);

	if (fd < 0)
		return;
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		config_load(cfg, path);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *null;
	struct config *cfg = config_new();
	unsigned n = 0;
	char *text;

	if (null == NULL) {
		null = fopen("/dev/null", "w");
		log_set_level(LOG_ERROR);
		/* Every refusal is a message; thousands a second help nobody. */
		if (freopen("/dev/null", "w", stdout) == NULL || null == NULL)
			abort();
	}
	if (cfg == NULL || size == 0)
		goto out;
	text = strndup((const char *)data + 1, size - 1);
	if (text != NULL) {
		switch (data[0] % 3) {
		case 0:
			load(cfg, data + 1, size - 1);
			break;
		case 1:
			config_parse_option(cfg, text);
			break;
		case 2:
			pci_parse_slot(cfg, text);
			break;
		}
		config_get(cfg, text);
		config_children(cfg, "", count, &n);
		config_children(cfg, "pci.0", count, &n);
		config_dump(cfg, null);
		free(text);
	}
out:
	config_free(cfg);
	return 0;
}
