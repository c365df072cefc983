#!/usr/bin/env python3
"""Debian's cloud kernel to userspace and power-off, many times, with every engine.

Nothing in its log may tell of a lost interrupt, a stuck CPU or a clock gone wrong.
"""

import argparse
import sys

from guest import Flow, bad_lines, boot_cd, run

parser = argparse.ArgumentParser()
parser.add_argument("-n", type=int, default=50, help="boots of each kind")
parser.add_argument("--cpus", default="1,2,4")
parser.add_argument("--tier", default="jit,interp")
parser.add_argument("--timeout", type=float, default=300)
parser.add_argument("--option", action="append", default=[], help="more of bhyve's -o")
args = parser.parse_args()

failed = 0
flow = Flow()
boot_cd(flow, "echo userspace with $(grep -c ^processor /proc/cpuinfo) CPUs\npoweroff -f",
        "loglevel=7")
for tier in args.tier.split(","):
    for cpus in args.cpus.split(","):
        times = []
        bad = 0
        for i in range(args.n):
            options = [x for o in ["cpu.tier=" + tier, *args.option] for x in ("-o", o)]
            status, text, seconds = run(flow, "512M", cpus, args.timeout, *options)
            wrong = bad_lines(text)
            if f"userspace with {cpus} CPUs" not in text:
                wrong.append("did not reach userspace with all CPUs")
            if status != 1:
                wrong.append(f"exit status {status}")
            times.append(seconds)
            if wrong:
                bad += 1
                print(f"boot {i} of {tier}, {cpus} CPUs, {seconds:.1f} s:", *wrong, sep="\n  ")
                print("\n".join(text.split("\n")[-15:]), flush=True)
        times.sort()
        print(f"{'ok  ' if not bad else 'FAIL'} {tier} {cpus} CPUs: {args.n} boots, {bad} bad, "
              f"median {times[len(times) // 2]:.2f} s, longest {times[-1]:.2f} s", flush=True)
        failed += bad
flow.close()
sys.exit(1 if failed else 0)
