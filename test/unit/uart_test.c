/*
 * The 16550A: FIFO, interrupts and their order, loopback, and that no byte is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bhyve/console/console.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

/* A back end in the test's hands. */
struct chardev {
	char input[256], output[4096];
	size_t in_len, in_pos, out_len, out_room;
	bool want_read, want_write, closed;
	unsigned reads, writes, polls;
	void (*readable)(void *arg);
	void (*writable)(void *arg);
	void *arg;
};

size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len)
{
	size_t n = len < c->out_room ? len : c->out_room;

	c->writes++;
	memcpy(c->output + c->out_len, buf, n);
	c->out_len += n;
	c->out_room -= n;
	return n;
}

size_t chardev_read(struct chardev *c, uint8_t *buf, size_t len)
{
	size_t left = c->in_len - c->in_pos, n = len < left ? len : left;

	c->reads++;
	memcpy(buf, c->input + c->in_pos, n);
	c->in_pos += n;
	return n;
}

void chardev_poll(struct chardev *c, bool want_read, bool want_write)
{
	c->polls++;
	c->want_read = want_read;
	c->want_write = want_write;
}

void chardev_set_callbacks(struct chardev *c, void (*readable)(void *arg),
    void (*writable)(void *arg), void *arg)
{
	c->readable = readable;
	c->writable = writable;
	c->arg = arg;
}

void chardev_flush(struct chardev *c, const uint8_t *buf, size_t len)
{
	c->out_room = sizeof(c->output) - c->out_len;
	chardev_write(c, buf, len);
}

void chardev_close(struct chardev *c)
{
	if (c != NULL)
		c->closed = true;
}

struct fixture {
	struct uart *u;
	struct chardev c;
	bool line;
	unsigned edges;
};

static void on_irq(void *arg, bool level)
{
	struct fixture *f = arg;

	assert_int_not_equal(level, f->line); /* called on changes only */
	f->line = level;
	f->edges += level;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->c.out_room = sizeof(f->c.output);
	*state = f;
	if (uart_create(&f->u, on_irq, f) != 0)
		return -1;
	uart_attach(f->u, &f->c);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	uart_destroy(f->u);
	assert_true(f->c.closed);
	free(f);
	return 0;
}

static void type(struct fixture *f, const char *text)
{
	f->c.in_pos = 0;
	f->c.in_len = strlen(text);
	memcpy(f->c.input, text, f->c.in_len);
	if (f->c.want_read)
		f->c.readable(f->c.arg);
}

static void reset_state(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(uart_read(f->u, LSR), 0x60);
	assert_int_equal(uart_read(f->u, IIR), 0x01);
	assert_int_equal(uart_read(f->u, IER), 0);
	assert_int_equal(uart_read(f->u, LCR), 0);
	assert_int_equal(uart_read(f->u, MCR), 0);
	assert_int_equal(uart_read(f->u, MSR), 0xb0);
	uart_write(f->u, SCR, 0x5a);
	assert_int_equal(uart_read(f->u, SCR), 0x5a);
	uart_write(f->u, IER, 0xff);
	assert_int_equal(uart_read(f->u, IER), 0x0f);
	uart_write(f->u, MCR, 0xff);
	assert_int_equal(uart_read(f->u, MCR), 0x1f);
	uart_write(f->u, FCR, 0x01);
	assert_int_equal(uart_read(f->u, IIR) & 0xc0, 0xc0);
	uart_write(f->u, FCR, 0x00);
	assert_int_equal(uart_read(f->u, IIR) & 0xc0, 0);
	assert_int_equal(uart_read(f->u, 8), 0xff);
}

static void divisor_latch(void **state)
{
	struct fixture *f = *state;

	uart_write(f->u, LCR, 0x83);
	uart_write(f->u, DATA, 0x01);
	uart_write(f->u, IER, 0x02);
	assert_int_equal(uart_read(f->u, DATA), 0x01);
	assert_int_equal(uart_read(f->u, IER), 0x02);
	uart_write(f->u, LCR, 0x03);
	assert_int_equal(uart_read(f->u, IER), 0);
	assert_int_equal(f->c.out_len, 0);
	assert_int_equal(f->edges, 0);
}

