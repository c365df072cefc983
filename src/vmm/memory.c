/*
 * Guest memory, see memory.h. The whole stretch is reserved without rights and
 * only RAM is opened, so a bad host pointer faults instead of hitting another
 * mapping; a guard page ends it.
 */
#include "vmm/memory.h"

#include <errno.h>
#include <stdint.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "lib/util.h"

/*
 * Huge pages need host and guest addresses to agree modulo 2 MiB; 1 GiB for luck.
 */
#define BASE_ALIGN GiB

/* More than RAM and swap can never be used and would end in the OOM killer. */
static bool host_has(uint64_t size)
{
	struct sysinfo si;

	if (sysinfo(&si) != 0)
		return true;
	return size / si.mem_unit <= (uint64_t)si.totalram + si.totalswap;
}

static void *reserve(uint64_t len)
{
	void *p = mmap(NULL, len, PROT_NONE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* A stretch of len bytes at an aligned address; what is left over goes back. */
static uint8_t *reserve_aligned(uint64_t len)
{
	uint8_t *p = reserve(len + BASE_ALIGN);
	uint64_t head;

	if (p == NULL)
		return NULL;
	head = -(uintptr_t)p & (BASE_ALIGN - 1);
	if (head > 0)
		munmap(p, head);
	if (BASE_ALIGN - head > 0)
		munmap(p + head + len, BASE_ALIGN - head);
	return p + head;
}

static int open_ram(uint8_t *p, uint64_t len, bool wired, bool in_core)
{
	if (len == 0)
		return 0;
	if (mprotect(p, len, PROT_READ | PROT_WRITE) != 0)
		return -errno;
	/* Advice only: kernels without transparent huge pages refuse it. */
	(void)madvise(p, len, MADV_HUGEPAGE);
	if (!in_core)
		(void)madvise(p, len, MADV_DONTDUMP);
	if (wired && mlock(p, len) != 0)
		return -errno;
	return 0;
}

int memory_create(struct memory *mem, uint64_t size, bool wired, bool in_core)
{
	int err;

	memset(mem, 0, sizeof(*mem));
	if (size == 0 || size % MEMORY_PAGE != 0)
		return -EINVAL;
	if (size > UINT64_C(1) << 45 || !host_has(size))
		return -ENOMEM;
	mem->low = MIN(size, MEMORY_LOW_LIMIT);
	mem->high = size - mem->low;
	mem->span =
	    (mem->high > 0 ? MEMORY_HIGH_BASE + mem->high : mem->low) + MEMORY_PAGE;
	mem->base = reserve_aligned(mem->span);
	if (mem->base == NULL) {
		err = -ENOMEM;
		goto fail;
	}
	err = open_ram(mem->base, mem->low, wired, in_core);
	if (err == 0)
		err = open_ram(
		    mem->base + MEMORY_HIGH_BASE, mem->high, wired, in_core);
	if (err != 0)
		goto fail;
	mem->code = mmap(NULL, mem->span / MEMORY_PAGE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem->code == MAP_FAILED) {
		mem->code = NULL;
		err = -ENOMEM;
		goto fail;
	}
	return 0;
fail:
	memory_destroy(mem);
	return err;
}

void memory_destroy(struct memory *mem)
{
	if (mem->code != NULL)
		munmap((void *)mem->code, mem->span / MEMORY_PAGE);
	if (mem->base != NULL)
		munmap(mem->base, mem->span);
	memset(mem, 0, sizeof(*mem));
}

int memory_read(const struct memory *mem, uint64_t gpa, void *buf, size_t len)
{
	const void *p = memory_ptr(mem, gpa, len);

	if (p == NULL)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int memory_write(struct memory *mem, uint64_t gpa, const void *buf, size_t len)
{
	void *p = memory_ptr(mem, gpa, len);

	if (p == NULL)
		return -EFAULT;
	memcpy(p, buf, len);
	memory_written(mem, gpa, len);
	return 0;
}

void memory_written(struct memory *mem, uint64_t gpa, uint64_t len)
{
	if (len == 0 || mem->code_written == NULL || !memory_is_ram(mem, gpa, len))
		return;
	/*
	 * The write must be visible before code[] is read: a vCPU marks, then
	 * decodes.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	for (uint64_t page = gpa / MEMORY_PAGE;
	     page <= (gpa + len - 1) / MEMORY_PAGE; page++) {
		if (mem->code[page]) {
			mem->code_written(mem->code_arg, gpa, len);
			return;
		}
	}
}
