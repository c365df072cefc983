#!/usr/bin/env python3
"""One command, one table: bhyve against QEMU TCG and native, in the same run.

usage: bench/run.py BUILDDIR [--runs N] [--seconds S] [--only cpu,boot,disk,idle]

Every figure is the median of N runs (5); guests run one after the other, each load S
seconds (1). QEMU runs with -cpu max and -cpu qemu64, the better of the two counts for
each line. "boot" is the time from exec to the first line of the guest's init, "off" to
the end of the process. Prints Markdown; `make bench > doc/performance.md` keeps it.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent
CPU_LINES = ["int", "call", "mem", "fp", "simd", "syscall", "switch", "fault", "fork"]
DISK_LINES = ["seqread", "seqwrite", "randread", "randwrite"]

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/bench
mount -t devtmpfs d /dev
mount -t proc p /proc
echo USERSPACE
case "$(cat /proc/cmdline)" in
*load=cpu*) guestbench %(seconds)s ;;
*load=disk*)
	for m in $(cat /lib/modules/order); do insmod /lib/modules/$m; done
	diskbench /dev/vda %(seconds)s ;;
*load=idle*) echo IDLE; sleep 13 ;;
esac
echo DONE
poweroff -f
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(cmd, **kw):
    return subprocess.run(cmd, check=True, **kw)


class Guest:
    """Kernel, initramfs and medium that all hypervisors boot."""

    def __init__(self, tmp, build, seconds):
        self.tmp = tmp
        demo = build / "demo-guest"
        run([TOP / "scripts/demo-guest.sh", demo])
        self.kernel = demo / "vmlinuz"
        root = tmp / "root"
        (root / "bench").mkdir(parents=True)
        for prog in ("guestbench", "diskbench"):
            run(["gcc", "-O2", "-static", "-pthread", "-o", root / "bench" / prog, HERE / f"{prog}.c"])
        (root / "init").write_text(INIT % {"seconds": seconds})
        (root / "init").chmod(0o755)
        # The demo's initramfs with ours unpacked over it.
        self.initrd = tmp / "initrd.img"
        run(f"(cat {demo}/initrd.img; cd {root} && find . | cpio -o -H newc --quiet | gzip -1) > {self.initrd}",
            shell=True)
        self.native = root / "bench"
        self.iso_root = tmp / "iso"
        self.iso_root.mkdir()
        self.vmm = tmp / "vmm"
        self.vmm.mkdir()

    def append(self, load):
        return f"console=ttyS0 quiet panic=-1 load={load}"


def watch(cmd, env=None, idle=None):
    """Runs cmd; returns ({marker: seconds}, {bench name: value}, {memory, idle})."""
    start = time.monotonic()
    cmd = ["timeout", "300"] + [str(c) for c in cmd]
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, env=env)
    marks, values, extra, tail = {}, {}, {}, []
    try:
        for raw in p.stdout:
            line = raw.decode(errors="replace").strip()
            tail = tail[-20:] + [line]
            now = time.monotonic() - start
            if "USERSPACE" in line:
                marks["boot"] = now
            m = re.search(r"BENCH (\w+) ([\d.]+)", line)
            if m:
                values[m.group(1)] = float(m.group(2))
            if "IDLE" in line:
                time.sleep(1)
                before = cpu_seconds(p.pid)
                time.sleep(10)
                extra["idle"] = (cpu_seconds(p.pid) - before) / 10 * 100
                extra["memory"] = overhead_mib(p.pid)
            if "DONE" in line:
                extra.setdefault("memory", overhead_mib(p.pid))
        p.wait(timeout=30)
    finally:
        p.kill()
        p.wait()
    marks["off"] = time.monotonic() - start
    if "boot" not in marks:
        raise SystemExit(f"{cmd[0]}: the guest did not reach its init:\n" + "\n".join(tail))
    return marks, values, extra


def cpu_seconds(pid):
    f = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def overhead_mib(pid):
    """Resident memory outside the guest's RAM (its mapping is by far the largest)."""
    best, total, size, rss = (0, 0), 0, 0, 0
    try:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if line.startswith("Size:"):
                size = int(line.split()[1])
            elif line.startswith("Rss:"):
                rss = int(line.split()[1])
                total += rss
                best = max(best, (size, rss))
    except OSError:
        return None
    return (total - best[1]) / 1024


