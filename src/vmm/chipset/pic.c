/*
 * Two cascaded Intel 8259A with the PIIX's edge/level registers (0x4D0, 0x4D1).
 *
 * The pair has its own lock because CPUs acknowledge without the machine's. Its
 * output reaches the LAPICs' LINT0 and, as on chips with an IOAPIC, that one's pin
 * 0.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/machine.h"

#define ICW1      0x10u
#define ICW1_SNGL 0x02u
#define ICW1_IC4  0x01u
#define ICW4_AEOI 0x02u
#define ICW4_SFNM 0x10u
#define OCW3      0x08u
#define CASCADE   2u
/* System timer, keyboard, cascade, RTC and FPU are always edge-triggered. */
#define ELCR_MASK0 0xf8u
#define ELCR_MASK1 0xdeu

struct chip {
	uint8_t irr, isr, imr, lines, elcr;
	uint8_t base;   /* vector of input 0 */
	uint8_t lowest; /* input with the lowest priority */
	uint8_t owed;   /* ticks that follow the one waiting at input 0 */
	uint8_t icw;    /* which ICW the data port expects: 0 none, 2, 3, 4 */
	bool need_icw4, single, aeoi, rotate_aeoi, sfnm, special_mask, poll,
	    read_isr;
};

struct pic {
	struct machine *m;
	pthread_mutex_t lock;
	struct chip chip[2]; /* master, slave */
	bool out;
};

/* Position of the highest-priority set bit, 0 (highest) to 7; 8: none. */
static unsigned best(const struct chip *c, uint8_t bits)
{
	for (unsigned i = 0; i < 8; i++)
		if (bits & BIT((c->lowest + 1 + i) & 7))
			return i;
	return 8;
}

static unsigned input_at(const struct chip *c, unsigned position)
{
	return (c->lowest + 1 + position) & 7;
}

/* The input that asks for service and may, -1: none. */
static int requesting(const struct chip *c, bool master)
{
	uint8_t in_service = c->isr;
	unsigned want = best(c, c->irr & (uint8_t)~c->imr);

	if (want == 8)
		return -1;
	/* Special mask mode: masked inputs in service do not hold off others. */
	if (c->special_mask)
		in_service &= (uint8_t)~c->imr;
	/* Special fully nested: the slave may interrupt its own service. */
	if (c->sfnm && master && input_at(c, want) == CASCADE)
		in_service &= (uint8_t)~BIT(CASCADE);
	if (c->special_mask && (c->isr & BIT(input_at(c, want))))
		return -1;
	return want < best(c, in_service) ? (int)input_at(c, want) : -1;
}

static void chip_set(struct chip *c, unsigned input, bool level)
{
	uint8_t bit = (uint8_t)BIT(input);

	if (level) {
		if ((c->elcr & bit) || !(c->lines & bit))
			c->irr |= bit;
		c->lines |= bit;
	} else {
		/*
		 * An edge stays requested when its line falls. A real 8259A answers
		 * with a spurious interrupt 7 then; no software wants that.
		 */
		if (c->elcr & bit)
			c->irr &= (uint8_t)~bit;
		c->lines &= (uint8_t)~bit;
	}
}

/* After any change: cascade, then the output. */
static void update(struct pic *p)
{
	bool slave = requesting(&p->chip[1], false) >= 0;

	chip_set(&p->chip[0], CASCADE, slave);
	if (!slave)
		p->chip[0].irr &= (uint8_t)~BIT(CASCADE);
	bool out = requesting(&p->chip[0], true) >= 0;

	if (out == p->out)
		return;
	p->out = out;
	if (out)
		for (unsigned i = 0; i < p->m->ncpu; i++)
			lapic_assert_lint(p->m->vcpu[i].lapic, 0);
	if (p->m->ioapic != NULL)
		ioapic_set(p->m->ioapic, 0, out);
}

