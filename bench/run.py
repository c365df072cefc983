#!/usr/bin/env python3
"""One command, one table: bhyve against QEMU TCG and native, in the same run.

usage: bench/run.py BUILDDIR [--runs N] [--seconds S] [--only cpu,disk,net,idle]

Every figure is the median of N runs (5); guests run one after the other, each load S
seconds (1). QEMU runs with -cpu max and -cpu qemu64, the better of the two counts for
each line. "boot" is the time from exec to the first line of the guest's init, "off" to
the end of the process. "net" is iperf3 between guest and host over a tap interface in
a network namespace of this process, which needs root. Prints Markdown;
`make bench > doc/performance.md` keeps it.
"""
import argparse
import ctypes
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
NET_LINES = ["netout", "netin"]
CLONE_NEWNET = 0x40000000
TAP = "tap0"

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
*load=net*)
	for m in $(cat /lib/modules/order); do insmod /lib/modules/$m; done
	ip addr add 192.0.2.2/24 dev eth0
	ip link set eth0 up
	ping -q -c 3 192.0.2.1 >/dev/null
	echo BENCH ping $(ping -q -c 200 -i 0.01 192.0.2.1 | sed -n 's|.*= [0-9.]*/\\([0-9.]*\\)/.*|\\1|p')
	echo BENCH netout $(iperf3 -c 192.0.2.1 -t %(netseconds)s -f m | awk '/receiver/ { print $7 }')
	echo BENCH netin $(iperf3 -R -c 192.0.2.1 -t %(netseconds)s -f m | awk '/receiver/ { print $7 }')
	;;
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

    def __init__(self, tmp, build, seconds, net):
        self.tmp = tmp
        demo = build / "demo-guest"
        run([TOP / "scripts/demo-guest.sh", demo])
        self.kernel = demo / "vmlinuz"
        root = tmp / "root"
        (root / "bench").mkdir(parents=True)
        for prog in ("guestbench", "diskbench"):
            run(["gcc", "-O2", "-static", "-pthread", "-o", root / "bench" / prog, HERE / f"{prog}.c"])
        if net:
            add_program(root, "iperf3")
        (root / "init").write_text(
            INIT % {"seconds": seconds, "netseconds": max(1, round(3 * seconds))})
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


def add_program(root, name):
    """A program of the host with its libraries into the guest."""
    path = shutil.which(name)
    shutil.copy(path, root / "bench")
    for lib in re.findall(r"(/\S+)", run(["ldd", path], stdout=subprocess.PIPE, text=True).stdout):
        # The initramfs has no /usr: the loader looks in /lib and /lib64.
        to = root / lib.replace("/usr/lib", "/lib").lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(lib, to)


class Network:
    """A network of this process's own with a tap interface and an iperf3 server."""

    def __init__(self):
        self.server = None
        if os.geteuid() != 0 or ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
            raise SystemExit("bench/run.py: net needs root; leave it out with --only cpu,disk,idle")
        for cmd in ("ip link set lo up", f"ip tuntap add dev {TAP} mode tap",
                    f"ip addr add 192.0.2.1/24 dev {TAP}", f"ip link set {TAP} up"):
            run(cmd.split())
        self.server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL)

    def close(self):
        if self.server:
            self.server.kill()
            self.server.wait()


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
                before = cpu_seconds(child(p.pid))
                time.sleep(10)
                extra["idle"] = (cpu_seconds(child(p.pid)) - before) / 10 * 100
                extra["memory"] = overhead_mib(child(p.pid))
            if "DONE" in line:
                extra.setdefault("memory", overhead_mib(child(p.pid)))
        p.wait(timeout=30)
    finally:
        p.kill()
        p.wait()
    marks["off"] = time.monotonic() - start
    if "boot" not in marks:
        raise SystemExit(f"{cmd[0]}: the guest did not reach its init:\n" + "\n".join(tail))
    return marks, values, extra


def child(pid):
    """The hypervisor, which timeout(1) started."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


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
    if load == "net":
        cmd += ["-s", f"4:0,virtio-net,{TAP}"]
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
    if load == "net":
        cmd += ["-netdev", f"tap,id=n,ifname={TAP},script=no,downscript=no,vhost=off",
                "-device", "virtio-net-pci,netdev=n"]
    else:
        cmd += ["-nic", "none"]
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
    ap.add_argument("--only", default="cpu,disk,net,idle" if os.geteuid() == 0 else "cpu,disk,idle")
    a = ap.parse_args()
    network = Network() if "net" in a.only.split(",") else None
    build = a.build.resolve()
    tmp = Path(tempfile.mkdtemp(prefix="bhyve-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        measure(a, build, tmp)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
        if network:
            network.close()


def measure(a, build, tmp):
    guest = Guest(tmp, build, a.seconds, "net" in a.only.split(","))
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
    for name in CPU_LINES + DISK_LINES + NET_LINES:
        b, q, n = median(got.get(("bhyve", name), [])), tcg(name, False), median(native.get(name, []))
        if b is None:
            continue
        unit = {"fp": "Mflop/s", "simd": "Mflop/s", "fork": "op/s"}.get(
            name, "kop/s" if name in ("syscall", "switch", "fault") else
            "MiB/s" if name.startswith("seq") else "IOPS" if name in DISK_LINES else
            "Mbit/s" if name in NET_LINES else "Mop/s")
        if name in CPU_LINES:
            ratios.append(b / q)
        print(f"| {name} | {unit} | {fmt(b)} | {fmt(q)} | {fmt(n)} | {b / q:.2f}x | "
              + (f"{b / n:.2f} |" if n else "- |"))
    if ratios:
        print(f"| geometric mean of the nine | | | | | {statistics.geometric_mean(ratios):.2f}x | |")
    for key, label, unit in (("boot", "exec to userspace", "s"), ("off", "exec to power-off, loads taken off", "s"),
                             ("ping", "ping over tap", "ms"),
                             ("idle", "host CPU while the guest idles", "% of a core"),
                             ("memory", "memory beyond the guest's", "MiB")):
        b, q = median(got.get(("bhyve", key), [])), tcg(key, True)
        if b is not None:
            ratio = f"{b / q:.2f}" if q else "-"
            print(f"| {label} (lower is better) | {unit} | {fmt(b)} | {fmt(q)} | | {ratio} | |")


if __name__ == "__main__":
    main()
