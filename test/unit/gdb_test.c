/*
 * -G: packets, the protocol on a target that notes what it is asked, and the port
 * of a running machine, with clients that are well-behaved, hostile, or gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bhyve/gdb/packet.h"
#include "bhyve/gdb/protocol.h"
#include "bhyve/gdb/regs.h"
#include "bhyve/gdb/server.h"
#include "lib/config.h"
#include "lib/event.h"
#include "lib/log.h"
#include "vmm/machine.h"

/* Packets. */

static struct gdb_parser parser;

/* What the last byte makes; all before it must make nothing. */
static enum gdb_event feed(const char *bytes, size_t n)
{
	enum gdb_event e = GDB_MORE;

	for (size_t i = 0; i < n; i++) {
		assert_int_equal(e, GDB_MORE);
		e = gdb_parse(&parser, (uint8_t)bytes[i]);
	}
	return e;
}

#define FEED(text) feed(text, sizeof(text) - 1)

static void packets(void **state)
{
	(void)state;
	memset(&parser, 0, sizeof(parser));
	assert_int_equal(FEED("$m0,4#fd"), GDB_PACKET);
	assert_string_equal(parser.buf, "m0,4");
	assert_int_equal(FEED("$m0,4#FD"), GDB_PACKET);
	assert_int_equal(FEED("$#00"), GDB_PACKET);
	assert_int_equal(parser.len, 0);
	assert_int_equal(FEED("$m0,4#fe"), GDB_BAD);
	assert_int_equal(FEED("$m0,4#zz"), GDB_BAD);
	assert_int_equal(FEED("noise$x$?#3f"), GDB_PACKET);
	assert_string_equal(parser.buf, "?");
	assert_int_equal(FEED("+"), GDB_ACK);
	assert_int_equal(FEED("-"), GDB_NAK);
	assert_int_equal(FEED("\3"), GDB_BREAK);
	/* Escaped: a '#', a '}' and a zero; Control-C inside is data. */
	assert_int_equal(FEED("$X}\3}]} \3#52"), GDB_PACKET);
	assert_int_equal(parser.len, 5);
	assert_memory_equal(parser.buf, "X#}\0\3", 5);
}

static void long_packets(void **state)
{
	static char out[GDB_FRAME_MAX(GDB_PACKET_MAX + 1)];
	static char data[GDB_PACKET_MAX + 1];
	size_t n;

	(void)state;
	memset(&parser, 0, sizeof(parser));
	memset(data, '#', sizeof(data));
	n = gdb_frame(out, data, GDB_PACKET_MAX);
	assert_int_equal(n, GDB_FRAME_MAX(GDB_PACKET_MAX));
	assert_int_equal(feed(out, n), GDB_PACKET);
	assert_int_equal(parser.len, GDB_PACKET_MAX);
	assert_memory_equal(parser.buf, data, GDB_PACKET_MAX);
	n = gdb_frame(out, data, GDB_PACKET_MAX + 1);
	assert_int_equal(feed(out, n), GDB_BAD);
	assert_int_equal(FEED("$?#3f"), GDB_PACKET);
}

static void hex(void **state)
{
	const char *p = "12aF,", *none = ",", *most = "ffffffffffffffff",
		   *more = "00000000000000001";
	uint8_t b[2];
	uint64_t v;

	(void)state;
	assert_true(gdb_hex_number(&p, &v));
	assert_int_equal(v, 0x12af);
	assert_string_equal(p, ",");
	assert_false(gdb_hex_number(&none, &v));
	assert_true(gdb_hex_number(&most, &v));
	assert_true(v == UINT64_MAX);
	assert_false(gdb_hex_number(&more, &v));
	assert_true(gdb_hex_decode(b, "1fA0", 2));
	assert_int_equal(b[0] << 8 | b[1], 0x1fa0);
	assert_false(gdb_hex_decode(b, "1fA", 2));
	assert_false(gdb_hex_decode(b, "1", 2));
	assert_false(gdb_hex_decode(b, "1fA00", 2));
}

/* The protocol, on a target of two CPUs and a little memory. */

#define CPUS 2
#define BASE UINT64_C(0xffffffff81000000)

