/* What the loader's parts share (loader.h). */
#include "load/bsd/loader.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"

int loader_fail(struct loader *l, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(l->error, sizeof(l->error), fmt, ap);
	va_end(ap);
	return -1;
}

uint64_t loader_low(const struct loader *l)
{
	/* Addresses in 32-bit words below 2 GiB: the handover's stack has such. */
	return MIN(l->memory, 2 * GiB);
}

unsigned loader_rows(const struct loader *l)
{
	const char *lines = env_get(&l->env, "LINES");
	long n = lines != NULL ? strtol(lines, NULL, 10) : 0;

	return n >= 4 && n <= 1000 ? (unsigned)n : 24;
}

int loader_set_device(struct loader *l, const char *name)
{
	char plain[DEV_NAME], path[DEV_NAME + 1];
	struct media m;

	snprintf(plain, sizeof(plain), "%s", name);
	size_t len = strlen(plain);
	if (len > 0 && plain[len - 1] == ':')
		plain[len - 1] = '\0';
	if (strcmp(plain, "host") == 0)
		memcpy(plain, "host0", 6);
	if (dev_media(&l->dev, plain, &m) != 0 &&
	    (strcmp(plain, "host0") != 0 || l->dev.host == NULL))
		return loader_fail(l, "'%s' is no device (lsdev lists them)", name);
	memcpy(l->dev.current, plain, DEV_NAME);
	snprintf(path, sizeof(path), "%.*s:", DEV_NAME - 1, plain);
	return env_set(&l->env, "currdev", path) == 0 ? 0
						      : loader_fail(l, "no memory");
}

const char *loader_why(int err)
{
	switch (err) {
	case -ENODEV:
		return "no such device";
	case -EINVAL:
		return "damaged, or no file system that is known";
	case -EBADMSG:
		return "packed, and damaged or cut";
	case -ENOENT:
		return "no such file or directory";
	case -EFBIG:
		return "larger than the guest's memory";
	case -ELOOP:
		return "a loop of links or directories";
	case -EIO:
		return "cannot be read: the file system is damaged or cut";
	default:
		return strerror(-err);
	}
}

void loader_free(struct loader *l)
{
	load_forget(l);
	conf_free(&l->conf);
	env_free(&l->env);
	dev_free(&l->dev);
	con_free(&l->con);
}