static void receive_stops_when_full(void **state)
{
	struct fixture *f = *state;

	uart_write(f->u, FCR, 0x01);
	type(f, "0123456789abcdefghij");
	assert_int_equal(f->c.in_pos, 16);
	assert_false(f->c.want_read);
	assert_int_equal(uart_read(f->u, LSR), 0x61);
	for (const char *p = "0123456789abcdefghij"; *p != '\0'; p++)
		assert_int_equal(uart_read(f->u, DATA), *p);
	assert_int_equal(uart_read(f->u, LSR), 0x60);
	assert_true(f->c.want_read);
	assert_int_equal(uart_read(f->u, DATA), 0);
}

static void receive_without_fifo(void **state)
{
	struct fixture *f = *state;

	type(f, "xyz");
	assert_int_equal(f->c.in_pos, 1);
	assert_int_equal(uart_read(f->u, DATA), 'x');
	assert_int_equal(uart_read(f->u, DATA), 'y');
	assert_int_equal(uart_read(f->u, DATA), 'z');
}

static void trigger_levels_and_timeout(void **state)
{
	static const struct {
		uint8_t fcr;
		unsigned level;
	} cases[] = { { 0x01, 1 }, { 0x41, 4 }, { 0x81, 8 }, { 0xc1, 14 } };
	struct fixture *f = *state;

	uart_write(f->u, IER, 0x01);
	for (size_t i = 0; i < 4; i++) {
		uart_write(f->u, FCR, cases[i].fcr | 0x02);
		type(f, "0123456789abcdef");
		for (unsigned left = 16; left > 0; left--) {
			assert_true(f->line);
			assert_int_equal(uart_read(f->u, IIR) & 0x0f,
			    left >= cases[i].level ? 0x04 : 0x0c);
			uart_read(f->u, DATA);
		}
		assert_false(f->line);
	}
	assert_int_equal(f->edges, 4);
}

static void fifo_reset(void **state)
{
	struct fixture *f = *state;

	uart_write(f->u, FCR, 0x01);
	type(f, "abc");
	uart_write(f->u, FCR, 0x03);
	assert_int_equal(uart_read(f->u, LSR) & 1, 0);
	type(f, "abc");
	uart_write(f->u, FCR, 0x00); /* turning the FIFO off empties it */
	assert_int_equal(uart_read(f->u, LSR) & 1, 0);
}

static void slow_reader_loses_nothing(void **state)
{
	struct fixture *f = *state;
	char sent[1000];
	size_t n = 0;

	uart_write(f->u, FCR, 0x01);
	f->c.out_room = 3;
	/*
	 * A guest that writes 16 bytes whenever THRE says so, and 5 times too
	 * often.
	 */
	while (n < sizeof(sent)) {
		bool empty = (uart_read(f->u, LSR) & 0x20) != 0;

		assert_int_equal(empty, !f->c.want_write);
		for (unsigned i = 0;
		     (empty || n % 200 == 0) && i < 16 && n < sizeof(sent); i++) {
			sent[n] = (char)('A' + n % 53);
			uart_write(f->u, DATA, (uint8_t)sent[n++]);
		}
		f->c.out_room = 7;
		if (f->c.want_write)
			f->c.writable(f->c.arg);
	}
	while (f->c.want_write) {
		f->c.out_room = 5;
		f->c.writable(f->c.arg);
	}
	assert_int_equal(f->c.out_len, sizeof(sent));
	assert_memory_equal(f->c.output, sent, sizeof(sent));
	assert_int_equal(uart_read(f->u, LSR), 0x60);
}

static void last_words_are_flushed(void **state)
{
	struct fixture *f = *state;

	f->c.out_room = 0;
	uart_write(f->u, DATA, 'b');
	uart_write(f->u, DATA, 'y');
	uart_write(f->u, DATA, 'e');
	uart_destroy(f->u);
	assert_memory_equal(f->c.output, "bye", 3);
	assert_int_equal(f->c.out_len, 3);
	assert_int_equal(uart_create(&f->u, on_irq, f), 0);
	f->c.closed = false;
	uart_attach(f->u, &f->c);
}