static struct {
	struct gdb *gdb;
	bool running, killed;
	unsigned stops, resumes;
	enum vcpu_order order[CPUS];
	bool stopped[CPUS];
	enum engine_point kind;
	uint64_t gla;
	struct vcpu_state state[CPUS];
	uint8_t ram[64];
	char points[200];
	char out[70000];
	size_t out_len;
} t;

static void t_stop(void *arg)
{
	(void)arg;
	t.running = false;
	t.stops++;
}

static void t_resume(void *arg, const enum vcpu_order *order)
{
	(void)arg;
	memcpy(t.order, order, sizeof(t.order));
	memset(t.stopped, 0, sizeof(t.stopped));
	t.running = true;
	t.resumes++;
}

static void t_kill(void *arg)
{
	(void)arg;
	t.killed = true;
}

static bool t_stopped(
    void *arg, unsigned cpu, enum engine_point *kind, uint64_t *gla)
{
	(void)arg;
	assert_true(cpu < CPUS);
	*kind = t.kind;
	*gla = t.gla;
	return t.stopped[cpu];
}

static void t_read_regs(void *arg, unsigned cpu, struct vcpu_state *s)
{
	(void)arg;
	assert_true(cpu < CPUS && !t.running);
	*s = t.state[cpu];
}

static int t_write_regs(void *arg, unsigned cpu, const struct vcpu_state *s)
{
	(void)arg;
	assert_true(cpu < CPUS && !t.running);
	if (s->cr0 == 0xbad)
		return -EINVAL;
	t.state[cpu] = *s;
	return 0;
}

static size_t t_memory(
    void *arg, unsigned cpu, uint64_t gla, void *buf, size_t len, bool read)
{
	size_t n;

	(void)arg;
	assert_true(cpu < CPUS && !t.running);
	if (gla - BASE >= sizeof(t.ram))
		return 0;
	n = MIN(len, (size_t)(sizeof(t.ram) - (gla - BASE)));
	if (read)
		memcpy(buf, t.ram + (gla - BASE), n);
	else
		memcpy(t.ram + (gla - BASE), buf, n);
	return n;
}

static int t_point(
    void *arg, enum engine_point kind, uint64_t gla, uint64_t len, bool set)
{
	char one[40];

	(void)arg;
	assert_false(t.running);
	if (gla == 0xfff)
		return -ENOSPC;
	snprintf(one, sizeof(one), "%c%d:%llx,%llx ", set ? '+' : '-', kind,
	    (unsigned long long)gla, (unsigned long long)len);
	if (strlen(t.points) + strlen(one) < sizeof(t.points))
		strcat(t.points, one);
	return 0;
}

static void t_describe(void *arg, unsigned cpu, char *text, size_t size)
{
	(void)arg;
	snprintf(text, size, "vCPU %u", cpu);
}

static void t_send(void *arg, const char *bytes, size_t len)
{
	(void)arg;
	assert_true(len < sizeof(t.out) - t.out_len);
	memcpy(t.out + t.out_len, bytes, len);
	t.out_len += len;
	t.out[t.out_len] = '\0';
}

static const struct gdb_target target = { NULL, CPUS, t_stop, t_resume, t_kill,
	t_stopped, t_read_regs, t_write_regs, t_memory, t_point, t_describe,
	t_send };

static int protocol_setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	t.running = true;
	for (unsigned i = 0; i < CPUS; i++)
		vcpu_state_reset(&t.state[i], i);
	for (unsigned i = 0; i < sizeof(t.ram); i++)
		t.ram[i] = (uint8_t)i;
	t.gdb = gdb_new(&target);
	assert_non_null(t.gdb);
	gdb_attach(t.gdb);
	assert_false(t.running);
	return 0;
}

static int protocol_teardown(void **state)
{
	(void)state;
	gdb_free(t.gdb);
	return 0;
}

/* Bytes to the stub, all of them; what it says is in t.out. */
static void bytes(const char *text, size_t len)
{
	t.out_len = 0;
	t.out[0] = '\0';
	while (len > 0) {
		size_t n = gdb_input(t.gdb, (const uint8_t *)text, len);

		assert_true(n > 0 && n <= len);
		text += n;
		len -= n;
	}
}

