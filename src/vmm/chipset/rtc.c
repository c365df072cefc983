/*
 * The MC146818 real-time clock with 114 bytes of NVRAM and a century byte (0x32).
 *
 * The time is the host's real-time clock plus an offset that the guest changes by
 * setting the clock; so it stays right after the host slept. Flags of register C
 * are computed when something looks: from the seconds and periods passed since it
 * was read. One event-loop timer is set only while an interrupt is enabled and its
 * flag is clear, so nothing ticks for nobody.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/config.h"
#include "lib/event.h"
#include "lib/util.h"
#include "vmm/bus.h"
#include "vmm/chipset/chipset.h"
#include "vmm/clock.h"
#include "vmm/machine.h"

#define NS UINT64_C(1000000000)

/* The guest's clock goes to the year 9999: nanoseconds of that need 95 bits. */
typedef __int128 wide;

enum {
	SEC,
	SEC_ALARM,
	MIN_,
	MIN_ALARM,
	HOUR,
	HOUR_ALARM,
	WDAY,
	MDAY,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = 0x32
};

#define A_UIP     0x80u
#define B_SET     0x80u
#define B_PIE     0x40u
#define B_AIE     0x20u
#define B_UIE     0x10u
#define B_BIN     0x04u
#define B_24H     0x02u
#define C_IRQ     0x80u
#define C_PF      0x40u
#define C_AF      0x20u
#define C_UF      0x10u
#define D_VRT     0x80u

#define UPDATE_NS UINT64_C(244000) /* UIP is up that long before an update */
#define DAY       86400

struct rtc {
	struct machine *m;
	struct event *timer;
	uint8_t index;
	uint8_t ram[128];   /* time bytes are valid only while the clock stands */
	uint8_t c;          /* PF, AF, UF */
	wide offset_ns;     /* guest time - host's real time */
	int64_t seen_sec;   /* up to here UF and AF are in c */
	uint64_t seen_tick; /* the same for PF: index of the period */
};

static bool stands(const struct rtc *r)
{
	return (r->ram[REG_B] & B_SET) || (r->ram[REG_A] & 0x70) != 0x20;
}

static wide now_ns(const struct rtc *r)
{
	return (wide)clock_realtime_ns() + r->offset_ns;
}

static int64_t floor_sec(wide ns)
{
	return (int64_t)(ns / (wide)NS) - (ns % (wide)NS < 0);
}

/* Period of the periodic interrupt in ticks of 32768 Hz, 0: off. */
static uint64_t period(const struct rtc *r)
{
	unsigned rs = r->ram[REG_A] & 15;

	if (rs == 0)
		return 0;
	return UINT64_C(1) << (rs <= 2 ? rs + 6 : rs - 1);
}

