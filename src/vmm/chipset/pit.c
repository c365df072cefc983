/*
 * The Intel 8254 (1193182 Hz) and port 0x61.
 *
 * Nothing ticks: a channel is the tick at which its count was loaded, and count and
 * output are computed from the host's monotonic clock when asked. Channel 0's
 * rising edges come from one event-loop timer, always at load + k * period, so
 * they never drift. Late ones come one after another (chipset.h).
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/event.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define PIT_HZ 1193182u
/* A guest may ask for interrupts at 600 kHz; the event loop has other work. */
#define MIN_INTERVAL_NS UINT64_C(20000)
#define REFRESH_NS      UINT64_C(15085) /* half a period of the refresh toggle */
/*
 * A loop that polls was interrupted when its polls are this far apart; not, beyond.
 */
#define POLL_GAP_NS UINT64_C(50000)
#define POLL_MAX_NS UINT64_C(1000000000)

enum access { ACCESS_LSB = 1, ACCESS_MSB, ACCESS_BOTH };

struct channel {
	uint8_t mode; /* 0-5 */
	uint8_t access;
	bool bcd;
	bool gate;
	bool loaded;     /* a count was written since the mode was */
	bool running;    /* counts; otherwise frozen holds the elapsed ticks */
	uint32_t reload; /* 1..65536 (10000 in BCD) */
	uint32_t next;   /* periodic modes: count that takes over at `turn` */
	uint64_t start;  /* tick of the load, trigger or current period base */
	uint64_t turn;
	uint64_t frozen;
	bool msb_next_write, msb_next_read;
	uint8_t write_lsb;
	bool count_latched, status_latched;
	uint16_t latched_count;
	uint8_t latched_status;
};

struct pit {
	struct machine *m;
	struct event *timer;
	uint64_t due; /* the tick of the edge the timer is set to */
	struct channel ch[3];
	bool speaker;
	uint8_t port61; /* bits 2-3: check enables */
	/* What port 0x61 last showed of channel 2's output, and when. */
	bool out2_seen;
	uint64_t out2_ns;
};

/* The HPET's legacy replacement cuts channel 0's line. */
static bool cut(const struct pit *p)
{
	return p->m->hpet != NULL && hpet_legacy(p->m->hpet);
}

static void set_irq(struct pit *p, bool level)
{
	if (!cut(p))
		machine_isa_irq(p->m, 0, level);
}

static uint64_t ticks_now(const struct pit *p)
{
	return clock_muldiv(clock_ns() - p->m->start_ns, PIT_HZ, 1000000000);
}

static uint64_t tick_ns(const struct pit *p, uint64_t tick)
{
	return p->m->start_ns + clock_muldiv(tick, 1000000000, PIT_HZ) + 1;
}

static bool periodic(const struct channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Lets a count written during a period take over at that period's end. */
static void settle(struct channel *c, uint64_t now)
{
	if (c->next != 0 && c->running && now >= c->turn) {
		c->start = c->turn;
		c->reload = c->next;
		c->next = 0;
	}
}

static uint64_t elapsed(const struct channel *c, uint64_t now)
{
	return c->running ? now - c->start : c->frozen;
}

static bool output(struct channel *c, uint64_t now)
{
	uint64_t t;

	settle(c, now);
	t = elapsed(c, now);
	switch (c->mode) {
	case 0:
		return c->loaded && t >= c->reload;
	case 1: /* frozen at the end until a trigger */
		return !c->running || t >= c->reload;
	case 2:
		return !c->loaded || !c->gate || t % c->reload != c->reload - 1;
	case 3:
		return !c->loaded || !c->gate ||
		       t % c->reload < (c->reload + 1) / 2;
	default: /* 4, 5: low for the tick of the strobe */
		return !c->loaded || !c->running || t != c->reload;
	}
}

static uint16_t to_bcd(uint32_t v)
{
	v %= 10000;
	return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 |
			  v % 10);
}

static uint16_t count(struct channel *c, uint64_t now)
{
	uint32_t modulus = c->bcd ? 10000 : 65536, v;
	uint64_t t;

	settle(c, now);
	t = elapsed(c, now);
	if (!c->loaded) {
		v = 0;
	} else if (c->mode == 3) {
		/* Counts down by two in each half. */
		uint64_t half = t % c->reload, high = (c->reload + 1) / 2;

		if (half >= high)
			half -= high;
		v = (c->reload & ~1u) - (uint32_t)half * 2;
	} else if (c->mode == 2) {
		v = c->reload - (uint32_t)(t % c->reload);
	} else {
		v = (uint32_t)((c->reload + modulus - t % modulus) % modulus);
	}
	return c->bcd ? to_bcd(v) : (uint16_t)v;
}

