/* The VM's UUID: given, or the same for the same VM on the same host. */
#include <ctype.h>
#include <md5.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bhyve/tables/tables_int.h"
#include "lib/config.h"
#include "vmm/machine.h"

/* 8-4-4-4-12 hexadecimal digits. */
static bool parse(const char *s, uint8_t uuid[16])
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	unsigned n = 0;

	if (strlen(s) != sizeof(form) - 1)
		return false;
	for (unsigned i = 0; i < sizeof(form) - 1; i++) {
		unsigned char c = (unsigned char)s[i];

		if (form[i] == '-') {
			if (c != '-')
				return false;
			continue;
		}
		if (!isxdigit(c))
			return false;
		int v = isdigit(c) ? c - '0' : tolower(c) - 'a' + 10;

		uuid[n / 2] = (uint8_t)(n & 1 ? uuid[n / 2] | v : v << 4);
		n++;
	}
	return true;
}

void uuid_get(const struct machine *m, uint8_t uuid[16])
{
	const char *text = config_get(m->cfg, "uuid"),
		   *name = config_get(m->cfg, "name");
	char host[256] = "";
	MD5_CTX md5;

	if (text != NULL && parse(text, uuid))
		return;
	gethostname(host, sizeof(host) - 1);
	MD5Init(&md5);
	if (name != NULL)
		MD5Update(&md5, (const uint8_t *)name, strlen(name));
	MD5Update(&md5, (const uint8_t *)host, strlen(host));
	MD5Final(uuid, &md5);
	/* Version 3, variant of RFC 4122. */
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x30);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}
