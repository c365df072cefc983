/*
 * See regs.h. Names, order and types are those of GDB's features
 * org.gnu.gdb.i386.core, .sse and .segments for 64 bits (GDB manual, "i386
 * Features"). The FPU is the FXSAVE form in the state (SDM vol. 1, table 10-2);
 * only its tags look different to GDB.
 */
#include "bhyve/gdb/regs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util.h"
#include "vmm/state.h"

#define FX_FCW        0
#define FX_FSW        2
#define FX_FTW        4
#define FX_FOP        6
#define FX_FIP        8
#define FX_FDP        16
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST         32
#define FX_XMM        160
#define FX_END        416
#define XSTATE_BV     512
#define XSTATE_X87    1u
#define XSTATE_SSE    2u
#define FCW_INIT      0x37f

enum feature { CORE, SSE, SEGMENTS, SYSTEM };

/* size: for GDB; width: in the state, what is above reads as zero. */
struct reg {
	char name[10];
	const char *type;
	uint8_t feature, size, width;
	enum { PLAIN, SELECTOR, TAGS } kind;
	uint16_t offset;
};

#define FIELD(f) offsetof(struct vcpu_state, f)
#define GPR(n, i, t)                                                               \
	{                                                                          \
		n, t, CORE, 8, 8, PLAIN, FIELD(gpr) + 8 * (i)                      \
	}
#define SEL(n, i)                                                                  \
	{                                                                          \
		n, "int32", CORE, 4, 2, SELECTOR,                                  \
		    FIELD(seg) + (i) * sizeof(struct vcpu_seg) +                   \
			offsetof(struct vcpu_seg, sel)                             \
	}
#define ST(n)                                                                      \
	{                                                                          \
		"st" #n, "i387_ext", CORE, 10, 10, PLAIN,                          \
		    FIELD(fpu) + FX_ST + 16 * (n)                                  \
	}
#define X87(n, at, w)                                                              \
	{                                                                          \
		n, "int", CORE, 4, w, PLAIN, FIELD(fpu) + (at)                     \
	}
#define XMM(n)                                                                     \
	{                                                                          \
		"xmm" #n, "vec128", SSE, 16, 16, PLAIN,                            \
		    FIELD(fpu) + FX_XMM + 16 * (n)                                 \
	}
#define SYS(n, f, t)                                                               \
	{                                                                          \
		n, t, SYSTEM, 8, 8, PLAIN, FIELD(f)                                \
	}
#define BASE(n, i)                                                                 \
	{                                                                          \
		n, "int64", SEGMENTS, 8, 8, PLAIN,                                 \
		    FIELD(seg) + (i) * sizeof(struct vcpu_seg) +                   \
			offsetof(struct vcpu_seg, base)                            \
	}

