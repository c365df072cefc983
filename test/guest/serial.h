/* For kernels of tests that bring nothing of lib.c: text on com1, ports. */
#pragma once

static inline void outb(unsigned short port, unsigned char v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline unsigned char inb(unsigned short port)
{
	unsigned char v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline void put(char c)
{
	while ((inb(0x3fd) & 0x20) == 0)
		;
	outb(0x3f8, (unsigned char)c);
}

static inline void print(const char *s)
{
	while (*s)
		put(*s++);
}
