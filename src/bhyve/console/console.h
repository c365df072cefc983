/*
 * Character back ends for the UARTs: stdio, a tty path, a null modem, tcp. A back
 * end never blocks; bytes it cannot take stay in the UART, which tells the guest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/tty.h"

struct event_loop;
struct chardev;
struct uart;

/*
 * Opens "stdio", "/dev/...", "tcp=ip:port". option names it in messages. 0 or
 * -errno (logged).
 */
int chardev_open(struct chardev **c, struct event_loop *loop, const char *spec,
    const char *option);
/* NULL is fine. */
void chardev_close(struct chardev *c);
/* Bytes taken, 0: none now (writable() will be called). Nobody there takes all. */
size_t chardev_write(struct chardev *c, const uint8_t *buf, size_t len);
/* Bytes read, 0: none now (readable() will be called once there are). */
size_t chardev_read(struct chardev *c, uint8_t *buf, size_t len);
/* want_read false: stop polling for input (the receiver is full). */
void chardev_poll(struct chardev *c, bool want_read, bool want_write);
void chardev_set_callbacks(struct chardev *c, void (*readable)(void *arg),
    void (*writable)(void *arg), void *arg);
/* Writes the last bytes before closing; gives up when the reader stands still. */
void chardev_flush(struct chardev *c, const uint8_t *buf, size_t len);

/*
 * uart.c - 16550A. irq() is called on every change of the line; machine lock held.
 */
int uart_create(struct uart **u, void (*irq)(void *arg, bool level), void *arg);
/* NULL is fine. */
void uart_destroy(struct uart *u);
void uart_attach(struct uart *u, struct chardev *c); /* takes ownership */
uint8_t uart_read(struct uart *u, unsigned reg);
void uart_write(struct uart *u, unsigned reg, uint8_t v);