static const struct reg regs[] = {
	GPR("rax", GPR_RAX, "int64"),
	GPR("rbx", GPR_RBX, "int64"),
	GPR("rcx", GPR_RCX, "int64"),
	GPR("rdx", GPR_RDX, "int64"),
	GPR("rsi", GPR_RSI, "int64"),
	GPR("rdi", GPR_RDI, "int64"),
	GPR("rbp", GPR_RBP, "data_ptr"),
	GPR("rsp", GPR_RSP, "data_ptr"),
	GPR("r8", GPR_R8, "int64"),
	GPR("r9", GPR_R9, "int64"),
	GPR("r10", GPR_R10, "int64"),
	GPR("r11", GPR_R11, "int64"),
	GPR("r12", GPR_R12, "int64"),
	GPR("r13", GPR_R13, "int64"),
	GPR("r14", GPR_R14, "int64"),
	GPR("r15", GPR_R15, "int64"),
	{ "rip", "code_ptr", CORE, 8, 8, PLAIN, FIELD(rip) },
	{ "eflags", "flags", CORE, 4, 4, PLAIN, FIELD(rflags) },
	SEL("cs", SEG_CS),
	SEL("ss", SEG_SS),
	SEL("ds", SEG_DS),
	SEL("es", SEG_ES),
	SEL("fs", SEG_FS),
	SEL("gs", SEG_GS),
	ST(0),
	ST(1),
	ST(2),
	ST(3),
	ST(4),
	ST(5),
	ST(6),
	ST(7),
	X87("fctrl", FX_FCW, 2),
	X87("fstat", FX_FSW, 2),
	{ "ftag", "int", CORE, 4, 1, TAGS, FIELD(fpu) + FX_FTW },
	X87("fiseg", FX_FIP + 4, 4),
	X87("fioff", FX_FIP, 4),
	X87("foseg", FX_FDP + 4, 4),
	X87("fooff", FX_FDP, 4),
	X87("fop", FX_FOP, 2),
	XMM(0),
	XMM(1),
	XMM(2),
	XMM(3),
	XMM(4),
	XMM(5),
	XMM(6),
	XMM(7),
	XMM(8),
	XMM(9),
	XMM(10),
	XMM(11),
	XMM(12),
	XMM(13),
	XMM(14),
	XMM(15),
	{ "mxcsr", "int", SSE, 4, 4, PLAIN, FIELD(fpu) + FX_MXCSR },
	BASE("fs_base", SEG_FS),
	BASE("gs_base", SEG_GS),
	SYS("k_gs_base", kernel_gs_base, "int64"),
	SYS("cr0", cr0, "int64"),
	SYS("cr2", cr2, "int64"),
	SYS("cr3", cr3, "int64"),
	SYS("cr4", cr4, "int64"),
	SYS("cr8", cr8, "int64"),
	SYS("efer", efer, "int64"),
};

unsigned gdb_reg_count(void)
{
	return ARRAY_SIZE(regs);
}

unsigned gdb_reg_size(unsigned n)
{
	return regs[n].size;
}

void gdb_regs_prepare(struct vcpu_state *s)
{
	static const uint8_t fcw[2] = { FCW_INIT & 0xff, FCW_INIT >> 8 };
	uint8_t *bv = &s->fpu[XSTATE_BV];

	if (!(*bv & XSTATE_X87)) {
		memset(s->fpu, 0, FX_MXCSR);
		memset(s->fpu + FX_ST, 0, FX_XMM - FX_ST);
		memcpy(s->fpu + FX_FCW, fcw, sizeof(fcw));
	}
	if (!(*bv & XSTATE_SSE))
		memset(s->fpu + FX_XMM, 0, FX_END - FX_XMM);
	*bv |= XSTATE_X87 | XSTATE_SSE;
}

/* Two bits a physical register: valid, zero, special, empty (SDM vol. 1, 8.1.7). */
static uint16_t full_tags(const struct vcpu_state *s)
{
	unsigned top = s->fpu[FX_FSW + 1] >> 3 & 7;
	uint16_t tags = 0;

	for (unsigned i = 0; i < 8; i++) {
		const uint8_t *st = s->fpu + FX_ST + 16 * ((i - top) & 7);
		unsigned exponent = st[8] | (st[9] & 0x7fu) << 8, tag = 2;
		uint64_t mantissa;

		memcpy(&mantissa, st, sizeof(mantissa));
		if (!(s->fpu[FX_FTW] & BIT(i)))
			tag = 3;
		else if (exponent == 0 && mantissa == 0)
			tag = 1;
		else if (exponent != 0 && exponent != 0x7fff && mantissa >> 63)
			tag = 0;
		tags |= (uint16_t)(tag << 2 * i);
	}
	return tags;
}

void gdb_reg_get(const struct vcpu_state *s, unsigned n, uint8_t *buf)
{
	const struct reg *r = &regs[n];
	uint16_t tags;

	memset(buf, 0, r->size);
	if (r->kind == TAGS) {
		tags = full_tags(s);
		memcpy(buf, &tags, sizeof(tags));
	} else {
		memcpy(buf, (const uint8_t *)s + r->offset, r->width);
	}
}