/* Arms the timer for channel 0's next rising edge after now. */
static void arm(struct pit *p, uint64_t now)
{
	struct channel *c = &p->ch[0];
	uint64_t t, edge, when;

	settle(c, now);
	if (!c->loaded || !c->running) {
		event_set_timer(p->timer, 0);
		return;
	}
	t = elapsed(c, now);
	if (periodic(c)) {
		edge = c->start + (t / c->reload + 1) * c->reload;
		if (c->next != 0 && edge > c->turn)
			edge = c->turn;
	} else if (t < c->reload + (c->mode >= 4)) {
		edge = c->start + c->reload + (c->mode >= 4);
	} else {
		event_set_timer(p->timer, 0);
		return;
	}
	p->due = edge;
	when = tick_ns(p, edge);
	event_set_timer(
	    p->timer, MAX(when, clock_ns() + (periodic(c) ? MIN_INTERVAL_NS : 0)));
}

static void timer_fired(void *arg)
{
	struct pit *p = arg;
	struct channel *c = &p->ch[0];
	uint64_t now = ticks_now(p);
	unsigned n = 1;

	if (periodic(c) && c->next == 0 && now > p->due)
		n = ticks_due(now - p->due, c->reload, PIT_HZ);
	/*
	 * Modes 2-5 have been low for a moment; mode 0 and 1 for the whole count.
	 */
	if (!periodic(c)) {
		set_irq(p, false);
		set_irq(p, true);
	} else if (!cut(p)) {
		machine_isa_tick(p->m, 0, n);
	}
	arm(p, now);
}

static void load(struct pit *p, struct channel *c, uint32_t value)
{
	uint64_t now = ticks_now(p);
	uint32_t max = c->bcd ? 10000 : 65536;

	if (c->bcd)
		value = (value >> 12 & 15) * 1000 + (value >> 8 & 15) * 100 +
			(value >> 4 & 15) * 10 + (value & 15);
	if (value == 0)
		value = max;
	if (value == 1 && periodic(c)) /* undefined for the chip */
		value = 2;
	settle(c, now);
	if (periodic(c) && c->loaded && c->running) {
		c->next = value;
		c->turn = c->start + (elapsed(c, now) / c->reload + 1) * c->reload;
	} else {
		c->reload = value;
		c->next = 0;
		/*
		 * Modes 1 and 5 wait for a trigger; the others start with the gate
		 * up.
		 */
		if (c->mode != 1 && c->mode != 5) {
			c->start = now;
			c->frozen = 0;
			c->running = c->gate;
		}
		c->loaded = true;
	}
	if (c == &p->ch[0]) {
		if (c->mode == 0)
			set_irq(p, false);
		arm(p, now);
	}
}

static void set_gate(struct pit *p, struct channel *c, bool gate)
{
	uint64_t now = ticks_now(p);
	bool rises = gate && !c->gate;

	if (gate == c->gate)
		return;
	settle(c, now);
	c->gate = gate;
	if (!c->loaded)
		return;
	switch (c->mode) {
	case 0:
	case 4: /* the gate holds the count */
		if (rises) {
			c->start = now - c->frozen;
			c->running = true;
		} else {
			c->frozen = elapsed(c, now);
			c->running = false;
		}
		break;
	case 2:
	case 3: /* a rising gate starts the period anew */
		c->running = gate;
		c->frozen = 0;
		c->start = now;
		if (gate && c->next != 0) {
			c->reload = c->next;
			c->next = 0;
		}
		break;
	default:
		if (rises) {
			c->start = now;
			c->running = true;
		}
	}
}

static uint8_t status(struct channel *c, uint64_t now)
{
	return (uint8_t)(output(c, now) << 7 | (!c->loaded || c->next != 0) << 6 |
			 c->access << 4 | c->mode << 1 | c->bcd);
}

static void latch_count(struct channel *c, uint64_t now)
{
	if (c->count_latched)
		return;
	c->latched_count = count(c, now);
	c->count_latched = true;
}

static void read_back(struct pit *p, uint8_t v)
{
	uint64_t now = ticks_now(p);

	for (unsigned i = 0; i < 3; i++) {
		struct channel *c = &p->ch[i];

		if (!(v & BIT(i + 1)))
			continue;
		if (!(v & 0x20))
			latch_count(c, now);
		if (!(v & 0x10) && !c->status_latched) {
			c->latched_status = status(c, now);
			c->status_latched = true;
		}
	}
}