void pic_set(struct pic *p, unsigned irq, bool level)
{
	if (irq > 15 || irq == CASCADE)
		return;
	pthread_mutex_lock(&p->lock);
	chip_set(&p->chip[irq / 8], irq % 8, level);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

void pic_tick(struct pic *p, unsigned irq, unsigned n)
{
	struct chip *c = &p->chip[irq / 8];

	if (irq % 8 != 0)
		return;
	pthread_mutex_lock(&p->lock);
	if (n == 0 || (c->imr & 1))
		c->owed = 0;
	else
		c->owed = (uint8_t)MIN(c->owed + n - !(c->irr & 1), TICKS_MAX);
	if (n != 0) {
		chip_set(c, 0, false);
		chip_set(c, 0, true);
		update(p);
	}
	pthread_mutex_unlock(&p->lock);
}

static void acknowledge(struct chip *c, unsigned input)
{
	uint8_t bit = (uint8_t)BIT(input);

	if (input == 0 && c->owed != 0)
		c->owed--;
	else if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (c->aeoi) {
		if (c->rotate_aeoi)
			c->lowest = (uint8_t)input;
	} else {
		c->isr |= bit;
	}
}

int pic_ack(struct pic *p)
{
	int input, vector;

	pthread_mutex_lock(&p->lock);
	input = requesting(&p->chip[0], true);
	if (input < 0) {
		pthread_mutex_unlock(&p->lock);
		return -1;
	}
	if (input == CASCADE) {
		int slave = requesting(&p->chip[1], false);

		acknowledge(&p->chip[0], CASCADE);
		/*
		 * Gone meanwhile: the slave answers with its input 7, not in
		 * service.
		 */
		vector = p->chip[1].base + (slave < 0 ? 7 : slave);
		if (slave >= 0)
			acknowledge(&p->chip[1], (unsigned)slave);
		/*
		 * The slave drops its output during the cycle: the next is an edge
		 * again.
		 */
		p->chip[0].lines &= (uint8_t)~BIT(CASCADE);
	} else {
		acknowledge(&p->chip[0], (unsigned)input);
		vector = p->chip[0].base + input;
	}
	/* INT falls with the first INTA and rises again for what still waits. */
	p->out = false;
	if (p->m->ioapic != NULL)
		ioapic_set(p->m->ioapic, 0, false);
	update(p);
	pthread_mutex_unlock(&p->lock);
	return vector;
}

bool pic_pending(struct pic *p)
{
	pthread_mutex_lock(&p->lock);
	bool yes = requesting(&p->chip[0], true) >= 0;

	pthread_mutex_unlock(&p->lock);
	return yes;
}

static void write_icw1(struct chip *c, uint8_t v)
{
	uint8_t lines = c->lines, elcr = c->elcr, base = c->base;

	/* Starts anew: an edge is needed again; levels ask again at once. */
	memset(c, 0, sizeof(*c));
	c->lines = lines;
	c->elcr = elcr;
	c->base = base;
	c->irr = lines & elcr;
	c->lowest = 7;
	c->single = v & ICW1_SNGL;
	c->need_icw4 = v & ICW1_IC4;
	c->icw = 2;
}

/* OCW2: ends of interrupt and rotation. */
static void write_ocw2(struct chip *c, uint8_t v)
{
	bool rotate = v & 0x80, specific = v & 0x40, eoi = v & 0x20;
	unsigned input = v & 7, at;

	if (!eoi) {
		if (specific && rotate)
			c->lowest = (uint8_t)input;
		else if (!specific)
			c->rotate_aeoi = rotate;
		return;
	}
	if (!specific) {
		uint8_t in_service = c->isr;

		if (c->special_mask)
			in_service &= (uint8_t)~c->imr;
		at = best(c, in_service);
		if (at == 8)
			return;
		input = input_at(c, at);
	}
	c->isr &= (uint8_t)~BIT(input);
	if (rotate)
		c->lowest = (uint8_t)input;
}

static void write_command(struct chip *c, uint8_t v)
{
	if (v & ICW1) {
		write_icw1(c, v);
	} else if (v & OCW3) {
		if (v & 0x40)
			c->special_mask = v & 0x20;
		c->poll = v & 0x04;
		if (v & 0x02)
			c->read_isr = v & 0x01;
	} else {
		write_ocw2(c, v);
	}
}

static void write_data(struct chip *c, uint8_t v)
{
	switch (c->icw) {
	case 2:
		c->base = v & 0xf8;
		c->icw = !c->single ? 3 : c->need_icw4 ? 4 : 0;
		break;
	case 3: /* which input is the slave's is wired */
		c->icw = c->need_icw4 ? 4 : 0;
		break;
	case 4:
		c->aeoi = v & ICW4_AEOI;
		c->sfnm = v & ICW4_SFNM;
		c->icw = 0;
		break;
	default:
		c->imr = v;
		if (v & 1)
			c->owed = 0;
	}
}

static uint8_t read_poll(struct pic *p, unsigned n)
{
	struct chip *c = &p->chip[n];
	int input = requesting(c, n == 0);

	c->poll = false;
	if (input < 0)
		return 0;
	acknowledge(c, (unsigned)input);
	return (uint8_t)(0x80 | input);
}

static uint64_t port_read_at(struct pic *p, unsigned n, uint64_t off)
{
	struct chip *c = &p->chip[n];
	uint8_t v;

	pthread_mutex_lock(&p->lock);
	if (c->poll) {
		v = read_poll(p, n);
		update(p);
	} else if (off & 1) {
		v = c->imr;
	} else {
		v = c->read_isr ? c->isr : c->irr;
	}
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void port_write_at(struct pic *p, unsigned n, uint64_t off, uint8_t v)
{
	pthread_mutex_lock(&p->lock);
	if (off & 1)
		write_data(&p->chip[n], v);
	else
		write_command(&p->chip[n], v);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

/* Eight-bit chips on the bus: a word access is two byte cycles. */
static uint64_t read_pair(struct pic *p, unsigned n, uint64_t off, unsigned size)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= port_read_at(p, n, off + i) << i * 8;
	return v;
}

static void write_pair(
    struct pic *p, unsigned n, uint64_t off, unsigned size, uint64_t v)
{
	for (unsigned i = 0; i < size; i++)
		port_write_at(p, n, off + i, (uint8_t)(v >> i * 8));
}

static uint64_t master_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)vcpu;
	return read_pair(arg, 0, off, size);
}

