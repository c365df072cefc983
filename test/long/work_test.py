#!/usr/bin/env python3
"""Real programs in a Debian guest say the same as natively in the same root file system."""

import argparse
import difflib
import os
import re
import subprocess
import sys
import time

from guest import (TO_ROOT, WORK, Flow, HERE, bad_lines, boot_cd, copy_sparse, root, run)

ALL = "c,python,perl,perl_core,openssl,sqlite,luajit,node,stress_cpu,stress_vm"

parser = argparse.ArgumentParser()
parser.add_argument("--work", default=ALL)
parser.add_argument("--cpus", default="2")
parser.add_argument("--tier", default="jit")
parser.add_argument("--memory", default="1500M")
parser.add_argument("--timeout", type=float, default=3600)
parser.add_argument("--keep", help="write outputs to this folder")
parser.add_argument("--option", action="append", default=[], help="more of bhyve's -o")
args = parser.parse_args()

cache = root()
names = args.work.split(",")
flow = Flow()
boot_cd(flow, TO_ROOT, "loglevel=4 work=" + args.work)
copy_sparse(os.path.join(cache, "root.img"), flow.path("root.img"))
env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", WORK, flow.path("work.img"), "8M"],
               env=env, check=True)
options = [x for o in ["cpu.tier=" + args.tier, *args.option] for x in ("-o", o)]
status, text, seconds = run(
    flow, args.memory, args.cpus, args.timeout, "-s", "3,virtio-blk,root.img",
    "-s", "4,virtio-blk,work.img,ro", "-s", "5,virtio-rnd", *options)
print(f"guest: exit status {status}, {seconds:.0f} s", flush=True)
failed = 0
guest = {}
took = {}
for m in re.finditer(r"^@@begin (\w+)\n(.*?)^@@end \1 (\d+) (\d+)$", text, re.M | re.S):
    guest[m[1]] = m[2].rstrip("\n") + "\nstatus " + m[3]
    took[m[1]] = m[4] + " s"
for name in names:
    began = time.monotonic()
    p = subprocess.run([os.path.join(HERE, "native.sh"), os.path.join(cache, "root"), WORK, name],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    native = p.stdout.decode("latin-1").rstrip("\n") + f"\nstatus {p.returncode}"
    times = f"guest {took.get(name, 'never ended')}, native {time.monotonic() - began:.0f} s"
    got = guest.get(name, "(nothing)")
    if args.keep:
        os.makedirs(args.keep, exist_ok=True)
        for kind, what in ("native", native), ("guest", got):
            with open(os.path.join(args.keep, f"{name}.{kind}"), "w", encoding="latin-1") as f:
                f.write(what)
    if got == native:
        print(f"ok   {name}: {times}", flush=True)
        continue
    failed += 1
    print(f"FAIL {name}: {times}")
    print("\n".join(difflib.unified_diff(native.split("\n"), got.split("\n"), "native", "guest",
                                         lineterm="", n=1)), flush=True)
wrong = bad_lines(text)
if status != 1:
    wrong.append(f"bhyve's exit status {status}")
if wrong:
    failed += 1
    print("FAIL the guest's kernel:", *wrong, sep="\n  ")
if failed:
    print("--- the end of the console:", text[-3000:], sep="\n")
flow.close()
sys.exit(1 if failed else 0)
