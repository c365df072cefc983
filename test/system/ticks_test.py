#!/usr/bin/env python3
"""Timers tick while a guest watches its TSC, however long it waits for the host's CPU.

Linux watches the 8254 or the HPET for 60 ms when it boots, and panics when it has not seen
five ticks; later it takes late ticks for clocks gone wrong. The host is busy here: programs
that never sleep, four a CPU.
"""

import contextlib
import os
import re
import subprocess
import sys

from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, main, make_iso, tiny_kernel

HOGS = 4 * len(os.sched_getaffinity(0))
TIMERS = {"8254": 150, "HPET": 150, "LAPIC": 1000}


@contextlib.contextmanager
def busy():
    with contextlib.ExitStack() as stack:
        hogs = [stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                for _ in range(HOGS)]
        try:
            yield
        finally:
            for p in hogs:
                p.kill()


def ticks(flow, tier, cpus):
    with open(os.path.join(BUILD, "test/guest/ticks-kernel"), "rb") as f:
        make_iso(flow, "ticks.iso", {"vmlinuz": tiny_kernel(f.read())})
    flow.write("map", "(cd0) ticks.iso\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm",
                         input=b"linux /vmlinuz\nboot\n")
    assert code == 0, out
    with busy():
        code, out = flow.run(BHYVE, "-o", "cpu.tier=" + tier, "-c", cpus, "-m", "64M", "-A", "-H",
                             "-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio", "vm",
                             timeout=240)
    assert code == 1, (code, out)
    seen = {n: (int(r), int(f)) for n, r, f in
            re.findall(r"^(\w+): (\d+) rounds, (\d+) failed$", out, re.M)}
    assert seen == {n: (r, 0) for n, r in TIMERS.items()}, out


def test_translator(flow: Flow):
    ticks(flow, "jit", "4")


def test_interpreter(flow: Flow):
    ticks(flow, "interp", "1")


if __name__ == "__main__":
    main(test_translator, test_interpreter)
