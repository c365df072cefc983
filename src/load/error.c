/* Texts of errors (error.h). */
#include "load/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int load_fail(struct load_error *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return -EINVAL;
}

int load_write_failed(struct load_error *e, int err)
{
	if (err == -ENOSPC)
		load_fail(e,
		    "the file system of the VM directory is full: make room "
		    "there, or set VMM_DIR to a directory with more");
	else
		load_fail(e, "cannot write the VM object: %s", strerror(-err));
	return err;
}
