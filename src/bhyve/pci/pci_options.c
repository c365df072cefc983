/*
 * "-s slot,emulation[,conf]" into configuration keys. Slots: S, S:F or B:S:F.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bhyve/pci/pci_int.h"
#include "lib/config.h"
#include "lib/log.h"

static int set(
    struct config *cfg, const char *node, const char *name, const char *value)
{
	int error = config_setf(cfg, value, "%s.%s", node, name);

	if (error != 0)
		log_error("-s: \"%s=%s\" is not an option a device can have", name,
		    value);
	return error;
}

int pci_check_option(const char *node, const char *known, const char *name)
{
	size_t len = strlen(name);
	const char *p = known;

	while (len > 0 && (p = strstr(p, name)) != NULL) {
		if ((p == known || p[-1] == ' ') &&
		    (p[len] == ' ' || p[len] == '\0'))
			return 0;
		p += len;
	}
	log_error("%s: unknown option \"%s\"; there %s %s", node, name,
	    *known != '\0' ? "are" : "is", *known != '\0' ? known : "none");
	return -EINVAL;
}

int pci_parse_options(
    struct config *cfg, const char *node, const char *known, const char *text)
{
	char *copy, *rest, *word;
	int error = 0;

	if (text == NULL || *text == '\0')
		return 0;
	copy = rest = strdup(text);
	if (copy == NULL)
		return -ENOMEM;
	while (error == 0 && (word = strsep(&rest, ",")) != NULL) {
		char *value = strchr(word, '=');

		if (*word == '\0')
			continue;
		if (value != NULL)
			*value++ = '\0';
		error = pci_check_option(node, known, word);
		if (error == 0)
			error = set(
			    cfg, node, word, value != NULL ? value : "true");
	}
	free(copy);
	return error;
}

/*
 * Up to three numbers with colons between them; the last is the function unless
 * alone.
 */
static int parse_address(
    const char *text, size_t len, unsigned *b, unsigned *s, unsigned *f)
{
	unsigned long v[3];
	char buf[32], *p = buf, *end;
	unsigned n = 0;

	if (len == 0 || len >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text, len);
	buf[len] = '\0';
	for (;;) {
		if (n == 3 || *p < '0' || *p > '9')
			return -EINVAL;
		v[n++] = strtoul(p, &end, 10);
		if (*end == '\0')
			break;
		if (*end != ':')
			return -EINVAL;
		p = end + 1;
	}
	unsigned long bus = n == 3 ? v[0] : 0, slot = n == 3 ? v[1] : v[0];
	unsigned long func = n == 1 ? 0 : v[n - 1];

	if (bus > 255 || slot > 31 || func > 7)
		return -EINVAL;
	*b = (unsigned)bus;
	*s = (unsigned)slot;
	*f = (unsigned)func;
	return 0;
}

int pci_parse_slot(struct config *cfg, const char *text)
{
	const struct pci_class *cls;
	const char *emul, *conf;
	char node[32], name[64];
	unsigned b, s, f;
	size_t len;

	/* Any prefix of "help", as bhyve has it. */
	if (strncmp(text, "help", strlen(text)) == 0) {
		pci_print_classes();
		return 1;
	}
	emul = strchr(text, ',');
	if (emul == NULL) {
		log_error(
		    "-s %s: no device given; write slot,device[,options], as in "
		    "'-s 3,virtio-blk,disk.img'",
		    text);
		return -EINVAL;
	}
	if (parse_address(text, (size_t)(emul - text), &b, &s, &f) != 0) {
		log_error("-s %s: the slot is not S, S:F or B:S:F with bus 0-255, "
			  "slot 0-31 "
			  "and function 0-7",
		    text);
		return -EINVAL;
	}
	emul++;
	conf = strchr(emul, ',');
	len = conf != NULL ? (size_t)(conf - emul) : strlen(emul);
	snprintf(name, sizeof(name), "%.*s", (int)MIN(len, sizeof(name) - 1), emul);
	conf = conf != NULL ? conf + 1 : NULL;
	snprintf(node, sizeof(node), "pci.%u.%u.%u", b, s, f);
	if (config_has(cfg, node)) {
		log_error("pci slot %u:%u:%u already occupied!", b, s, f);
		return -EINVAL;
	}
	cls = pci_class_find(name);
	if (cls == NULL) {
		log_error("pci slot %u:%u:%u: unknown device \"%s\"; 'bhyve -s "
			  "help' lists "
			  "them",
		    b, s, f, name);
		return -EINVAL;
	}
	if (set(cfg, node, "device", name) != 0)
		return -EINVAL;
	if (cls->parse == NULL)
		return pci_parse_options(cfg, node, "", conf);
	return cls->parse(cfg, node, conf);
}
