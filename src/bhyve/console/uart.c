/*
 * 16550A UART (National Semiconductor PC16550D data sheet, June 1995).
 *
 * Invariants: a byte the guest wrote is kept until the back end took it, and
 * THRE/TEMT are set only then, so a slow reader slows the guest and loses
 * nothing (a guest that ignores THRE has TX_ROOM bytes of grace). The host is
 * read only while the receiver has room, so the receiver overruns in loopback
 * alone. The line has no speed: four character times have always passed, so a
 * receive FIFO below its trigger level raises the time-out interrupt at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/console/console.h"
#include "lib/util.h"

#define FIFO_SIZE 16
#define TX_ROOM   65536u /* power of two */

enum { /* registers; 0-1 are the divisor while LCR_DLAB is set */
	REG_DATA,
	REG_IER,
	REG_IIR,
	REG_LCR,
	REG_MCR,
	REG_LSR,
	REG_MSR,
	REG_SCR,
	REG_FCR = REG_IIR,
};

#define IER_RDA     BIT(0)
#define IER_THRE    BIT(1)
#define IER_LINE    BIT(2)
#define IER_MSR     BIT(3)
#define IER_ALL     (IER_RDA | IER_THRE | IER_LINE | IER_MSR)

#define IIR_MSR     0x00
#define IIR_NONE    0x01
#define IIR_THRE    0x02
#define IIR_RDA     0x04
#define IIR_LINE    0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO    0xc0

#define FCR_ENABLE  BIT(0)
#define FCR_RX_RST  BIT(1)
#define FCR_DMA     BIT(3)
#define FCR_TRIGGER 0xc0

#define LCR_BREAK   BIT(6)
#define LCR_DLAB    BIT(7)

#define MCR_DTR     BIT(0)
#define MCR_RTS     BIT(1)
#define MCR_OUT1    BIT(2)
#define MCR_OUT2    BIT(3)
#define MCR_LOOP    BIT(4)
#define MCR_ALL     0x1f

#define LSR_DR      BIT(0)
#define LSR_OE      BIT(1)
#define LSR_BI      BIT(4)
#define LSR_THRE    BIT(5)
#define LSR_TEMT    BIT(6)
#define LSR_ERRORS  (LSR_OE | LSR_BI)

#define MSR_DCTS    BIT(0)
#define MSR_DDSR    BIT(1)
#define MSR_TERI    BIT(2)
#define MSR_DDCD    BIT(3)
#define MSR_CTS     BIT(4)
#define MSR_DSR     BIT(5)
#define MSR_RI      BIT(6)
#define MSR_DCD     BIT(7)
#define MSR_DELTA   0x0f

struct uart {
	void (*irq)(void *arg, bool level);
	void *irq_arg;
	struct chardev *back;

	uint8_t ier, fcr, lcr, mcr, msr, scr, dll, dlm;
	uint8_t errors;             /* LSR_OE, LSR_BI until LSR is read */
	bool thre_pending;          /* the THRE interrupt, until IIR is read */
	bool line;                  /* what irq() last said */
	bool want_read, want_write; /* what chardev_poll() last said */

	uint8_t rx[FIFO_SIZE];
	unsigned rx_head, rx_count;
	uint8_t *tx; /* ring of TX_ROOM bytes */
	unsigned tx_head, tx_count;
};

static unsigned rx_size(const struct uart *u)
{
	return (u->fcr & FCR_ENABLE) != 0 ? FIFO_SIZE : 1;
}

static unsigned rx_trigger(const struct uart *u)
{
	static const uint8_t levels[] = { 1, 4, 8, 14 };

	return (u->fcr & FCR_ENABLE) != 0 ? levels[u->fcr >> 6] : 1;
}

/* The interrupt of highest priority, without the FIFO bits. */
static uint8_t reason(const struct uart *u)
{
	if ((u->ier & IER_LINE) != 0 && u->errors != 0)
		return IIR_LINE;
	if ((u->ier & IER_RDA) != 0 && u->rx_count > 0)
		return u->rx_count >= rx_trigger(u) ? IIR_RDA : IIR_TIMEOUT;
	if ((u->ier & IER_THRE) != 0 && u->thre_pending)
		return IIR_THRE;
	if ((u->ier & IER_MSR) != 0 && (u->msr & MSR_DELTA) != 0)
		return IIR_MSR;
	return IIR_NONE;
}

static void update_line(struct uart *u)
{
	bool level = reason(u) != IIR_NONE;

	if (level != u->line) {
		u->line = level;
		u->irq(u->irq_arg, level);
	}
}

