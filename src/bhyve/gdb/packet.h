/*
 * Packets of GDB's remote serial protocol ("$data#sum"), see the GDB manual,
 * "Remote Protocol", Overview. Bytes come from anybody who can connect: a packet is
 * kept up to GDB_PACKET_MAX bytes, a longer one is read to its end and refused.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_PACKET_MAX 0x4000u
/* A framed packet of so many bytes, each of them escaped. */
#define GDB_FRAME_MAX(len) (2 * (len) + 4)

enum gdb_event {
	GDB_MORE,   /* nothing yet */
	GDB_PACKET, /* buf holds len bytes, unescaped, and a zero behind them */
	GDB_BAD,    /* a packet with a wrong sum, or too long */
	GDB_BREAK,  /* Control-C */
	GDB_ACK,
	GDB_NAK,
};

struct gdb_parser {
	enum { GDB_IDLE, GDB_DATA, GDB_ESCAPED, GDB_SUM1, GDB_SUM2 } state;
	bool too_long, sum_wrong;
	uint8_t sum;
	size_t len;
	char buf[GDB_PACKET_MAX + 1];
};

/* All zeros is a parser at its begin. */
enum gdb_event gdb_parse(struct gdb_parser *p, uint8_t byte);
/* "$data#sum" with what must be escaped escaped; how many bytes. */
size_t gdb_frame(char *out, const char *data, size_t len);

/* -1: not a hexadecimal digit. */
int gdb_hex_digit(char c);
/* One to sixteen digits at *p, which moves behind them. False: none, or more. */
bool gdb_hex_number(const char **p, uint64_t *v);
/* 2 * n digits and no zero. */
void gdb_hex_encode(char *out, const void *bytes, size_t n);
/* Exactly 2 * n digits. */
bool gdb_hex_decode(void *bytes, const char *text, size_t n);