static void write_control(struct pit *p, uint8_t v)
{
	struct channel *c;

	if (v >> 6 == 3) {
		read_back(p, v);
		return;
	}
	c = &p->ch[v >> 6];
	if ((v >> 4 & 3) == 0) {
		latch_count(c, ticks_now(p));
		return;
	}
	c->access = v >> 4 & 3;
	c->mode = v >> 1 & 7;
	if (c->mode > 5) /* 6 and 7 are other names of 2 and 3 */
		c->mode -= 4;
	c->bcd = v & 1;
	c->loaded = c->running = false;
	c->next = 0;
	c->frozen = 0;
	c->msb_next_write = c->msb_next_read = false;
	c->count_latched = c->status_latched = false;
	if (c == &p->ch[0]) {
		/* The output is low in mode 0 and high in all others. */
		set_irq(p, c->mode != 0);
		if (!cut(p))
			machine_isa_tick(p->m, 0, 0);
		arm(p, ticks_now(p));
	}
}

static void write_count(struct pit *p, struct channel *c, uint8_t v)
{
	switch (c->access) {
	case ACCESS_LSB:
		load(p, c, v);
		break;
	case ACCESS_MSB:
		load(p, c, (uint32_t)v << 8);
		break;
	default:
		if (!c->msb_next_write) {
			c->write_lsb = v;
			/* The first byte stops a mode 0 count. */
			if (c->mode == 0 && c->loaded) {
				c->loaded = c->running = false;
				c->frozen = 0;
			}
		} else {
			load(p, c, (uint32_t)v << 8 | c->write_lsb);
		}
		c->msb_next_write = !c->msb_next_write;
	}
}

static uint8_t read_count(struct pit *p, struct channel *c)
{
	uint16_t v;
	bool msb;

	if (c->status_latched) {
		c->status_latched = false;
		return c->latched_status;
	}
	v = c->count_latched ? c->latched_count : count(c, ticks_now(p));
	if (c->access == ACCESS_BOTH) {
		msb = c->msb_next_read;
		c->msb_next_read = !msb;
		if (msb)
			c->count_latched = false;
	} else {
		msb = c->access == ACCESS_MSB;
		c->count_latched = false;
	}
	return (uint8_t)(msb ? v >> 8 : v);
}

static uint64_t port_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pit *p = arg;
	uint64_t v = 0;

	(void)vcpu;
	for (unsigned i = 0; i < size; i++) {
		uint64_t byte = off + i < 3 ? read_count(p, &p->ch[off + i]) : 0xff;

		v |= byte << i * 8;
	}
	return v;
}

static void port_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pit *p = arg;

	(void)vcpu;
	for (unsigned i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(v >> i * 8);

		if (off + i < 3)
			write_count(p, &p->ch[off + i], byte);
		else
			write_control(p, byte);
	}
}

/*
 * Software calibrates its TSC by polling for channel 2's rising output, and takes
 * the TSC of the last poll before it as the end. Where the host took the CPU away
 * across the edge, that is milliseconds early and the result wrong by as much:
 * Linux then runs at the wrong speed. So an edge in a gap between polls is shown
 * one poll late; the software sees the gap in its measurement and measures again.
 */
static bool poll_out2(struct pit *p)
{
	uint64_t now = clock_ns();
	bool out = output(&p->ch[2], ticks_now(p));
	bool gap = now - p->out2_ns > POLL_GAP_NS;

	if (out && !p->out2_seen && gap && now - p->out2_ns < POLL_MAX_NS)
		out = false;
	p->out2_seen = out;
	p->out2_ns = now;
	return out;
}

static uint64_t port61_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct pit *p = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	return p->ch[2].gate | p->speaker << 1 | p->port61 |
	       (clock_ns() / REFRESH_NS & 1) << 4 | poll_out2(p) << 5;
}

static void port61_write(
    void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct pit *p = arg;

	(void)vcpu;
	(void)off;
	(void)size;
	set_gate(p, &p->ch[2], v & 1);
	p->speaker = v & 2;
	p->port61 = v & 0x0c;
}

int pit_create(struct machine *m, struct pit **out)
{
	struct pit *p = calloc(1, sizeof(*p));
	int err;

	if (p == NULL)
		return -ENOMEM;
	p->m = m;
	for (unsigned i = 0; i < 3; i++) {
		p->ch[i].access = ACCESS_BOTH;
		p->ch[i].mode = 3;
		p->ch[i].reload = 65536;
		p->ch[i].gate = i < 2;
	}
	p->timer = event_add_timer(m->loop, timer_fired, p);
	err = p->timer == NULL ? -ENOMEM : 0;
	if (err == 0)
		err = bus_add(m->io, "8254", 0x40, 4, 0, port_read, port_write, p);
	if (err == 0)
		err = bus_add(
		    m->io, "port 0x61", 0x61, 1, 0, port61_read, port61_write, p);
	if (err != 0) {
		pit_destroy(p);
		return err;
	}
	*out = p;
	return 0;
}

void pit_destroy(struct pit *p)
{
	if (p == NULL)
		return;
	event_del(p->timer);
	free(p);
}