static void transmit_interrupts(void **state)
{
	struct fixture *f = *state;

	/* Enabling while empty interrupts; reading IIR takes it away. */
	uart_write(f->u, IER, 0x02);
	assert_true(f->line);
	assert_int_equal(uart_read(f->u, IIR), 0x02);
	assert_false(f->line);
	assert_int_equal(uart_read(f->u, IIR), 0x01);
	/* Every byte sent gives an edge, also when IIR was not read in between. */
	for (int i = 0; i < 3; i++)
		uart_write(f->u, DATA, 'x');
	assert_int_equal(f->edges, 4);
	/* A byte that waits takes the interrupt away until it is gone. */
	f->c.out_room = 0;
	uart_write(f->u, DATA, 'y');
	assert_false(f->line);
	assert_int_equal(uart_read(f->u, IIR), 0x01);
	f->c.out_room = 1;
	f->c.writable(f->c.arg);
	assert_true(f->line);
	assert_int_equal(uart_read(f->u, IIR), 0x02);
}

static void priorities(void **state)
{
	struct fixture *f = *state;

	uart_write(f->u, MCR, 0x10); /* loopback: all sources at hand */
	uart_read(f->u, MSR);
	uart_write(f->u, DATA, 'a');
	uart_write(f->u, DATA, 'b'); /* overrun without FIFO */
	uart_write(f->u, MCR, 0x11); /* DTR -> DSR */
	uart_write(f->u, IER, 0x0f);
	assert_int_equal(uart_read(f->u, IIR), 0x06);
	assert_int_equal(uart_read(f->u, LSR), 0x63);
	assert_int_equal(uart_read(f->u, IIR), 0x04);
	assert_int_equal(uart_read(f->u, DATA), 'b');
	assert_int_equal(uart_read(f->u, IIR), 0x02);
	assert_int_equal(uart_read(f->u, IIR), 0x00);
	assert_int_equal(uart_read(f->u, MSR), 0x22);
	assert_int_equal(uart_read(f->u, IIR), 0x01);
	assert_false(f->line);
	assert_int_equal(f->edges, 1);
}

static void loopback(void **state)
{
	struct fixture *f = *state;

	uart_write(f->u, FCR, 0x01);
	uart_write(f->u, MCR, 0x1f);
	assert_false(f->c.want_read); /* the outside is cut off */
	assert_int_equal(uart_read(f->u, MSR) & 0xf0, 0xf0);
	uart_write(f->u, MCR, 0x1a);
	assert_int_equal(
	    uart_read(f->u, MSR), 0x96); /* DSR and RI went, CTS and DCD stay */
	for (unsigned i = 0; i < 17; i++)
		uart_write(f->u, DATA, (uint8_t)i);
	assert_int_equal(uart_read(f->u, LSR), 0x63);
	assert_int_equal(uart_read(f->u, LSR), 0x61);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(uart_read(f->u, DATA), i);
	assert_int_equal(uart_read(f->u, LSR), 0x60);
	uart_write(f->u, LCR, 0x40);
	assert_int_equal(uart_read(f->u, LSR), 0x71);
	assert_int_equal(uart_read(f->u, DATA), 0);
	assert_int_equal(f->c.out_len, 0);
	uart_write(f->u, MCR, 0x00);
	assert_true(f->c.want_read);
}

static void without_back_end(void **state)
{
	struct fixture *f = *state;
	struct uart *u;

	assert_int_equal(uart_create(&u, on_irq, f), 0);
	for (int i = 0; i < 100000; i++)
		uart_write(u, DATA, 'x');
	assert_int_equal(uart_read(u, LSR), 0x60);
	uart_destroy(u);
}

/* Any register with any value: the sanitizers watch. */
static void random_accesses(void **state)
{
	struct fixture *f = *state;

	srandom(16550);
	for (int i = 0; i < 200000; i++) {
		long r = random();

		f->c.out_len = 0;
		f->c.out_room = (size_t)(r >> 20 & 31);
		if ((r & 7) == 0)
			type(f, "some input that is longer than the FIFO is");
		if ((r & 15) == 1 && f->c.want_write)
			f->c.writable(f->c.arg);
		if ((r & 16) != 0)
			uart_write(f->u, (unsigned)(r >> 5 & 7), (uint8_t)(r >> 8));
		else
			uart_read(f->u, (unsigned)(r >> 5 & 7));
	}
	f->c.out_room = 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(reset_state),
		TEST(divisor_latch),
		TEST(receive_stops_when_full),
		TEST(receive_without_fifo),
		TEST(trigger_levels_and_timeout),
		TEST(fifo_reset),
		TEST(slow_reader_loses_nothing),
		TEST(last_words_are_flushed),
		TEST(transmit_interrupts),
		TEST(priorities),
		TEST(loopback),
		TEST(without_back_end),
		TEST(random_accesses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
