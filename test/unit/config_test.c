/* The configuration tree: bhyve_config(5). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/config.h"

static void set_get_replace(void **state)
{
	struct config *cfg = config_new();

	(void)state;
	assert_null(config_get(cfg, "name"));
	assert_int_equal(config_set(cfg, "name", "a"), 0);
	assert_string_equal(config_get(cfg, "name"), "a");
	assert_int_equal(config_set(cfg, "name", "b"), 0);
	assert_string_equal(config_get(cfg, "name"), "b");
	assert_int_equal(config_setf(cfg, "x", "pci.%d.%d", 0, 3), 0);
	assert_string_equal(config_getf(cfg, "pci.0.%d", 3), "x");
	config_unset(cfg, "name");
	assert_null(config_get(cfg, "name"));
	config_unset(cfg, "name");
	config_free(cfg);
}

static void bad_keys_are_refused(void **state)
{
	static const char *const bad[] = { "", ".", "a.", ".a", "a..b", "a b",
		"a=b", "\ta", "#a" };
	struct config *cfg = config_new();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(config_set(cfg, bad[i], "v"), -EINVAL);
	assert_int_equal(config_set(cfg, "a", ""), -EINVAL);
	assert_false(config_has(cfg, ""));
	config_free(cfg);
}

static void expansion(void **state)
{
	struct config *cfg = config_new();
	const char *first;

	(void)state;
	config_set(cfg, "name", "vm1");
	config_set(cfg, "path", "/vm/%(name)/disk");
	config_set(cfg, "nested", "%(path).img");
	config_set(cfg, "percent", "100%% of \\%(name) 5% %(");
	config_set(cfg, "unset", "<%(nothing)>");
	config_set(cfg, "loop", "x%(loop)");
	assert_string_equal(config_get(cfg, "path"), "/vm/vm1/disk");
	assert_string_equal(config_get(cfg, "nested"), "/vm/vm1/disk.img");
	assert_string_equal(config_get(cfg, "percent"), "100% of %(name) 5% %(");
	assert_string_equal(config_get(cfg, "unset"), "<>");
	assert_non_null(config_get(cfg, "loop"));

	/* A pointer given out stays good while the key itself is not set again. */
	first = config_get(cfg, "path");
	config_set(cfg, "name", "vm2");
	assert_string_equal(config_get(cfg, "path"), "/vm/vm2/disk");
	assert_string_equal(first, "/vm/vm1/disk");
	config_free(cfg);
}

static void expansion_is_bounded(void **state)
{
	struct config *cfg = config_new();
	char key[8], value[64] = "xxxxxxxxxxxxxxxx";

	(void)state;
	config_set(cfg, "k0", value);
	for (int i = 1; i < 12; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		snprintf(value, sizeof(value), "%%(k%d)%%(k%d)%%(k%d)%%(k%d)",
		    i - 1, i - 1, i - 1, i - 1);
		config_set(cfg, key, value);
	}
	assert_true(strlen(config_get(cfg, "k11")) < 1 << 20);
	config_free(cfg);
}

static void types(void **state)
{
	struct config *cfg = config_new();
	uint64_t n;
	bool b;

	(void)state;
	assert_int_equal(config_get_bool(cfg, "b", true, &b), 0);
	assert_true(b);
	config_set(cfg, "b", "OFF");
	assert_int_equal(config_get_bool(cfg, "b", true, &b), 0);
	assert_false(b);
	config_set(cfg, "b", "Yes");
	assert_int_equal(config_get_bool(cfg, "b", false, &b), 0);
	assert_true(b);
	config_set(cfg, "b", "2");
	assert_int_equal(config_get_bool(cfg, "b", false, &b), -EINVAL);

	assert_int_equal(config_get_num(cfg, "n", 7, 0, 10, &n), 0);
	assert_int_equal(n, 7);
	config_set(cfg, "n", "0x10");
	assert_int_equal(config_get_num(cfg, "n", 7, 0, 16, &n), 0);
	assert_int_equal(n, 16);
	assert_int_equal(config_get_num(cfg, "n", 7, 0, 15, &n), -EINVAL);
	config_set(cfg, "n", "-1");
	assert_int_equal(config_get_num(cfg, "n", 7, 0, 15, &n), -EINVAL);
	config_set(cfg, "n", "1 ");
	assert_int_equal(config_get_num(cfg, "n", 7, 0, 15, &n), -EINVAL);
	config_free(cfg);
}

struct names {
	char text[128];
	struct config *unset_in;
};

static int add_name(const char *name, void *arg)
{
	struct names *names = arg;

	strcat(names->text, name);
	strcat(names->text, " ");
	if (names->unset_in != NULL)
		config_unset(names->unset_in, "pci.0.3.path");
	return strcmp(name, "stop") == 0 ? 42 : 0;
}

