#!/usr/bin/env python3
"""Eight guests of 256 MB on two CPUs, each with a busy program: none stands still for a second.

Each guest tells its own clock ten times a second. Between the last guest's first tick and
the first guest's last one, neither the gaps between a guest's ticks, seen from the host
and by the guest's clock, nor a clock's distance from the host's may exceed a second.
"""

import os
import subprocess
import threading
import time

from guest import BHYVE, Flow, boot_cd
from harness import GRUB_BHYVE, main

GUESTS = 8
CPUS = 2
TICKS = 300
LIMIT = 1.0
WINDOW = 10.0  # seconds in which all have to tick, lest nothing was compared
LOOP = """while :; do :; done &
i=0
while [ $i -lt %d ]; do
	read -r up rest </proc/uptime
	echo "tick $up"
	i=$((i + 1))
	sleep 0.1
done
poweroff -f""" % TICKS


class Guest:
    """A running guest; ticks are pairs of the host's time and the guest's."""

    def __init__(self, flow, vm):
        self.ticks = []
        self.text = []
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [BHYVE, "-H", "-m", "256M", "-s", "0,hostbridge", "-s", "1,lpc",
             "-l", "com1,stdio", vm], cwd=flow.dir, env=flow.env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            now = time.monotonic()
            words = line.decode("latin-1").split()
            if len(words) == 2 and words[0] == "tick":
                self.ticks.append((now, float(words[1])))
            else:
                self.text.append(" ".join(words))


def longest(times):
    return max(b - a for a, b in zip(times, times[1:]))


def test_side_by_side(flow: Flow):
    cpus = sorted(os.sched_getaffinity(0))[:CPUS]
    os.sched_setaffinity(0, cpus)
    boot_cd(flow, LOOP, "quiet")
    names = [f"guest{i}" for i in range(GUESTS)]
    for vm in names:
        code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "256M", vm)
        assert code == 0, out
    guests = [Guest(flow, vm) for vm in names]
    try:
        for g in guests:
            status = g.process.wait(timeout=600)
            g.thread.join(timeout=60)
            assert status == 1 and len(g.ticks) == TICKS, \
                f"exit status {status}, {len(g.ticks)} ticks:\n" + "\n".join(g.text[-10:])
    finally:
        for g, vm in zip(guests, names):
            g.process.kill()
            g.process.wait()
            flow.destroy(vm)
    begin = max(g.ticks[0][0] for g in guests)
    end = min(g.ticks[-1][0] for g in guests)
    assert end - begin >= WINDOW, f"all ran together for {end - begin:.1f} s only"
    failed = []
    for vm, g in zip(names, guests):
        ticks = [t for t in g.ticks if begin <= t[0] <= end]
        seen = longest([t[0] for t in ticks])
        own = longest([t[1] for t in ticks])
        apart = [t[0] - t[1] for t in ticks]
        drift = max(apart) - min(apart)
        print(f"     {vm}: {len(ticks)} ticks, longest gap {seen:.2f} s, by its own clock "
              f"{own:.2f} s, clocks apart by {drift:.2f} s")
        if max(seen, own, drift) > LIMIT:
            failed.append(vm)
    print(f"     together for {end - begin:.1f} s on {len(cpus)} CPUs")
    assert not failed, f"stood still for more than {LIMIT} s: {failed}"


if __name__ == "__main__":
    main(test_side_by_side)
