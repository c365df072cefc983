/*
 * A VM file from anywhere: the first two bytes of input choose the file's size
 * (in pages), the rest is its contents from the start. Whatever it holds,
 * opening and reading must not fault, and what opens must read consistently.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/util.h"
#include "vmm/memory.h"
#include "vmm/vmfile.h"

static char path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void cleanup(void)
{
	unlink(path);
	*strrchr(path, '/') = '\0';
	rmdir(path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static char dir[] = "/tmp/vmfile_fuzz.XXXXXX";

	(void)argc;
	(void)argv;
	if (mkdtemp(dir) == NULL)
		abort();
	setenv("VMM_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/vm", dir);
	atexit(cleanup);
	return 0;
}

static void load(struct vmfile *vf, uint64_t memory)
{
	struct memory mem = { .low = MIN(memory, MEMORY_LOW_LIMIT) };

	mem.high = memory - mem.low;
	mem.span = mem.high > 0 ? MEMORY_HIGH_BASE + mem.high : mem.low;
	mem.base = mmap(NULL, mem.span, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem.base == MAP_FAILED)
		return;
	(void)vmfile_load_memory(vf, &mem);
	munmap(mem.base, mem.span);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct vmfile *vf;

	if (len < 2)
		return 0;
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (fd < 0)
		abort();
	uint64_t size = (data[0] | data[1] << 8) * UINT64_C(4096);
	if (pwrite(fd, data + 2, len - 2, 0) < 0 || ftruncate(fd, (off_t)size) != 0)
		abort();
	close(fd);

	if (vmfile_open(&vf, "vm", true) != 0)
		return 0;
	struct vmfile_info info;
	struct vcpu_state s;
	char buf[64];
	vmfile_info(vf, &info);
	if (info.status == VMFILE_RUNNING || info.memory == 0)
		abort();
	(void)vmfile_get_state(vf, 0, &s);
	(void)vmfile_get_state(vf, info.ncpu, &s);
	if (vmfile_read(vf, info.memory, buf, sizeof(buf)) != -14 &&
	    info.memory < MEMORY_LOW_LIMIT)
		abort();
	if (vmfile_read(vf, 0, buf, sizeof(buf)) != 0)
		abort();
	load(vf, info.memory);
	vmfile_close(vf);
	return 0;
}