static void children_in_order(void **state)
{
	static const char *const keys[] = { "pci.0.31.x", "pci.0.3.path",
		"pci.0.3.device", "pci.0.0", "pci.0.10.a.b", "pci.0.lpc", "pci.0",
		"pci.1.2", "pcix", "a" };
	struct config *cfg = config_new();
	struct names names = { .unset_in = cfg };

	(void)state;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(config_set(cfg, keys[i], "v"), 0);
	assert_int_equal(config_children(cfg, "pci.0", add_name, &names), 0);
	assert_string_equal(names.text, "0 3 10 31 lpc ");
	names = (struct names){ 0 };
	assert_int_equal(config_children(cfg, "", add_name, &names), 0);
	assert_string_equal(names.text, "a pci pcix ");
	names = (struct names){ 0 };
	assert_int_equal(config_children(cfg, "nothing", add_name, &names), 0);
	assert_string_equal(names.text, "");
	config_set(cfg, "s.0", "v");
	config_set(cfg, "s.stop", "v");
	config_set(cfg, "s.tail", "v");
	names = (struct names){ 0 };
	assert_int_equal(config_children(cfg, "s", add_name, &names), 42);
	assert_string_equal(names.text, "0 stop ");

	assert_true(config_has(cfg, "pci"));
	assert_true(config_has(cfg, "pci.1.2"));
	assert_true(config_has(cfg, "pci.0.31"));
	assert_false(config_has(cfg, "pci.0.1"));
	assert_false(config_has(cfg, "pc"));
	config_free(cfg);
}

static void frozen(void **state)
{
	struct config *cfg = config_new();

	(void)state;
	config_set(cfg, "a", "1");
	config_freeze(cfg);
	assert_int_equal(config_set(cfg, "a", "2"), -EPERM);
	config_unset(cfg, "a");
	assert_string_equal(config_get(cfg, "a"), "1");
	config_free(cfg);
}

static void option_syntax(void **state)
{
	struct config *cfg = config_new();

	(void)state;
	assert_int_equal(config_parse_option(cfg, "a.b=c=d"), 0);
	assert_string_equal(config_get(cfg, "a.b"), "c=d");
	assert_int_equal(config_parse_option(cfg, "a.b"), -EINVAL);
	assert_int_equal(config_parse_option(cfg, "a.b="), -EINVAL);
	assert_int_equal(config_parse_option(cfg, "=c"), -EINVAL);
	config_free(cfg);
}

/* Loads text; stderr goes to message. */
static int load(
    struct config *cfg, const char *text, size_t len, char *message, size_t room)
{
	char path[] = "/tmp/config_test.XXXXXX", err[] = "/tmp/config_err.XXXXXX";
	int fd = mkstemp(path), efd = mkstemp(err), saved = dup(STDERR_FILENO),
	    error;
	ssize_t n;

	assert_int_equal(write(fd, text, len), len);
	dup2(efd, STDERR_FILENO);
	error = config_load(cfg, path);
	dup2(saved, STDERR_FILENO);
	n = pread(efd, message, room - 1, 0);
	message[n > 0 ? n : 0] = '\0';
	unlink(path);
	unlink(err);
	close(fd);
	close(efd);
	close(saved);
	return error;
}

static void load_files(void **state)
{
	static const char nul[] = "a=b\0c\n";
	struct config *cfg = config_new();
	char message[512];

	(void)state;
	assert_int_equal(load(cfg, "# c\n\na=1\r\nb.c=x y\nlast=z", 24, message,
			     sizeof(message)),
	    0);
	assert_string_equal(config_get(cfg, "a"), "1");
	assert_string_equal(config_get(cfg, "b.c"), "x y");
	assert_string_equal(config_get(cfg, "last"), "z");
	assert_int_equal(
	    load(cfg, "a=2\nb=\n", 7, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, "line 2: invalid config option"));
	assert_non_null(strstr(message, "/tmp/config_test."));
	assert_int_equal(
	    load(cfg, "a = 2\n", 6, message, sizeof(message)), -EINVAL);
	assert_int_equal(
	    load(cfg, "nonsense\n", 9, message, sizeof(message)), -EINVAL);
	assert_int_equal(
	    load(cfg, nul, sizeof(nul) - 1, message, sizeof(message)), -EINVAL);
	assert_int_equal(config_load(cfg, "/nonexistent/x"), -ENOENT);
	assert_int_equal(config_load(cfg, "/"), -EISDIR);
	config_free(cfg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_get_replace),
		cmocka_unit_test(bad_keys_are_refused),
		cmocka_unit_test(expansion),
		cmocka_unit_test(expansion_is_bounded),
		cmocka_unit_test(types),
		cmocka_unit_test(children_in_order),
		cmocka_unit_test(frozen),
		cmocka_unit_test(option_syntax),
		cmocka_unit_test(load_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
