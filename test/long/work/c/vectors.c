/*
 * SSE to AVX2 through intrinsics and the compiler's vectoriser; the state of many
 * vector registers across system calls and switches of threads.
 */
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "sum.h"

#define N 4096

static uint8_t a8[N], b8[N], r8[N];
static float af[N], bf[N], rf[N];
static double ad[N], bd[N], rd[N];

static void fill(void)
{
	for (int i = 0; i < N; i++) {
		a8[i] = (uint8_t)rnd();
		b8[i] = (uint8_t)rnd();
		af[i] = (float)(int32_t)rnd() / 1000;
		bf[i] = (float)(int32_t)rnd() / 777;
		ad[i] = (double)(int64_t)rnd() / 1e9;
		bd[i] = (double)(int64_t)rnd() / 1e8;
	}
}

static void loops(void)
{
	for (int n = 0; n < 200; n++) {
		for (int i = 0; i < N; i++)
			r8[i] = (uint8_t)(a8[i] > b8[i] ? a8[i] - b8[i] : b8[i] * 3);
		for (int i = 0; i < N; i++)
			rf[i] = af[i] * bf[i] + (float)n;
		for (int i = 0; i < N; i++)
			rd[i] = ad[i] / (bd[i] + n) - ad[i];
		sum_bytes(r8, sizeof(r8));
		sum_bytes(rf, sizeof(rf));
		sum_bytes(rd, sizeof(rd));
	}
	sum_print("loops");
}

__attribute__((target("ssse3,sse4.1,sse4.2,pclmul,aes"))) static void sse(void)
{
	__m128i acc = _mm_setzero_si128();

	for (int n = 0; n < 100; n++) {
		for (int i = 0; i + 16 <= N; i += 16) {
			__m128i x = _mm_loadu_si128((const __m128i *)(a8 + i));
			__m128i y = _mm_loadu_si128((const __m128i *)(b8 + i));

			acc = _mm_add_epi32(acc, _mm_shuffle_epi8(x, y));
			acc = _mm_xor_si128(acc, _mm_maddubs_epi16(x, y));
			acc = _mm_add_epi64(acc, _mm_mpsadbw_epu8(x, y, 5));
			acc = _mm_xor_si128(acc, _mm_clmulepi64_si128(x, acc, 0x01));
			acc = _mm_aesenc_si128(acc, y);
			acc = _mm_blendv_epi8(acc, x, y);
			acc = _mm_insert_epi32(acc, _mm_cmpestri(x, 7, y, 9, 0x0c), 1);
			acc = _mm_insert_epi32(acc,
			    (int)_mm_crc32_u32((unsigned)_mm_extract_epi32(acc, 2),
				(unsigned)i), 2);
			acc = _mm_packus_epi32(acc, _mm_unpacklo_epi8(acc, y));
		}
	}
	sum_bytes(&acc, sizeof(acc));
	sum_print("sse");
}

__attribute__((target("avx2,fma,bmi,bmi2,f16c"))) static void avx(void)
{
	__m256i acc = _mm256_setzero_si256();
	__m256d facc = _mm256_setzero_pd();
	uint64_t bits = 1;

	for (int n = 0; n < 100; n++) {
		for (int i = 0; i + 32 <= N; i += 32) {
			__m256i x = _mm256_loadu_si256((const __m256i *)(a8 + i));
			__m256i y = _mm256_loadu_si256((const __m256i *)(b8 + i));
			__m256i at = _mm256_and_si256(x, _mm256_set1_epi32(N / 4 - 1));

			acc = _mm256_add_epi32(acc,
			    _mm256_i32gather_epi32((const int *)(const void *)a8, at, 4));
			acc = _mm256_xor_si256(acc, _mm256_permutevar8x32_epi32(x, y));
			acc = _mm256_sllv_epi32(acc, _mm256_srli_epi32(y, 27));
			acc = _mm256_add_epi64(acc, _mm256_sad_epu8(x, y));
			facc = _mm256_fmadd_pd(_mm256_loadu_pd(ad + i / 8),
			    _mm256_loadu_pd(bd + i / 8), _mm256_mul_pd(facc,
				_mm256_set1_pd(0.5)));
			_mm256_maskstore_ps(rf + i, x, _mm256_castsi256_ps(acc));
			bits = _pext_u64(_mulx_u64(bits | 1, rnd(),
				(unsigned long long *)&bits), 0x5555ffff0f0f3333u) ^
			    _pdep_u64(bits, 0xf0f0aaaa5555ccccu) ^ _bzhi_u64(bits, (unsigned)i & 63);
		}
	}
	sum_bytes(&acc, sizeof(acc));
	sum_bytes(&facc, sizeof(facc));
	sum_value(bits);
	sum_print("avx");
}

/* Each thread keeps its own values in vector registers and gives the CPU away. */
static void *keep(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg, bad = 0;
	double v[4] = { (double)me, (double)me + 1, (double)me + 2, (double)me + 3 }, w[4];

	for (int i = 0; i < 3000; i++) {
		__asm__ volatile("vmovupd %1, %%ymm3\n\tvmovupd %1, %%ymm9\n\t"
				 "vmovupd %1, %%ymm15\n\t"
				 "mov $24, %%eax\n\tsyscall\n\t" /* sched_yield */
				 "vaddpd %%ymm3, %%ymm9, %%ymm9\n\t"
				 "vaddpd %%ymm9, %%ymm15, %%ymm15\n\t"
				 "vmovupd %%ymm15, %0\n\tvzeroupper"
		    : "=m"(w)
		    : "m"(v)
		    : "rax", "rcx", "r11", "xmm3", "xmm9", "xmm15", "memory");
		for (int j = 0; j < 4; j++)
			bad += w[j] != 3 * v[j];
	}
	return (void *)(uintptr_t)bad;
}

static void switches(void)
{
	pthread_t t[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, keep, (void *)(i * 1000 + 7));
	for (int i = 0; i < 4; i++) {
		void *bad;

		pthread_join(t[i], &bad);
		sum_value((uint64_t)(uintptr_t)bad);
		if (bad)
			printf("thread %d lost %lu values\n", i, (unsigned long)bad);
	}
	sum_print("switches");
}

int main(void)
{
	fill();
	loops();
	if (__builtin_cpu_supports("sse4.2"))
		sse();
	if (__builtin_cpu_supports("avx2")) {
		avx();
		switches();
	}
	return 0;
}