static void master_write(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	(void)vcpu;
	write_pair(arg, 0, off, size, v);
}

static uint64_t slave_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	(void)vcpu;
	return read_pair(arg, 1, off, size);
}

static void slave_write(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	(void)vcpu;
	write_pair(arg, 1, off, size, v);
}

static uint64_t elcr_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pic *p = arg;
	uint64_t v = p->chip[0].elcr | p->chip[1].elcr << 8;

	(void)vcpu;
	(void)size;
	return v >> off * 8;
}

static void elcr_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pic *p = arg;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		struct chip *c = &p->chip[off + i];

		c->elcr = (uint8_t)(v >> i * 8) &
			  (off + i == 0 ? ELCR_MASK0 : ELCR_MASK1);
		c->irr |= c->lines & c->elcr;
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
}

int pic_create(struct machine *m, struct pic **out)
{
	struct pic *p = calloc(1, sizeof(*p));
	int err;

	if (p == NULL)
		return -ENOMEM;
	p->m = m;
	pthread_mutex_init(&p->lock, NULL);
	for (unsigned i = 0; i < 2; i++) {
		p->chip[i].lowest = 7;
		p->chip[i].imr = 0xff;
		p->chip[i].base =
		    i == 0 ? 0x08 : 0x70; /* as firmware leaves them */
	}
	err =
	    bus_add(m->io, "8259 master", 0x20, 2, 0, master_read, master_write, p);
	if (err == 0)
		err = bus_add(
		    m->io, "8259 slave", 0xa0, 2, 0, slave_read, slave_write, p);
	if (err == 0)
		err = bus_add(m->io, "ELCR", 0x4d0, 2, 0, elcr_read, elcr_write, p);
	if (err != 0) {
		pic_destroy(p);
		return err;
	}
	*out = p;
	return 0;
}

void pic_destroy(struct pic *p)
{
	if (p == NULL)
		return;
	pthread_mutex_destroy(&p->lock);
	free(p);
}
