/* Doubles and floats with libm, rounding modes, exceptions' flags, denormals, NaNs. */
#include <fenv.h>
#include <float.h>
#include <math.h>

#include "sum.h"

static double any_double(void)
{
	union {
		uint64_t u;
		double d;
	} v = { .u = rnd() };

	return v.d;
}

/* NaNs' payloads may follow the order of operands, which is the compiler's choice. */
static void sum_double(double d)
{
	if (isnan(d))
		d = 1;
	sum_value(d);
}

static void libm(void)
{
	for (int i = 0; i < 50000; i++) {
		double x = (double)(int64_t)rnd() / 1e15, y = fabs(x) / 7 + 0.001;

		sum_double(sin(x) + cos(x));
		sum_double(tan(x));
		sum_double(exp(x / 20));
		sum_double(log(y));
		sum_double(pow(y, x / 3000));
		sum_double(atan2(x, y));
		sum_double(cbrt(x));
		sum_double(fmod(x, y));
		sum_double(remainder(x, y));
		sum_double(tgamma(y / 100));
		sum_value(sinf((float)x) + expf((float)x / 100));
	}
	sum_print("libm");
}

static void rounding(void)
{
	static const int mode[] = { FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO };

	for (int m = 0; m < 4; m++) {
		fesetround(mode[m]);
		for (int i = 0; i < 50000; i++) {
			volatile double a = (double)(int64_t)rnd(), b = (double)(int64_t)rnd();

			sum_double(a / b);
			sum_double(a * b);
			sum_double(a + b / 3);
			sum_double(sqrt(fabs(a)));
			sum_double(rint(a / 1e17));
			sum_value(lrint(a / 1e5));
			sum_value((float)a);
			sum_value((int64_t)(b / 5));
		}
	}
	fesetround(FE_TONEAREST);
	sum_print("rounding");
}

static void extremes(void)
{
	for (int i = 0; i < 200000; i++) {
		volatile double a = any_double(), b = any_double();

		feclearexcept(FE_ALL_EXCEPT);
		sum_double(a + b);
		sum_double(a * b);
		sum_double(a / b);
		sum_double(sqrt(a));
		sum_value((float)a == (float)a);
		sum_value((a < b) + 2 * (a == b) + 4 * (a != b) + 8 * (a >= b));
		sum_value(fetestexcept(FE_ALL_EXCEPT));
	}
	sum_print("extremes");
}

static void text(void)
{
	char s[64];

	for (int i = 0; i < 50000; i++) {
		double d = any_double();

		sum_bytes(s, (size_t)snprintf(s, sizeof(s), "%.17g", isnan(d) ? 0 : d));
		sum_bytes(s, (size_t)snprintf(s, sizeof(s), "%a", isnan(d) ? 0 : d));
	}
	sum_print("text");
}

int main(void)
{
	libm();
	rounding();
	extremes();
	text();
	return 0;
}
