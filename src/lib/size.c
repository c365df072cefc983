/* Numbers and memory sizes as users type them (bhyve(8), -m). */
#include "lib/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "lib/util.h"

/* The number at s; *end behind it. strtoull() alone takes blanks and signs. */
static int parse_digits(const char *s, char **end, uint64_t *out)
{
	if (!isdigit((unsigned char)s[0]))
		return -EINVAL;
	errno = 0;
	*out = strtoull(s, end, 0);
	return errno == ERANGE ? -ERANGE : 0;
}

int size_parse_memory(const char *s, uint64_t *bytes)
{
	unsigned shift;
	uint64_t n;
	char *end;
	int error = parse_digits(s, &end, &n);

	if (error != 0)
		return error;
	switch (tolower((unsigned char)*end)) {
	case '\0':
		shift = n < MiB ? 20 : 0;
		end--;
		break;
	case 'k':
		shift = 10;
		break;
	case 'm':
		shift = 20;
		break;
	case 'g':
		shift = 30;
		break;
	case 't':
		shift = 40;
		break;
	default:
		return -EINVAL;
	}
	if (end[1] != '\0')
		return -EINVAL;
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes = n << shift;
	return 0;
}

int number_parse(const char *s, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t n;
	char *end;
	int error = parse_digits(s, &end, &n);

	if (error != 0)
		return error;
	if (*end != '\0')
		return -EINVAL;
	if (n < min || n > max)
		return -ERANGE;
	*out = n;
	return 0;
}
