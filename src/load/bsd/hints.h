/* linker.hints: which file of a directory holds which module (kldxref(8)). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "load/bsd/fs.h"

struct module_version;

/* The file that holds the module in the version needed (NULL: any). */
bool hints_find(const uint8_t *data, size_t len, const char *module,
    const struct module_version *need, char file[FS_NAME_MAX + 1]);