static int set_tags(struct vcpu_state *s, const uint8_t *buf)
{
	if (buf[2] != 0 || buf[3] != 0)
		return -EINVAL;
	s->fpu[FX_FTW] = 0;
	for (unsigned i = 0; i < 8; i++)
		if ((buf[i / 4] >> 2 * (i % 4) & 3) != 3)
			s->fpu[FX_FTW] |= BIT(i);
	return 0;
}

int gdb_reg_set(struct vcpu_state *s, unsigned n, const uint8_t *buf)
{
	const struct reg *r = &regs[n];
	uint8_t *field = (uint8_t *)s + r->offset;

	if (r->kind == TAGS)
		return set_tags(s, buf);
	for (unsigned i = r->width; i < r->size; i++)
		if (buf[i] != 0)
			return -EINVAL;
	/* A selector alone is no segment: its descriptor would not follow. */
	if (r->kind == SELECTOR)
		return memcmp(field, buf, r->width) == 0 ? 0 : -EINVAL;
	/* All of RFLAGS above bit 31 is zero. */
	memcpy(field, buf, r->width);
	return 0;
}

static const char flags_type[] = "<flags id=\"flags\" size=\"4\">"
				 "<field name=\"CF\" start=\"0\" end=\"0\"/>"
				 "<field name=\"\" start=\"1\" end=\"1\"/>"
				 "<field name=\"PF\" start=\"2\" end=\"2\"/>"
				 "<field name=\"AF\" start=\"4\" end=\"4\"/>"
				 "<field name=\"ZF\" start=\"6\" end=\"6\"/>"
				 "<field name=\"SF\" start=\"7\" end=\"7\"/>"
				 "<field name=\"TF\" start=\"8\" end=\"8\"/>"
				 "<field name=\"IF\" start=\"9\" end=\"9\"/>"
				 "<field name=\"DF\" start=\"10\" end=\"10\"/>"
				 "<field name=\"OF\" start=\"11\" end=\"11\"/>"
				 "<field name=\"NT\" start=\"14\" end=\"14\"/>"
				 "<field name=\"RF\" start=\"16\" end=\"16\"/>"
				 "<field name=\"VM\" start=\"17\" end=\"17\"/>"
				 "<field name=\"AC\" start=\"18\" end=\"18\"/>"
				 "<field name=\"VIF\" start=\"19\" end=\"19\"/>"
				 "<field name=\"VIP\" start=\"20\" end=\"20\"/>"
				 "<field name=\"ID\" start=\"21\" end=\"21\"/>"
				 "</flags>";

static const char vector_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\">"
    "<field name=\"v4_float\" type=\"v4f\"/>"
    "<field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/>"
    "<field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/>"
    "<field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/>"
    "</union>";

char *gdb_target_xml(void)
{
	static const struct {
		const char *name, *types;
	} features[] = {
		[CORE] = { "org.gnu.gdb.i386.core", flags_type },
		[SSE] = { "org.gnu.gdb.i386.sse", vector_types },
		[SEGMENTS] = { "org.gnu.gdb.i386.segments", "" },
		[SYSTEM] = { "bhyve.system", "" },
	};
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (f == NULL)
		return NULL;
	fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
	      "<target><architecture>i386:x86-64</architecture>",
	    f);
	for (size_t i = 0, n = 0; i < ARRAY_SIZE(features); i++) {
		fprintf(f, "<feature name=\"%s\">%s", features[i].name,
		    features[i].types);
		for (; n < ARRAY_SIZE(regs) && regs[n].feature == i; n++)
			fprintf(f,
			    "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"%s/>",
			    regs[n].name, regs[n].size * 8u, regs[n].type,
			    regs[n].feature == SYSTEM ? " group=\"system\"" : "");
		fputs("</feature>", f);
	}
	fputs("</target>", f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