/* The answer to a packet, without its frame; NULL: none. */
static const char *ask_bytes(const char *text, size_t len)
{
	static char frame[GDB_FRAME_MAX(GDB_PACKET_MAX)],
	    answer[GDB_PACKET_MAX + 1];
	size_t i = 0;

	memset(&parser, 0, sizeof(parser));
	bytes(frame, gdb_frame(frame, text, len));
	for (; i < t.out_len; i++)
		if (gdb_parse(&parser, (uint8_t)t.out[i]) == GDB_PACKET)
			break;
	if (i == t.out_len)
		return NULL;
	assert_int_equal(i + 1, t.out_len);
	memcpy(answer, parser.buf, parser.len + 1);
	return answer;
}

static const char *ask(const char *text)
{
	return ask_bytes(text, strlen(text));
}

#define SAYS(question, answer) assert_string_equal(ask(question), answer)
#define SILENT(question)       assert_null(ask(question))

static void questions(void **state)
{
	(void)state;
	assert_non_null(
	    strstr(ask("qSupported:swbreak+;hwbreak+"), "PacketSize=4000;"));
	SAYS("?", "T05thread:1;");
	SAYS("qC", "QC1");
	SAYS("qfThreadInfo", "m1,2");
	SAYS("qsThreadInfo", "l");
	SAYS("qThreadExtraInfo,2", "764350552031");
	SAYS("qThreadExtraInfo,3", "E03");
	SAYS("T2", "OK");
	SAYS("T0", "E03");
	SAYS("T3", "E03");
	SAYS("T", "E03");
	SAYS("Hg2", "OK");
	SAYS("qC", "QC2");
	SAYS("Hc-1", "OK");
	SAYS("Hg0", "OK");
	SAYS("qC", "QC2");
	SAYS("H", "E03");
	SAYS("Hg", "E03");
	SAYS("Hg3", "E03");
	SAYS("Hx1", "");
	SAYS("qAttached", "1");
	SAYS("vCont?", "vCont;c;C;s;S");
	SAYS("", "");
	SAYS("!", "");
	SAYS("qNonsense", "");
	SAYS("vNonsense", "");
	SAYS("QNonsense", "");
}

static void acknowledgements(void **state)
{
	(void)state;
	bytes("$qC#b4", 6);
	assert_string_equal(t.out, "+$QC1#c5");
	bytes("$qC#b5", 6);
	assert_string_equal(t.out, "-");
	bytes("-", 1);
	assert_string_equal(t.out, "$QC1#c5");
	bytes("$QStartNoAckMode#b0", 19);
	assert_string_equal(t.out, "+$OK#9a");
	bytes("+$qC#b4", 7);
	assert_string_equal(t.out, "$QC1#c5");
	/* The client expects an answer to each packet now. */
	bytes("$qC#b5", 6);
	assert_string_equal(t.out, "$E16#ac");
	bytes("-", 1);
	assert_string_equal(t.out, "");
}

static void description(void **state)
{
	static const char *const names[] = { "rax", "rip", "eflags", "cs", "st0",
		"fop", "xmm15", "mxcsr", "fs_base", "gs_base", "cr3", "efer" };
	char xml[20000] = "", question[80], name[40];
	unsigned regs = 0;

	(void)state;
	for (;;) {
		const char *part;

		snprintf(question, sizeof(question),
		    "qXfer:features:read:target.xml:%zx,3ff", strlen(xml));
		part = ask(question);
		assert_true(*part == 'm' || *part == 'l');
		strcat(xml, part + 1);
		if (*part == 'l')
			break;
	}
	for (const char *p = xml; (p = strstr(p, "<reg ")) != NULL; p++)
		regs++;
	assert_int_equal(regs, gdb_reg_count());
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(name, sizeof(name), "<reg name=\"%s\" ", names[i]);
		assert_non_null(strstr(xml, name));
	}
	assert_string_equal(xml + strlen(xml) - 9, "</target>");
	SAYS("qXfer:features:read:target.xml:fffff,10", "l");
	SAYS("qXfer:features:read:target.xml:0", "E16");
	SAYS("qXfer:features:read:other.xml:0,10", "E02");
}

