/*
 * What the fuzz targets share: reading the input, and a machine with a disk in
 * memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fake_machine.h"

struct input {
	const uint8_t *p;
	size_t left;
};

/* Little-endian numbers; zeros behind the end. */
uint64_t take(struct input *in, unsigned bytes);
/* Up to len bytes; how many there were. */
size_t take_bytes(struct input *in, void *buf, size_t len);

#define FUZZ_RAM  (256 * 1024u)
#define FUZZ_DISK (1024 * 1024u)

/* A file descriptor's name for "-s"; the file is FUZZ_DISK bytes in memory. */
const char *fuzz_disk(void);
/* The machine with these slots, made once a process. */
struct fake *fuzz_machine(const char *const *slots, unsigned n);
/* An address that is mostly in RAM, at times at its end or far outside. */
uint64_t fuzz_address(struct input *in);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