static void update_poll(struct uart *u)
{
	bool want_read = (u->mcr & MCR_LOOP) == 0 && u->rx_count < rx_size(u);
	bool want_write = u->tx_count > 0;

	if (u->back == NULL ||
	    (want_read == u->want_read && want_write == u->want_write))
		return;
	u->want_read = want_read;
	u->want_write = want_write;
	chardev_poll(u->back, want_read, want_write);
}

static void rx_push(struct uart *u, uint8_t byte)
{
	unsigned size = rx_size(u);

	if (u->rx_count >= size) {
		u->errors |= LSR_OE;
		/*
		 * Without FIFO the new byte replaces the old; with it, it is lost.
		 */
		if (size == 1)
			u->rx[u->rx_head] = byte;
		return;
	}
	u->rx[(u->rx_head + u->rx_count) % FIFO_SIZE] = byte;
	u->rx_count++;
}

/* Takes what the back end has while there is room. */
static void receive(struct uart *u)
{
	uint8_t buf[FIFO_SIZE];
	size_t room, n;

	if (u->back != NULL && (u->mcr & MCR_LOOP) == 0) {
		room = rx_size(u) - MIN(u->rx_count, rx_size(u));
		n = room > 0 ? chardev_read(u->back, buf, room) : 0;
		for (size_t i = 0; i < n; i++)
			rx_push(u, buf[i]);
	}
	update_poll(u);
	update_line(u);
}

/* Gives the back end what waits; empty raises THRE. */
static void transmit(struct uart *u)
{
	while (u->tx_count > 0) {
		size_t run = MIN(u->tx_count, TX_ROOM - u->tx_head);
		size_t n = u->back != NULL
			       ? chardev_write(u->back, u->tx + u->tx_head, run)
			       : run;

		if (n == 0)
			break;
		u->tx_head = (u->tx_head + (unsigned)n) % TX_ROOM;
		u->tx_count -= (unsigned)n;
	}
	if (u->tx_count == 0)
		u->thre_pending = true;
	update_poll(u);
	update_line(u);
}

static void on_readable(void *arg)
{
	receive(arg);
}

static void on_writable(void *arg)
{
	struct uart *u = arg;

	if (u->tx_count > 0)
		transmit(u);
}

static void write_data(struct uart *u, uint8_t v)
{
	/* The line drops before it may rise again: an edge for each byte. */
	u->thre_pending = false;
	update_line(u);
	if ((u->mcr & MCR_LOOP) != 0) {
		rx_push(u, v);
		u->thre_pending = u->tx_count == 0;
		update_line(u);
		return;
	}
	if (u->tx_count < TX_ROOM) {
		u->tx[(u->tx_head + u->tx_count) % TX_ROOM] = v;
		u->tx_count++;
	}
	/* While it waits, writable() continues: no system call for each byte. */
	if (!u->want_write)
		transmit(u);
}

static uint8_t read_data(struct uart *u)
{
	uint8_t v = u->rx[u->rx_head];

	if (u->rx_count == 0)
		return 0;
	u->rx_head = (u->rx_head + 1) % FIFO_SIZE;
	u->rx_count--;
	/* Ask the back end before polling it: input often comes in runs. */
	if (u->rx_count == 0 && !u->want_read)
		receive(u);
	else
		update_line(u);
	return v;
}

static void write_ier(struct uart *u, uint8_t v)
{
	/* Enabling THRE while the transmitter is empty interrupts at once. */
	if ((v & IER_THRE) != 0 && (u->ier & IER_THRE) == 0 && u->tx_count == 0)
		u->thre_pending = true;
	u->ier = v & IER_ALL;
	update_line(u);
}

static void write_fcr(struct uart *u, uint8_t v)
{
	/*
	 * What was sent is on the wire: resetting the transmitter takes nothing
	 * back.
	 */
	if (((v ^ u->fcr) & FCR_ENABLE) != 0 || (v & FCR_RX_RST) != 0)
		u->rx_head = u->rx_count = 0;
	u->fcr =
	    (v & FCR_ENABLE) != 0 ? v & (FCR_ENABLE | FCR_DMA | FCR_TRIGGER) : 0;
	receive(u);
}