static void registers(void **state)
{
	static char all[GDB_PACKET_MAX];
	char one[64];

	(void)state;
	t.state[0].gpr[GPR_RAX] = 0x1122334455667788;
	t.state[0].gpr[GPR_RBX] = 3;
	t.state[1].rip = 0x1234;
	t.state[0].fpu[512] = 2; /* no x87 state: its initial values are told */
	t.state[0].fpu[0] = 0x55;
	SAYS("p0", "8877665544332211");
	SAYS("p1", "0300000000000000");
	SAYS("p11", "02000000");
	SAYS("p12", "00f00000");
	SAYS("p20", "7f030000");
	SAYS("p22", "ffff0000"); /* all empty */
	SAYS("p3e", "0000000000000000");
	SAYS("pff", "E16");
	SAYS("p", "E16");
	SAYS("p0,", "E16");
	strcpy(all, ask("g"));
	assert_memory_equal(all, "88776655443322110300000000000000", 32);
	assert_int_equal(
	    strlen(all), 2 * (17 * 8 + 4 * 7 + 80 + 32 + 256 + 4 + 16 + 56));
	/* All back, with another RCX. */
	memcpy(all + 32, "efcdab8967452301", 16);
	memmove(all + 1, all, strlen(all) + 1);
	all[0] = 'G';
	SAYS(all, "OK");
	assert_true(t.state[0].gpr[GPR_RCX] == 0x0123456789abcdef);
	assert_true(t.state[0].gpr[GPR_RAX] == 0x1122334455667788);
	all[strlen(all) - 2] = '\0';
	SAYS(all, "E16");
	SAYS("G", "E16");
	SAYS("Hg2", "OK");
	SAYS("p10", "3412000000000000");
	SAYS("P10=7856000000000000", "OK");
	assert_true(t.state[1].rip == 0x5678);
	SAYS("P10=78560000000000", "E16");
	SAYS("P10=7856000000000000ff", "E16");
	SAYS("P10=785600000000000x", "E16");
	SAYS("P10", "E16");
	SAYS("Pff=00", "E16");
	/* A selector alone is no segment, a state no CPU can be in is none. */
	SAYS("P12=00f00000", "OK");
	SAYS("P12=08000000", "E16");
	snprintf(one, sizeof(one), "P%x=ad0b000000000000", gdb_reg_count() - 6);
	SAYS(one, "E16");
	SAYS("P22=fcff0000", "OK"); /* one register that is not empty */
	assert_int_equal(t.state[1].fpu[4], 1);
	SAYS("p22", "fdff0000"); /* and holds zero */
}

static void memory(void **state)
{
	static char big[GDB_PACKET_MAX + 1];

	(void)state;
	SAYS("mffffffff81000002,3", "020304");
	SAYS("mffffffff8100003e,10", "3e3f"); /* what there is */
	SAYS("mffffffff81000040,1", "E0e");
	SAYS("m0,ffffffffffffffff", "E0e");
	SAYS("mffffffff81000000,0", "");
	SAYS("m", "E16");
	SAYS("m0", "E16");
	SAYS("m0,", "E16");
	SAYS("m0,4:", "E16");
	SAYS("m10000000000000000,1", "E16");
	SAYS("Mffffffff81000000,2:a5b6", "OK");
	assert_int_equal(t.ram[0] << 8 | t.ram[1], 0xa5b6);
	SAYS("Mffffffff81000000,2:a5", "E16");
	SAYS("Mffffffff81000000,2:a5b6c7", "E16");
	SAYS("Mffffffff81000000,2:a5bx", "E16");
	SAYS("Mffffffff81000000,ffffffffffffffff:a5", "E16");
	SAYS("Mffffffff81000000,8000000000000000:", "E16");
	SAYS("Mffffffff8100003f,2:a5b6", "E0e");
	SAYS("Xffffffff81000000,0:", "OK");
	assert_string_equal(ask_bytes("Xffffffff81000000,4:\0#}*", 24), "OK");
	assert_memory_equal(t.ram, "\0#}*", 4);
	SAYS("Xffffffff81000000,5:#}*", "E16");
	/* As long as a packet can be. */
	memset(big, 'f', sizeof(big) - 1);
	memcpy(big, "Mffffffff81000000,1ff6:", 23);
	assert_non_null(ask(big));
}

