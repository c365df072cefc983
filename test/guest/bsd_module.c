/*
 * A module for bhyveload's tests, built several times: NAME holds module NAME in
 * VERSION and needs NEEDS (from MIN to MAX).
 */
struct mod_depend {
	int min, preferred, max;
};

struct mod_metadata {
	int version, type;
	const void *data;
	const char *cval;
};

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
#define SET      __attribute__((section("set_modmetadata_set"), used))

static int version = VERSION;
static struct mod_metadata holds = { 1, 3, &version, TEXT(NAME) };
static const void *const holds_entry SET = &holds;

static struct mod_depend kernel_range = { 1400000, 1500000, 1599999 };
static struct mod_metadata needs_kernel = { 1, 1, &kernel_range, "kernel" };
static const void *const kernel_entry SET = &needs_kernel;

#ifdef NEEDS
static struct mod_depend range = { MIN, MIN, MAX };
static struct mod_metadata needs = { 1, 1, &range, TEXT(NEEDS) };
static const void *const needs_entry SET = &needs;
#endif

char module_bss[5000];
int module_function(int v);

int module_function(int v)
{
	return v + module_bss[v & 4095] + version;
}
