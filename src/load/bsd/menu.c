/*
 * The menu: boot, single user, prompt, reboot, the kernel, options; a countdown
 * that a key stops. Keys and words are those of FreeBSD's own menu.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/util.h"
#include "load/bsd/loader.h"

#define DELAY_USUAL  10
#define KERNELS_MAX  32
#define CLEAR        "\033[H\033[J"
#define TIMEOUT_LINE "\033[22;1H"
#define BELOW        "\033[24;1H"

enum screen { MAIN, OPTIONS };

struct menu {
	struct loader *l;
	enum screen screen;
	char *kernel[KERNELS_MAX];
	unsigned kernels, kernel_at;
	bool done;
};

static bool is_yes(struct loader *l, const char *name)
{
	const char *v = env_get(&l->env, name);

	return v != NULL && strcasecmp(v, "no") != 0;
}

static bool has_acpi(struct loader *l)
{
	const char *v = env_get(&l->env, "hint.acpi.0.disabled");

	return v == NULL || strcmp(v, "1") != 0;
}

static void set_yes(struct loader *l, const char *name, bool on)
{
	if (on)
		(void)env_set(&l->env, name, "YES");
	else
		env_unset(&l->env, name);
}

static void set_acpi(struct loader *l, bool on)
{
	(void)env_set(&l->env, "hint.acpi.0.disabled", on ? "0" : "1");
}

static void set_safe(struct loader *l, bool on)
{
	static const char *const safe[][2] = {
		{ "kern.smp.disabled", "1" },
		{ "hw.ata.ata_dma", "0" },
		{ "hw.ata.atapi_dma", "0" },
		{ "kern.eventtimer.periodic", "1" },
		{ "kern.geom.part.check_integrity", "0" },
		{ "boot_safe", "YES" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(safe); i++) {
		if (on)
			(void)env_set(&l->env, safe[i][0], safe[i][1]);
		else
			env_unset(&l->env, safe[i][0]);
	}
}

static void add_kernel(struct menu *m, const char *name, size_t len)
{
	for (unsigned i = 0; i < m->kernels; i++)
		if (strlen(m->kernel[i]) == len &&
		    memcmp(m->kernel[i], name, len) == 0)
			return;
	if (len == 0 || m->kernels == KERNELS_MAX)
		return;
	char *copy = strndup(name, len);
	if (copy != NULL)
		m->kernel[m->kernels++] = copy;
}

static bool add_directory(void *arg, const char *name, uint64_t id)
{
	struct menu *m = arg;
	char path[FS_PATH_MAX];
	struct node n;
	struct fs *fs;

	(void)id;
	snprintf(path, sizeof(path), "/boot/%s/kernel", name);
	if (dev_walk(&m->l->dev, path, &fs, &n) == 0 && n.type == NODE_FILE)
		add_kernel(m, name, strlen(name));
	return m->kernels < KERNELS_MAX;
}

static void find_kernels(struct menu *m)
{
	struct loader *l = m->l;
	const char *first = env_get(&l->env, "kernel");
	const char *list = env_get(&l->env, "kernels");
	struct node n;
	struct fs *fs;

	if (first == NULL || first[0] == '\0')
		first = "kernel";
	add_kernel(m, first, strlen(first));
	while (list != NULL && *list != '\0') {
		size_t len = strcspn(list, ";, ");
		add_kernel(m, list, len);
		list += len + strspn(list + len, ";, ");
	}
	const char *detect = env_get(&l->env, "kernels_autodetect");
	if ((detect == NULL || strcasecmp(detect, "yes") == 0) &&
	    dev_walk(&l->dev, "/boot", &fs, &n) == 0 && n.type == NODE_DIR)
		(void)fs->ops->list(fs, &n, add_directory, m);
}

static const char *on_off(bool on)
{
	return on ? "On" : "off";
}

static void draw(struct menu *m)
{
	struct console *c = &m->l->con;
	struct loader *l = m->l;
	bool single = is_yes(l, "boot_single");

	con_raw(c, CLEAR);
	if (m->screen == OPTIONS) {
		con_printf(c, "\n  +---------- Boot Options ----------+\n\n");
		con_printf(c, "    1. Back to main menu [Backspace]\n");
		con_printf(c, "    2. Load System [D]efaults\n\n");
		con_printf(c, "    Boot Options:\n");
		con_printf(c, "    3. [A]CPI       : %s\n", on_off(has_acpi(l)));
		con_printf(c, "    4. Safe [M]ode  : %s\n",
		    on_off(is_yes(l, "boot_safe")));
		con_printf(c, "    5. [S]ingle user: %s\n", on_off(single));
		con_printf(c, "    6. [V]erbose    : %s\n",
		    on_off(is_yes(l, "boot_verbose")));
	} else {
		const char *title = env_get(&l->env, "loader_menu_title");
		con_printf(c, "\n  +------- %s -------+\n\n",
		    title != NULL ? title : "Welcome to FreeBSD");
		con_printf(c, "    1. Boot %s%s\n",
		    single ? "[S]ingle user" : "Multi user", " [Enter]");
		con_printf(
		    c, "    2. Boot %s\n", single ? "Multi user" : "[S]ingle user");
		con_printf(c, "    3. [Esc]ape to loader prompt\n");
		con_printf(c, "    4. [R]eboot\n\n");
		con_printf(c, "    Options:\n");
		con_printf(c, "    5. [K]ernel: %s (%u of %u)\n",
		    m->kernel[m->kernel_at], m->kernel_at + 1, m->kernels);
		con_printf(c, "    6. Boot [O]ptions\n");
	}
	con_raw(c, BELOW);
}

static void boot(struct menu *m, bool single)
{
	struct loader *l = m->l;

	set_yes(l, "boot_single", single);
	l->autoboot_done = true;
	m->done = true;
	con_printf(&l->con, "\n");
	if (boot_now(l, NULL) != 0)
		con_printf(&l->con, "%s\n", l->error);
}

static void next_kernel(struct menu *m)
{
	if (m->kernels == 0) /* no memory for a name */
		return;
	m->kernel_at = (m->kernel_at + 1) % m->kernels;
	load_forget(m->l);
	free(m->l->conf.chosen_kernel);
	m->l->conf.chosen_kernel = strdup(m->kernel[m->kernel_at]);
}