static void points(void **state)
{
	(void)state;
	SAYS("Z0,1000,1", "OK");
	SAYS("Z0,1000,1", "OK");
	SAYS("Z1,1000,1", "OK");
	SAYS("Z2,2000,8", "OK");
	SAYS("Z3,2000,4", "OK");
	SAYS("Z4,2000,2", "OK");
	assert_string_equal(t.points, "+0:1000,1 +1:2000,8 +2:2000,4 +3:2000,2 ");
	t.points[0] = '\0';
	SAYS("z0,1000,1", "OK");
	assert_string_equal(t.points, ""); /* the hardware one stays */
	SAYS("z1,1000,1", "OK");
	SAYS("z1,1000,1", "OK");
	SAYS("z2,2000,8", "OK");
	assert_string_equal(t.points, "-0:1000,1 -1:2000,8 ");
	SAYS("Z5,1000,1", "");
	SAYS("Z", "");
	SAYS("Z0", "E16");
	SAYS("Z0,", "E16");
	SAYS("Z0,1000", "E16");
	SAYS("Z2,1000,0", "E16");
	SAYS("Z0,1000,1;X", "E16");
	SAYS("Z0,fff,1", "E1c");
	for (unsigned i = 0; i < 300; i++) {
		char text[32];

		snprintf(text, sizeof(text), "Z1,%x,1", 0x10000 + i);
		assert_string_equal(ask(text), i < 254 ? "OK" : "E1c");
	}
}

static void go_on(void **state)
{
	(void)state;
	SILENT("vCont;c");
	assert_true(t.running);
	assert_int_equal(t.order[0] + 4 * t.order[1], VCPU_GO + 4 * VCPU_GO);
	/* Nothing but Control-C while it runs. */
	SAYS("g", "E10");
	SAYS("mffffffff81000000,1", "E10");
	SAYS("vCont;s", "E10");
	bytes("\3", 1);
	assert_string_equal(t.out, "$T02thread:1;#d4");
	assert_false(t.running);
	bytes("\3", 1);
	assert_string_equal(t.out, "");
	SILENT("vCont;s:2;c");
	assert_int_equal(t.order[0] + 4 * t.order[1], VCPU_GO + 4 * VCPU_STEP);
	t.stopped[1] = true;
	t.kind = POINT_NONE;
	t.out_len = 0;
	gdb_target_stopped(t.gdb);
	assert_string_equal(t.out, "$T05thread:2;#d8");
	gdb_target_stopped(t.gdb); /* an echo */
	SAYS("?", "T05thread:2;");
	SILENT("vCont;C05:1;S05:2");
	bytes("\3", 1);
	SILENT("vCont;s:1");
	assert_int_equal(t.order[0] + 4 * t.order[1], VCPU_STEP + 4 * VCPU_STAY);
	bytes("\3", 1);
	SAYS("vCont", "E16");
	SAYS("vCont;", "E16");
	SAYS("vCont;x", "E16");
	SAYS("vCont;C", "E16");
	SAYS("vCont;c:", "E16");
	SAYS("vCont;c:3", "E16");
	SAYS("vCont;c:1;", "E16");
	SAYS("vCont;c:1x", "E16");
	assert_false(t.running);
	SILENT("c");
	bytes("\3", 1);
	SAYS("Hc2", "OK");
	SILENT("s");
	assert_int_equal(t.order[0] + 4 * t.order[1], VCPU_STAY + 4 * VCPU_STEP);
	bytes("\3", 1);
	SAYS("c1000", "E16");
	SAYS("C", "E16");
}

