/* What engine.c needs of run.c. */
#pragma once

#include <errno.h>

#include "cpu/soft/soft.h"

enum engine_exit cpu_run(struct soft_cpu *cpu);