static void leave(struct menu *m)
{
	(void)env_set(&m->l->env, "autoboot_delay", "NO");
	m->done = true;
	con_printf(&m->l->con, "Exiting menu!\n");
}

/* true: the key means something. */
static bool main_key(struct menu *m, int key)
{
	bool single = is_yes(m->l, "boot_single");

	switch (key) {
	case '1':
	case '\r':
	case '\n':
		boot(m, single);
		return true;
	case '2':
		boot(m, !single);
		return true;
	case 'b':
		boot(m, false);
		return true;
	case 's':
		boot(m, true);
		return true;
	case '3':
	case KEY_ESCAPE:
		leave(m);
		return true;
	case '4':
	case 'r':
		m->l->end = LOADER_REBOOT;
		return true;
	case '5':
	case 'k':
		next_kernel(m);
		return true;
	case '6':
	case 'o':
		m->screen = OPTIONS;
		return true;
	default:
		return false;
	}
}

static bool options_key(struct menu *m, int key)
{
	struct loader *l = m->l;

	switch (key) {
	case '1':
	case 8:
	case 0x7f:
		m->screen = MAIN;
		return true;
	case '2':
	case 'd':
		set_acpi(l, true);
		set_safe(l, false);
		set_yes(l, "boot_single", false);
		set_yes(l, "boot_verbose", false);
		return true;
	case '3':
	case 'a':
		set_acpi(l, !has_acpi(l));
		return true;
	case '4':
	case 'm':
		set_safe(l, !is_yes(l, "boot_safe"));
		return true;
	case '5':
	case 's':
		set_yes(l, "boot_single", !is_yes(l, "boot_single"));
		return true;
	case '6':
	case 'v':
		set_yes(l, "boot_verbose", !is_yes(l, "boot_verbose"));
		return true;
	case '\r':
	case '\n':
		boot(m, is_yes(l, "boot_single"));
		return true;
	default:
		return false;
	}
}

static void handle(struct menu *m, int key)
{
	if (key == KEY_ESCAPE && con_sequence(&m->l->con) != 0)
		return; /* an arrow */
	if (key >= 'A' && key <= 'Z')
		key += 'a' - 'A';
	if ((m->screen == MAIN ? main_key(m, key) : options_key(m, key)) &&
	    !m->done && m->l->end == LOADER_RUNNING)
		draw(m);
}

/* The key that stopped the countdown, or CON_TIMEOUT. */
static int count_down(struct loader *l, long seconds)
{
	for (; seconds > 0; seconds--) {
		con_raw(&l->con, TIMEOUT_LINE);
		con_printf(&l->con, "   Autoboot in %ld seconds. [Space] to pause ",
		    seconds);
		int key = con_key(&l->con, 1000);
		if (key >= 0) {
			con_raw(&l->con, TIMEOUT_LINE "\033[K" BELOW);
			return key;
		}
	}
	con_raw(&l->con, TIMEOUT_LINE "\033[K" BELOW);
	return CON_TIMEOUT;
}

static void time_out(struct menu *m)
{
	const char *command = env_get(&m->l->env, "menu_timeout_command");

	m->done = true;
	if (command == NULL) {
		boot(m, is_yes(m->l, "boot_single"));
		return;
	}
	char *copy = strdup(command);
	if (copy != NULL && command_run(m->l, copy) != 0)
		con_printf(&m->l->con, "%s\n", m->l->error);
	free(copy);
}

static void run(struct menu *m)
{
	struct loader *l = m->l;
	const char *delay = env_get(&l->env, "autoboot_delay");
	bool wait = delay != NULL && strcasecmp(delay, "no") == 0;
	long seconds = DELAY_USUAL;
	int key = CON_TIMEOUT;
	char *end;

	if (delay != NULL && !wait) {
		seconds = strtol(delay, &end, 0);
		if (end == delay)
			seconds = DELAY_USUAL;
	}
	if (!wait && seconds < 0) {
		boot(m, is_yes(l, "boot_single"));
		return;
	}
	draw(m);
	if (!wait) {
		key = count_down(l, MIN(seconds, 86400L));
		if (key == CON_TIMEOUT) {
			time_out(m);
			return;
		}
		handle(m, key);
	}
	while (!m->done && l->end == LOADER_RUNNING) {
		key = con_key(&l->con, -1);
		if (key == CON_EOF)
			l->end = LOADER_NO_INPUT;
		else
			handle(m, key);
	}
}

void menu_run(struct loader *l)
{
	struct menu m = { .l = l };

	find_kernels(&m);
	run(&m);
	for (unsigned i = 0; i < m.kernels; i++)
		free(m.kernel[i]);
}