static void reasons(void **state)
{
	static const struct {
		enum engine_point kind;
		const char *set, *says;
	} table[] = {
		{ POINT_EXECUTE, "Z0,1000,1", "T05thread:1;swbreak:;" },
		{ POINT_EXECUTE, "Z1,1000,1", "T05thread:1;hwbreak:;" },
		{ POINT_WRITE, "Z2,1000,4", "T05thread:1;watch:1000;" },
		{ POINT_READ, "Z3,1000,4", "T05thread:1;rwatch:1000;" },
		{ POINT_ACCESS, "Z4,1000,4", "T05thread:1;awatch:1000;" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		char clear[16];

		ask("qSupported:swbreak+;hwbreak+");
		SAYS(table[i].set, "OK");
		SILENT("vCont;c");
		t.stopped[0] = true;
		t.kind = table[i].kind;
		t.gla = 0x1000;
		gdb_target_stopped(t.gdb);
		SAYS("?", table[i].says);
		snprintf(clear, sizeof(clear), "z%s", table[i].set + 1);
		SAYS(clear, "OK");
	}
	/* A client that does not know the reason does not get it. */
	ask("qSupported");
	SAYS("Z0,1000,1", "OK");
	SILENT("vCont;c");
	t.stopped[0] = true;
	t.kind = POINT_EXECUTE;
	gdb_target_stopped(t.gdb);
	SAYS("?", "T05thread:1;");
}

static void ends(void **state)
{
	(void)state;
	SAYS("Z0,1000,1", "OK");
	SAYS("D", "OK");
	assert_true(t.running && gdb_detached(t.gdb));
	assert_non_null(strstr(t.points, "-0:1000,1"));
	bytes("\3", 1);
	assert_true(t.running);
	SAYS("g", "E16");
	gdb_detach(t.gdb);
	/* The next one; it goes without a word while the guest runs. */
	gdb_attach(t.gdb);
	t.points[0] = '\0';
	SAYS("Z1,3000,1", "OK");
	SILENT("vCont;c:1");
	gdb_detach(t.gdb);
	assert_non_null(strstr(t.points, "-0:3000,1"));
	assert_int_equal(t.order[1], VCPU_GO);
	assert_true(t.running);
	gdb_attach(t.gdb);
	SILENT("k");
	assert_true(t.killed);
}

static void nonsense(void **state)
{
	static const char alphabet[] =
	    "$#}+-\3*?CDGHMPQTXZcgkmpqsvz0123456789abcdef,;:="
	    "vContqSupportedXferThread\0\x80\xff";
	char text[64], frame[GDB_FRAME_MAX(sizeof(text))];

	(void)state;
	srandom(1);
	for (unsigned i = 0; i < 200000; i++) {
		size_t n = (size_t)random() % sizeof(text);

		for (size_t k = 0; k < n; k++)
			text[k] = alphabet[(size_t)random() % sizeof(alphabet)];
		if (i % 2 == 0)
			bytes(text, n);
		else
			bytes(frame, gdb_frame(frame, text, n));
		if (gdb_detached(t.gdb))
			gdb_attach(t.gdb);
		if (t.running)
			bytes("#00\3", 4);
	}
}

/* The port of a machine that runs. */

struct fixture {
	struct config *cfg;
	struct machine *m;
	struct gdb_server *server;
	pthread_t thread;
	enum suspend_reason why;
	unsigned port;
	bool ended;
};

static unsigned free_port(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
	close(fd);
	return ntohs(sin.sin_port);
}

static void *run(void *arg)
{
	struct fixture *f = arg;

	f->why = machine_run(f->m);
	return NULL;
}

/* Two CPUs; the first executes "1: inc eax; inc dword [0x7d00]; jmp 1b" at 0x7c00.
 */
static struct machine *make(struct fixture *f, const struct engine_ops *ops)
{
	static const uint8_t code[] = { 0x66, 0x40, 0x66, 0xff, 0x06, 0x00, 0x7d,
		0xeb, 0xf7 };
	char text[8];
	struct vcpu_state s;

	f->port = free_port();
	snprintf(text, sizeof(text), "%u", f->port);
	f->cfg = config_new();
	config_set(f->cfg, "memory.size", "2M");
	config_set(f->cfg, "cpus", "2");
	config_set(f->cfg, "gdb.port", text);
	assert_int_equal(machine_create(&f->m, f->cfg, ops), 0);
	assert_int_equal(memory_write(&f->m->mem, 0x7c00, code, sizeof(code)), 0);
	vcpu_state_reset(&s, 0);
	s.seg[SEG_CS].base = s.seg[SEG_CS].sel = 0;
	s.rip = 0x7c00;
	assert_int_equal(vcpu_set_state(&f->m->vcpu[0], &s), 0);
	return f->m;
}

static void start(struct fixture *f, bool wait)
{
	make(f, &engine_soft);
	if (wait)
		config_set(f->cfg, "gdb.wait", "true");
	assert_int_equal(gdb_server_create(&f->server, f->m), 0);
	assert_non_null(f->server);
	pthread_create(&f->thread, NULL, run, f);
}

static int server_setup(void **state)
{
	*state = calloc(1, sizeof(struct fixture));
	assert_non_null(*state);
	return 0;
}

static int server_teardown(void **state)
{
	struct fixture *f = *state;

	if (f->thread != 0 && !f->ended) {
		machine_suspend(f->m, SUSPEND_POWEROFF);
		pthread_join(f->thread, NULL);
	}
	gdb_server_destroy(f->server);
	machine_destroy(f->m);
	config_free(f->cfg);
	free(f);
	return 0;
}

static int dial(const struct fixture *f)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct timeval timeout = { .tv_sec = 10 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sin.sin_port = htons((uint16_t)f->port);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	char frame[256];
	size_t n = gdb_frame(frame, text, strlen(text));

	assert_int_equal(send(fd, frame, n, MSG_NOSIGNAL), n);
}

/* The next packet; NULL: the connection ended. */
static const char *hear(int fd)
{
	static struct gdb_parser p;
	char byte;

	memset(&p, 0, sizeof(p));
	while (recv(fd, &byte, 1, 0) == 1)
		if (gdb_parse(&p, (uint8_t)byte) == GDB_PACKET)
			return p.buf;
	return NULL;
}

static const char *talk(int fd, const char *text)
{
	say(fd, text);
	return hear(fd);
}

static uint32_t count(const struct fixture *f)
{
	return __atomic_load_n(
	    (uint32_t *)(void *)(f->m->mem.base + 0x7d00), __ATOMIC_RELAXED);
}

static void wait_count(const struct fixture *f, uint32_t past)
{
	for (unsigned i = 0; i < 10000 && count(f) <= past; i++)
		usleep(1000);
	assert_true(count(f) > past);
}

static void debug(void **state)
{
	struct fixture *f = *state;
	uint32_t n;
	int fd, other;

	start(f, false);
	wait_count(f, 10);
	fd = dial(f);
	assert_string_equal(talk(fd, "?"), "T05thread:1;");
	n = count(f);
	assert_string_equal(talk(fd, "Z0,7c07,1"), "OK");
	for (unsigned i = 1; i < 10; i++) {
		say(fd, "vCont;c");
		assert_string_equal(hear(fd), "T05thread:1;");
		assert_string_equal(talk(fd, "p10"), "077c000000000000");
		say(fd, "vCont;s:1");
		assert_string_equal(hear(fd), "T05thread:1;");
		assert_string_equal(talk(fd, "p10"), "007c000000000000");
	}
	assert_in_range(
	    count(f) - n, 8, 9); /* it was stopped somewhere in between */
	/* Only one at a time. */
	other = dial(f);
	assert_null(hear(other));
	close(other);
	assert_string_equal(talk(fd, "T1"), "OK");
	/* Code that is written is code that runs: inc eax becomes dec eax. */
	assert_string_equal(talk(fd, "z0,7c07,1"), "OK");
	assert_string_equal(talk(fd, "M7c01,1:48"), "OK");
	assert_string_equal(talk(fd, "P0=0000000000000000"), "OK");
	assert_string_equal(talk(fd, "P10=007c000000000000"), "OK");
	say(fd, "vCont;s:1");
	hear(fd);
	assert_string_equal(talk(fd, "p0"), "ffffffff00000000");
	/* A watchpoint; then the other CPU, which was never started. */
	assert_string_equal(talk(fd, "Z2,7d00,4"), "OK");
	say(fd, "vCont;c");
	assert_string_equal(hear(fd), "T05thread:1;watch:7d00;");
	assert_string_equal(talk(fd, "Hg2"), "OK");
	assert_string_equal(talk(fd, "p10"), "f0ff000000000000");
	/* "vCPU 1 (not started)" */
	assert_string_equal(talk(fd, "qThreadExtraInfo,2"),
	    "7643505520312028"
	    "6e6f74207374617274656429");
	assert_string_equal(talk(fd, "m200000,1"), "E0e");
	assert_string_equal(
	    talk(fd, "mfee00030,4"), "14000500"); /* LAPIC version */
	say(fd, "vCont;c:2");
	n = count(f);
	assert_int_equal(send(fd, "\3", 1, 0), 1);
	assert_string_equal(hear(fd), "T02thread:2;");
	assert_int_equal(count(f), n);
	/* It goes, and the guest with it - on. */
	close(fd);
	wait_count(f, n + 1000);
	fd = dial(f);
	assert_string_equal(talk(fd, "?"), "T05thread:1;");
	n = count(f);
	assert_string_equal(talk(fd, "D"), "OK");
	wait_count(f, n + 1000);
	/* It need not hang up: the next takes its place. */
	other = dial(f);
	assert_string_equal(talk(other, "?"), "T05thread:1;");
	assert_null(hear(fd));
	close(fd);
	say(other, "k");
	pthread_join(f->thread, NULL);
	f->ended = true;
	assert_int_equal(f->why, SUSPEND_POWEROFF);
	close(other);
}

static void wait_for_client(void **state)
{
	struct fixture *f = *state;
	int fd;

	start(f, true);
	fd = dial(f);
	assert_string_equal(talk(fd, "?"), "T05thread:1;");
	assert_string_equal(talk(fd, "p10"), "007c000000000000");
	assert_string_equal(talk(fd, "p0"), "0000000000000000");
	assert_int_equal(count(f), 0);
	say(fd, "vCont;s:1;c");
	assert_string_equal(hear(fd), "T05thread:1;");
	assert_string_equal(talk(fd, "p10"), "027c000000000000");
	close(fd);
	wait_count(f, 1000);
}

/* The VM ends though the debugger holds it: whoever ends it. */
static void end_while_held(void **state)
{
	struct fixture *f = *state;

	start(f, true);
	machine_suspend(f->m, SUSPEND_RESET);
	pthread_join(f->thread, NULL);
	f->ended = true;
	assert_int_equal(f->why, SUSPEND_RESET);
}

static void hostile_clients(void **state)
{
	struct fixture *f = *state;
	static char big[1 << 16];
	int fd;

	start(f, false);
	/* Asks and never reads: it is not listened to for ever. */
	fd = dial(f);
	for (unsigned i = 0; i < 20000; i++) {
		char frame[64];
		size_t n = gdb_frame(frame, "m0,1fff", 7);

		if (send(fd, frame, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
	}
	close(fd);
	fd = dial(f);
	assert_non_null(hear(fd) == NULL ? "" : "x");
	close(fd);
	/* Negative acknowledgements, wrong sums, half packets. */
	srandom(2);
	for (unsigned i = 0; i < 20; i++) {
		for (size_t k = 0; k < sizeof(big); k++)
			big[k] = "-$#+00\3}vCont;c"[random() % 15];
		fd = dial(f);
		for (size_t k = 0; k < sizeof(big); k += 1024)
			if (send(fd, big + k, 1024, MSG_NOSIGNAL | MSG_DONTWAIT) <
			    0)
				break;
		close(fd);
	}
	wait_count(f, count(f) + 1000);
}

static void refusals(void **state)
{
	struct fixture *f = *state;
	struct engine_ops less = engine_soft;
	struct gdb_server *s = NULL;
	char text[8];
	unsigned port;
	int fd;

	less.point = NULL;
	make(f, &less);
	assert_int_equal(gdb_server_create(&s, f->m), -ENOTSUP);
	f->m->ops = &engine_soft;
	/* Taken by somebody else. */
	{
		struct sockaddr_in sin = { .sin_family = AF_INET };

		port = free_port();
		sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		sin.sin_port = htons((uint16_t)port);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
		assert_int_equal(listen(fd, 1), 0);
	}
	snprintf(text, sizeof(text), "%u", port);
	config_set(f->cfg, "gdb.port", text);
	assert_int_equal(gdb_server_create(&s, f->m), -EADDRINUSE);
	close(fd);
	config_set(f->cfg, "gdb.address", "not/a/host");
	assert_int_equal(gdb_server_create(&s, f->m), -EINVAL);
	config_set(f->cfg, "gdb.address", "127.0.0.1");
	assert_int_equal(gdb_server_create(&s, f->m), 0);
	gdb_server_destroy(s);
	config_set(f->cfg, "gdb.port", "0");
	assert_int_equal(gdb_server_create(&s, f->m), 0);
	assert_null(s);
}

int main(void)
{
#define PROTOCOL(name)                                                             \
	cmocka_unit_test_setup_teardown(name, protocol_setup, protocol_teardown)
#define SERVER(name)                                                               \
	cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(packets),
		cmocka_unit_test(long_packets),
		cmocka_unit_test(hex),
		PROTOCOL(questions),
		PROTOCOL(acknowledgements),
		PROTOCOL(description),
		PROTOCOL(registers),
		PROTOCOL(memory),
		PROTOCOL(points),
		PROTOCOL(go_on),
		PROTOCOL(reasons),
		PROTOCOL(ends),
		PROTOCOL(nonsense),
		SERVER(debug),
		SERVER(wait_for_client),
		SERVER(end_while_held),
		SERVER(hostile_clients),
		SERVER(refusals),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