def bhyve(build, guest, load, mem, disk=None):
    env = dict(os.environ, VMM_DIR=str(guest.vmm))
    iso = guest.tmp / f"{load}.iso"
    if not iso.exists():
        d = guest.iso_root / load
        (d / "boot/grub").mkdir(parents=True)
        shutil.copy(guest.kernel, d / "vmlinuz")
        shutil.copy(guest.initrd, d / "initrd.img")
        (d / "boot/grub/grub.cfg").write_text(
            f"linux /vmlinuz {guest.append(load)}\ninitrd /initrd.img\nboot\n")
        run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", iso, d], stderr=subprocess.DEVNULL)
        (guest.tmp / f"{load}.map").write_text(f"(cd0) {iso}\n")
    run([build / "src/load/grub/grub-bhyve", "-m", guest.tmp / f"{load}.map", "-r", "cd0", "-M", f"{mem}M", "bench"],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    cmd = [build / "src/bhyve/bhyve", "-H", "-P", "-m", f"{mem}M", "-s", "0:0,hostbridge", "-s", "1:0,lpc",
           "-l", "com1,stdio"]
    if disk:
        cmd += ["-s", f"3:0,virtio-blk,{disk}"]
    try:
        return watch(cmd + ["bench"], env=env)
    finally:
        subprocess.run([build / "src/bhyvectl/bhyvectl", "--destroy", "--vm=bench"], env=env,
                       stderr=subprocess.DEVNULL)


def qemu(cpu, guest, load, mem, disk=None):
    cmd = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-m", str(mem), "-display", "none",
           "-serial", "stdio", "-monitor", "none", "-no-reboot", "-kernel", guest.kernel,
           "-initrd", guest.initrd, "-append", guest.append(load)]
    if disk:
        cmd += ["-drive", f"file={disk},format=raw,if=none,id=d,cache=writeback,aio=threads",
                "-device", "virtio-blk-pci,drive=d"]
    return watch(cmd)


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def fmt(v):
    if v is None:
        return "-"
    return f"{v:.0f}" if v >= 1000 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("build", type=Path)
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--seconds", type=float, default=1)
    ap.add_argument("--memory", type=int, default=1024)
    ap.add_argument("--only", default="cpu,disk,idle")
    a = ap.parse_args()
    build = a.build.resolve()
    tmp = Path(tempfile.mkdtemp(prefix="bhyve-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        measure(a, build, tmp)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def measure(a, build, tmp):
    guest = Guest(tmp, build, a.seconds)
    disk = tmp / "disk.img"
    with open(disk, "wb") as f:
        f.truncate(256 << 20)
        for _ in range(256):
            f.write(os.urandom(1 << 20))
    systems = {
        "bhyve": lambda load: bhyve(build, guest, load, a.memory, disk if load == "disk" else None),
        "max": lambda load: qemu("max", guest, load, a.memory, disk if load == "disk" else None),
        "qemu64": lambda load: qemu("qemu64", guest, load, a.memory, disk if load == "disk" else None),
    }
    native, got = {}, {}
    loads = a.only.split(",")
    for i in range(a.runs):
        if "cpu" in loads:
            say(f"run {i + 1} of {a.runs}: native")
            out = run([guest.native / "guestbench", str(a.seconds)], stdout=subprocess.PIPE, text=True).stdout
            for name, value in re.findall(r"BENCH (\w+) ([\d.]+)", out):
                native.setdefault(name, []).append(float(value))
        for system, start in systems.items():
            for load in loads:
                if load == "idle" and i > 0:
                    continue
                say(f"run {i + 1} of {a.runs}: {system}, {load}")
                marks, values, extra = start(load)
                for key, value in {**(marks if load == "cpu" else {"boot": marks["boot"]}), **values,
                                   **extra}.items():
                    if load == "cpu" and key == "off":
                        value -= a.seconds * len(CPU_LINES)
                    got.setdefault((system, key), []).append(value)
    table(a, native, got)


def table(a, native, got):
    def tcg(key, lower_is_better):
        both = [median(got.get((s, key), [])) for s in ("max", "qemu64")]
        both = [v for v in both if v is not None]
        return (min if lower_is_better else max)(both) if both else None

    cpu = next((l.split(":", 1)[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines()
                if l.startswith("model name")), "?")
    qemu_version = run(["qemu-system-x86_64", "--version"], stdout=subprocess.PIPE,
                       text=True).stdout.splitlines()[0]
    print(f"Medians of {a.runs} runs on {cpu}, {os.cpu_count()} cores; {qemu_version}.\n")
    print("| load | unit | bhyve | QEMU TCG | native | against TCG | against native |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for name in CPU_LINES + DISK_LINES:
        b, q, n = median(got.get(("bhyve", name), [])), tcg(name, False), median(native.get(name, []))
        if b is None:
            continue
        unit = {"fp": "Mflop/s", "simd": "Mflop/s", "fork": "op/s"}.get(
            name, "kop/s" if name in ("syscall", "switch", "fault") else
            "MiB/s" if name.startswith("seq") else "IOPS" if name in DISK_LINES else "Mop/s")
        if name in CPU_LINES:
            ratios.append(b / q)
        print(f"| {name} | {unit} | {fmt(b)} | {fmt(q)} | {fmt(n)} | {b / q:.2f}x | "
              + (f"{b / n:.2f} |" if n else "- |"))
    if ratios:
        print(f"| geometric mean of the nine | | | | | {statistics.geometric_mean(ratios):.2f}x | |")
    for key, label, unit in (("boot", "exec to userspace", "s"), ("off", "exec to power-off, loads taken off", "s"),
                             ("idle", "host CPU while the guest idles", "% of a core"),
                             ("memory", "memory beyond the guest's", "MiB")):
        b, q = median(got.get(("bhyve", key), [])), tcg(key, True)
        if b is not None:
            ratio = f"{b / q:.2f}" if q else "-"
            print(f"| {label} (lower is better) | {unit} | {fmt(b)} | {fmt(q)} | | {ratio} | |")


if __name__ == "__main__":
    main()
