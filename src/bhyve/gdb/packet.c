/* See packet.h. */
#include "bhyve/gdb/packet.h"

#define ESCAPE 0x7d
#define FLIP   0x20

int gdb_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool gdb_hex_number(const char **p, uint64_t *v)
{
	const char *start = *p;

	for (*v = 0; gdb_hex_digit(**p) >= 0; (*p)++) {
		if (*p - start == 16)
			return false;
		*v = *v << 4 | (uint64_t)gdb_hex_digit(**p);
	}
	return *p != start;
}

void gdb_hex_encode(char *out, const void *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *b = bytes;

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[b[i] >> 4];
		out[2 * i + 1] = digits[b[i] & 15];
	}
}

bool gdb_hex_decode(void *bytes, const char *text, size_t n)
{
	uint8_t *b = bytes;

	for (size_t i = 0; i < n; i++) {
		int high = gdb_hex_digit(text[2 * i]), low;

		/* The text may end anywhere: look no further than its zero. */
		if (high < 0 || (low = gdb_hex_digit(text[2 * i + 1])) < 0)
			return false;
		b[i] = (uint8_t)(high << 4 | low);
	}
	return text[2 * n] == '\0';
}

static void begin(struct gdb_parser *p)
{
	p->state = GDB_DATA;
	p->too_long = p->sum_wrong = false;
	p->sum = 0;
	p->len = 0;
}

static void keep(struct gdb_parser *p, uint8_t byte)
{
	if (p->len < GDB_PACKET_MAX)
		p->buf[p->len++] = (char)byte;
	else
		p->too_long = true;
}

static enum gdb_event idle(struct gdb_parser *p, uint8_t byte)
{
	switch (byte) {
	case '$':
		begin(p);
		return GDB_MORE;
	case '+':
		return GDB_ACK;
	case '-':
		return GDB_NAK;
	case 3:
		return GDB_BREAK;
	default: /* noise of the line */
		return GDB_MORE;
	}
}

static void data(struct gdb_parser *p, uint8_t byte)
{
	switch (byte) {
	case '$': /* never part of a packet: the end of the last one was lost */
		begin(p);
		return;
	case '#':
		p->state = GDB_SUM1;
		return;
	case ESCAPE:
		p->state = GDB_ESCAPED;
		break;
	default:
		keep(p, byte);
	}
	p->sum += byte;
}

enum gdb_event gdb_parse(struct gdb_parser *p, uint8_t byte)
{
	switch (p->state) {
	case GDB_DATA:
		data(p, byte);
		return GDB_MORE;
	case GDB_ESCAPED:
		p->sum += byte;
		keep(p, byte ^ FLIP);
		p->state = GDB_DATA;
		return GDB_MORE;
	case GDB_SUM1:
		p->sum_wrong = gdb_hex_digit((char)byte) != p->sum >> 4;
		p->state = GDB_SUM2;
		return GDB_MORE;
	case GDB_SUM2:
		p->sum_wrong |= gdb_hex_digit((char)byte) != (p->sum & 15);
		p->state = GDB_IDLE;
		p->buf[p->len] = '\0';
		return p->sum_wrong || p->too_long ? GDB_BAD : GDB_PACKET;
	case GDB_IDLE:
		break;
	}
	return idle(p, byte);
}

size_t gdb_frame(char *out, const char *data_bytes, size_t len)
{
	uint8_t sum = 0;
	size_t n = 0;

	out[n++] = '$';
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)data_bytes[i];

		if (c == '$' || c == '#' || c == '*' || c == ESCAPE) {
			out[n++] = ESCAPE;
			sum += ESCAPE;
			c ^= FLIP;
		}
		out[n++] = (char)c;
		sum += c;
	}
	out[n++] = '#';
	gdb_hex_encode(out + n, &sum, 1);
	return n + 2;
}