static uint64_t period_index(const struct rtc *r)
{
	return clock_muldiv(clock_ns() - r->m->start_ns, 32768, NS) / period(r);
}

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return (uint8_t)(r->ram[REG_B] & B_BIN ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t v)
{
	if (r->ram[REG_B] & B_BIN)
		return v;
	return (v >> 4) > 9 || (v & 15) > 9 ? -1 : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
	if (r->ram[REG_B] & B_24H)
		return encode(r, h);
	return encode(r, h % 12 == 0 ? 12 : h % 12) | (h >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t v)
{
	int h;

	if (r->ram[REG_B] & B_24H) {
		h = decode(r, v);
		return h < 24 ? h : -1;
	}
	h = decode(r, v & 0x7f);
	if (h < 1 || h > 12)
		return -1;
	return h % 12 + (v & 0x80 ? 12 : 0);
}

/* The time bytes from seconds since 1970. */
static void encode_time(struct rtc *r, int64_t sec)
{
	time_t t = (time_t)sec;
	struct tm tm;
	unsigned year;

	if (gmtime_r(&t, &tm) == NULL || tm.tm_year < -1900)
		memset(&tm, 0, sizeof(tm));
	year = (unsigned)(tm.tm_year + 1900) % 10000;
	r->ram[SEC] = encode(r, (unsigned)tm.tm_sec);
	r->ram[MIN_] = encode(r, (unsigned)tm.tm_min);
	r->ram[HOUR] = encode_hour(r, (unsigned)tm.tm_hour);
	r->ram[WDAY] = encode(r, (unsigned)tm.tm_wday + 1);
	r->ram[MDAY] = encode(r, (unsigned)tm.tm_mday);
	r->ram[MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
	r->ram[YEAR] = encode(r, year % 100);
	r->ram[CENTURY] = encode(r, year / 100);
}

/* Seconds since 1970 of the time bytes; false when they are no time. */
static bool decode_time(const struct rtc *r, int64_t *sec)
{
	int s = decode(r, r->ram[SEC]), mi = decode(r, r->ram[MIN_]);
	int h = decode_hour(r, r->ram[HOUR]), d = decode(r, r->ram[MDAY]);
	int mo = decode(r, r->ram[MONTH]), y = decode(r, r->ram[YEAR]);
	int ce = decode(r, r->ram[CENTURY]);
	struct tm tm;

	if (s < 0 || s > 59 || mi < 0 || mi > 59 || h < 0 || d < 1 || d > 31 ||
	    mo < 1 || mo > 12 || y < 0 || y > 99 || ce < 0 || ce > 99)
		return false;
	tm = (struct tm){
		.tm_sec = s,
		.tm_min = mi,
		.tm_hour = h,
		.tm_mday = d,
		.tm_mon = mo - 1,
		.tm_year = ce * 100 + y - 1900,
	};
	*sec = (int64_t)timegm(&tm);
	return true;
}

static void set_time_ns(struct rtc *r, wide ns)
{
	r->offset_ns = ns - (wide)clock_realtime_ns();
	r->seen_sec = floor_sec(ns);
}

static int64_t second_of_day(int64_t sec)
{
	int64_t s = sec % DAY;

	return s < 0 ? s + DAY : s;
}

/* Values of 0xc0 and above match anything. */
static bool any_or(uint8_t alarm, int decoded, int64_t now)
{
	return alarm >= 0xc0 || decoded == now;
}

/*
 * The first matching second after sec, within a day; -1: none ever. Skips whole
 * hours and minutes: it runs at each access of a guest that cares to make it.
 */
static int64_t next_alarm(const struct rtc *r, int64_t sec)
{
	uint8_t as = r->ram[SEC_ALARM], am = r->ram[MIN_ALARM],
		ah = r->ram[HOUR_ALARM];
	int ds = decode(r, as), dm = decode(r, am), dh = decode_hour(r, ah);
	int64_t at = sec + 1;

	if ((as < 0xc0 && (ds < 0 || ds > 59)) ||
	    (am < 0xc0 && (dm < 0 || dm > 59)) || (ah < 0xc0 && dh < 0))
		return -1;
	while (at <= sec + DAY) {
		int64_t s = second_of_day(at);

		if (!any_or(ah, dh, s / 3600))
			at += 3600 - s % 3600;
		else if (!any_or(am, dm, s / 60 % 60))
			at += 60 - s % 60;
		else if (!any_or(as, ds, s % 60))
			at++;
		else
			return at;
	}
	return -1;
}

/* Brings the flags up to date. */
static void refresh(struct rtc *r)
{
	if (period(r) != 0 && period_index(r) != r->seen_tick) {
		r->seen_tick = period_index(r);
		r->c |= C_PF;
	}
	if (stands(r))
		return;
	int64_t sec = floor_sec(now_ns(r));

	if (sec == r->seen_sec)
		return;
	if (sec > r->seen_sec) {
		int64_t alarm = r->c & C_AF ? -1 : next_alarm(r, r->seen_sec);

		if (alarm >= 0 && alarm <= sec)
			r->c |= C_AF;
	}
	r->c |= C_UF;
	r->seen_sec = sec;
}

static void update_irq(struct rtc *r)
{
	bool level = r->c & r->ram[REG_B] & (C_PF | C_AF | C_UF);

	if (r->m->hpet == NULL || !hpet_legacy(r->m->hpet))
		machine_isa_irq(r->m, 8, level);
}

/* Monotonic time of a guest second. */
static uint64_t when_second(const struct rtc *r, int64_t sec)
{
	wide left = sec * (wide)NS - now_ns(r);

	return clock_ns() + (left > 0 ? (uint64_t)left : 1);
}

/* An interrupt whose flag is already up needs no timer: its line stays up. */
static void arm(struct rtc *r)
{
	uint8_t want = r->ram[REG_B] & (uint8_t)~r->c;
	uint64_t when = 0, t;
	int64_t alarm;

	if ((want & B_PIE) && period(r) != 0)
		when = r->m->start_ns +
		       clock_muldiv((r->seen_tick + 1) * period(r), NS, 32768) + 1;
	if (!stands(r) && (want & B_UIE)) {
		t = when_second(r, r->seen_sec + 1);
		when = when == 0 ? t : MIN(when, t);
	}
	if (!stands(r) && (want & B_AIE)) {
		alarm = next_alarm(r, r->seen_sec);
		if (alarm >= 0) {
			t = when_second(r, alarm);
			when = when == 0 ? t : MIN(when, t);
		}
	}
	event_set_timer(r->timer, when);
}

static void timer_fired(void *arg)
{
	struct rtc *r = arg;

	refresh(r);
	update_irq(r);
	arm(r);
}

static bool is_time(uint8_t i)
{
	return i == SEC || i == MIN_ || i == HOUR || (i >= WDAY && i <= YEAR) ||
	       i == CENTURY;
}

/* Registers A and B may stop the clock or let it go on from the time bytes. */
static void write_control(struct rtc *r, uint8_t reg, uint8_t v)
{
	bool stood = stands(r), divider_held = (r->ram[REG_A] & 0x70) != 0x20;
	int64_t sec;

	refresh(r);
	if (!stood)
		encode_time(r, floor_sec(now_ns(r)));
	if (reg == REG_A) {
		r->ram[REG_A] = v & 0x7f;
		if (period(r) != 0)
			r->seen_tick = period_index(r);
	} else {
		/* SET ends an update and its interrupt. */
		r->ram[REG_B] = v & B_SET ? v & (uint8_t)~B_UIE : v;
	}
	if (stood && !stands(r) && decode_time(r, &sec))
		/* The first update comes half a second after the divider starts. */
		set_time_ns(
		    r, sec * (wide)NS + (divider_held ? (int64_t)NS / 2 : 0));
}

static void write_reg(struct rtc *r, uint8_t reg, uint8_t v)
{
	int64_t sec;

	if (reg == REG_C || reg == REG_D)
		return;
	if (reg == REG_A || reg == REG_B) {
		write_control(r, reg, v);
	} else if (is_time(reg) && !stands(r)) {
		wide now = now_ns(r), frac = now - floor_sec(now) * (wide)NS;

		encode_time(r, floor_sec(now_ns(r)));
		r->ram[reg] = v;
		if (decode_time(r, &sec))
			set_time_ns(r, sec * (wide)NS + frac);
	} else {
		refresh(r);
		r->ram[reg] = v;
	}
	update_irq(r);
	arm(r);
}

static uint8_t read_reg(struct rtc *r, uint8_t reg)
{
	uint8_t v;
	wide ns;

	switch (reg) {
	case REG_A:
		ns = now_ns(r);
		v = r->ram[REG_A];
		if (!stands(r) &&
		    ns - floor_sec(ns) * (wide)NS >= (wide)(NS - UPDATE_NS))
			v |= A_UIP;
		return v;
	case REG_C:
		refresh(r);
		v = r->c;
		if (v & r->ram[REG_B] & (C_PF | C_AF | C_UF))
			v |= C_IRQ;
		r->c = 0;
		update_irq(r);
		arm(r);
		return v;
	case REG_D:
		return D_VRT;
	default:
		break;
	}
	if (is_time(reg) && !stands(r))
		encode_time(r, floor_sec(now_ns(r)));
	return r->ram[reg];
}

static uint64_t port_read(void *arg, int vcpu, uint64_t off, unsigned size)
{
	struct rtc *r = arg;

	(void)vcpu;
	if (off == 1)
		return read_reg(r, r->index);
	return size == 2 ? 0xff | (uint64_t)read_reg(r, r->index) << 8 : 0xff;
}

static void port_write(void *arg, int vcpu, uint64_t off, unsigned size, uint64_t v)
{
	struct rtc *r = arg;

	(void)vcpu;
	if (off == 0) {
		r->index = v & 0x7f; /* bit 7 masks NMIs, of which there are none */
		if (size == 2)
			write_reg(r, r->index, (uint8_t)(v >> 8));
	} else {
		write_reg(r, r->index, (uint8_t)v);
	}
}

int rtc_nvram_read(struct rtc *r, unsigned off, uint8_t *v)
{
	if (off >= sizeof(r->ram))
		return -EINVAL;
	if (is_time((uint8_t)off) && !stands(r))
		encode_time(r, floor_sec(now_ns(r)));
	*v = r->ram[off];
	return 0;
}

int rtc_nvram_write(struct rtc *r, unsigned off, uint8_t v)
{
	if (off >= sizeof(r->ram) || off <= REG_D || off == CENTURY)
		return -EINVAL;
	r->ram[off] = v;
	return 0;
}

int64_t rtc_time_get(struct rtc *r)
{
	int64_t sec;

	if (stands(r) && decode_time(r, &sec))
		return sec;
	return floor_sec(now_ns(r));
}

void rtc_time_set(struct rtc *r, int64_t secs)
{
	set_time_ns(r, secs * (wide)NS);
	if (stands(r))
		encode_time(r, secs);
	arm(r);
}

/*
 * Memory beyond 16 MiB and beyond 4 GiB in units of 64 KiB, where firmware looks.
 */
static void store_memory_size(struct rtc *r)
{
	uint64_t low = r->m->mem.low, high = r->m->mem.high / (64 * KiB);

	low = low > 16 * MiB ? (low - 16 * MiB) / (64 * KiB) : 0;
	r->ram[0x34] = (uint8_t)low;
	r->ram[0x35] = (uint8_t)(low >> 8);
	r->ram[0x5b] = (uint8_t)high;
	r->ram[0x5c] = (uint8_t)(high >> 8);
	r->ram[0x5d] = (uint8_t)(high >> 16);
}

int rtc_create(struct machine *m, struct rtc **out)
{
	struct rtc *r = calloc(1, sizeof(*r));
	time_t now = (time_t)(clock_realtime_ns() / NS);
	bool local;
	struct tm tm;
	int err;

	if (r == NULL)
		return -ENOMEM;
	r->m = m;
	err = config_get_bool(m->cfg, "rtc.use_localtime", true, &local);
	if (err == 0) {
		if (local && localtime_r(&now, &tm) != NULL)
			r->offset_ns = (int64_t)tm.tm_gmtoff * (int64_t)NS;
		r->ram[REG_A] = 0x26; /* running, 1024 Hz */
		r->ram[REG_B] = B_24H;
		r->seen_sec = floor_sec(now_ns(r));
		r->seen_tick = period_index(r);
		store_memory_size(r);
		r->timer = event_add_timer(m->loop, timer_fired, r);
		if (r->timer == NULL)
			err = -ENOMEM;
	}
	if (err == 0)
		err = bus_add(m->io, "RTC", 0x70, 2, 0, port_read, port_write, r);
	if (err != 0) {
		rtc_destroy(r);
		return err;
	}
	*out = r;
	return 0;
}

void rtc_destroy(struct rtc *r)
{
	if (r == NULL)
		return;
	event_del(r->timer);
	free(r);
}