static uint8_t modem_lines(const struct uart *u)
{
	uint8_t msr = 0;

	/* Carrier is always there, so that opening the port does not wait. */
	if ((u->mcr & MCR_LOOP) == 0)
		return MSR_DCD | MSR_DSR | MSR_CTS;
	if ((u->mcr & MCR_DTR) != 0)
		msr |= MSR_DSR;
	if ((u->mcr & MCR_RTS) != 0)
		msr |= MSR_CTS;
	if ((u->mcr & MCR_OUT1) != 0)
		msr |= MSR_RI;
	if ((u->mcr & MCR_OUT2) != 0)
		msr |= MSR_DCD;
	return msr;
}

static void write_mcr(struct uart *u, uint8_t v)
{
	uint8_t old = u->msr, changed;

	u->mcr = v & MCR_ALL;
	u->msr = modem_lines(u) | (old & MSR_DELTA);
	changed = old ^ u->msr;
	if ((changed & MSR_CTS) != 0)
		u->msr |= MSR_DCTS;
	if ((changed & MSR_DSR) != 0)
		u->msr |= MSR_DDSR;
	if ((changed & MSR_DCD) != 0)
		u->msr |= MSR_DDCD;
	if ((changed & MSR_RI) != 0 && (old & MSR_RI) != 0)
		u->msr |= MSR_TERI;
	receive(u);
}

static void write_lcr(struct uart *u, uint8_t v)
{
	bool rises = (v & LCR_BREAK) != 0 && (u->lcr & LCR_BREAK) == 0;

	u->lcr = v;
	if (rises && (u->mcr & MCR_LOOP) != 0) {
		rx_push(u, 0);
		u->errors |= LSR_BI;
		update_line(u);
	}
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t v = reason(u);

	if (v == IIR_THRE) {
		u->thre_pending = false;
		update_line(u);
	}
	return (u->fcr & FCR_ENABLE) != 0 ? v | IIR_FIFO : v;
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t v = u->errors;

	if (u->rx_count > 0)
		v |= LSR_DR;
	if (u->tx_count == 0)
		v |= LSR_THRE | LSR_TEMT;
	if (u->errors != 0) {
		u->errors = 0;
		update_line(u);
	}
	return v;
}

static uint8_t read_msr(struct uart *u)
{
	uint8_t v = u->msr;

	u->msr &= (uint8_t)~MSR_DELTA;
	update_line(u);
	return v;
}

uint8_t uart_read(struct uart *u, unsigned reg)
{
	bool dlab = (u->lcr & LCR_DLAB) != 0;

	switch (reg) {
	case REG_DATA:
		return dlab ? u->dll : read_data(u);
	case REG_IER:
		return dlab ? u->dlm : u->ier;
	case REG_IIR:
		return read_iir(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return read_lsr(u);
	case REG_MSR:
		return read_msr(u);
	case REG_SCR:
		return u->scr;
	default:
		return 0xff;
	}
}

void uart_write(struct uart *u, unsigned reg, uint8_t v)
{
	bool dlab = (u->lcr & LCR_DLAB) != 0;

	switch (reg) {
	case REG_DATA:
		if (dlab)
			u->dll = v;
		else
			write_data(u, v);
		break;
	case REG_IER:
		if (dlab)
			u->dlm = v;
		else
			write_ier(u, v);
		break;
	case REG_FCR:
		write_fcr(u, v);
		break;
	case REG_LCR:
		write_lcr(u, v);
		break;
	case REG_MCR:
		write_mcr(u, v);
		break;
	case REG_SCR:
		u->scr = v;
		break;
	default: /* LSR and MSR are for reading */
		break;
	}
}

int uart_create(struct uart **out, void (*irq)(void *arg, bool level), void *arg)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (u == NULL)
		return -ENOMEM;
	u->tx = malloc(TX_ROOM);
	if (u->tx == NULL) {
		free(u);
		return -ENOMEM;
	}
	u->irq = irq;
	u->irq_arg = arg;
	u->dll = 12; /* 9600 baud */
	u->msr = modem_lines(u);
	*out = u;
	return 0;
}

void uart_attach(struct uart *u, struct chardev *c)
{
	u->back = c;
	chardev_set_callbacks(c, on_readable, on_writable, u);
	u->want_read = u->want_write = false;
	update_poll(u);
}

void uart_destroy(struct uart *u)
{
	if (u == NULL)
		return;
	/* The guest's last words. */
	while (u->tx_count > 0 && u->back != NULL) {
		size_t run = MIN(u->tx_count, TX_ROOM - u->tx_head);

		chardev_flush(u->back, u->tx + u->tx_head, run);
		u->tx_head = (u->tx_head + (unsigned)run) % TX_ROOM;
		u->tx_count -= (unsigned)run;
	}
	chardev_close(u->back);
	free(u->tx);
	free(u);
}
