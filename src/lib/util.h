/* Small things every module uses. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#define ARRAY_SIZE(a)                 (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member)                                              \
	((type *)((char *)(p) - offsetof(type, member)))
#define MIN(a, b)                                                                  \
	({                                                                         \
		__auto_type _a = (a);                                              \
		__auto_type _b = (b);                                              \
		_a < _b ? _a : _b;                                                 \
	})
#define MAX(a, b)                                                                  \
	({                                                                         \
		__auto_type _a = (a);                                              \
		__auto_type _b = (b);                                              \
		_a > _b ? _a : _b;                                                 \
	})
/* n must be a power of two. */
#define ROUND_UP(v, n)   (((v) + ((n) - 1)) & ~((__typeof__(v))(n) - 1))
#define ROUND_DOWN(v, n) ((v) & ~((__typeof__(v))(n) - 1))
#define BIT(n)           (1u << (n))
#define BIT64(n)         (UINT64_C(1) << (n))
#define likely(x)        __builtin_expect(!!(x), 1)
#define unlikely(x)      __builtin_expect(!!(x), 0)
#define KiB              (UINT64_C(1) << 10)
#define MiB              (UINT64_C(1) << 20)
#define GiB              (UINT64_C(1) << 30)
