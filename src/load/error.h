/*
 * Why a loader refuses: a sentence for the user, who sees it at GRUB's prompt.
 */
#pragma once

struct load_error {
	char text[256];
};

/* Sets the text; -EINVAL. */
__attribute__((format(printf, 2, 3))) int load_fail(
    struct load_error *e, const char *fmt, ...);
/* Says that the VM object could not be written (err: -errno); returns err. */
int load_write_failed(struct load_error *e, int err);
