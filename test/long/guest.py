"""The long tests' guest: a Debian root file system on virtio-blk, Debian's cloud kernel."""

import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../system"))

from harness import BHYVE, GRUB_BHYVE, Flow, demo_guest, make_iso  # noqa: E402

CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
                     "bhyve/long")
WORK = os.path.join(HERE, "work")
# Nothing of these belongs into the log of a kernel that runs on a correct CPU.
BAD = re.compile(r"BUG|Oops|stall|lockup|[Uu]nstable|WARNING:|Call Trace|hung_task|panic|"
                 r"general protection|double fault|clocksource: Long readout|Spurious|"
                 r"unexpected|not responding|nobody cared")
# The kernel's own remarks that contain such words.
HARMLESS = re.compile(r"Spectre|Kernel command line|Speculative|unexpected_kernel_mode|"
                      r"spectre|retbleed|mitigations|__bug_table|debug", re.I)

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for m in $(cat /lib/modules/order); do insmod "/lib/modules/$m"; done
%s
"""
TO_ROOT = """until [ -b /dev/vda ] && [ -b /dev/vdb ]; do sleep 0.1; done
mount -t ext4 -o rw /dev/vda /mnt
ifconfig lo 127.0.0.1 up
mount -o move /dev /mnt/dev
umount /proc
exec switch_root /mnt /sbin/work-init"""


def root():
    """The folder of the root file system, made when missing."""
    subprocess.run([os.path.join(HERE, "root.sh"), CACHE], check=True)
    return CACHE


def bad_lines(text):
    return [line for line in text.split("\n") if BAD.search(line) and not HARMLESS.search(line)]


def boot_cd(flow, then, cmdline):
    """A CD with Debian's kernel and an initramfs that ends in these commands."""
    demo = demo_guest("cloud")
    tree = flow.path("cpio")
    os.mkdir(tree)
    with open(os.path.join(tree, "init"), "w", encoding="utf-8") as f:
        f.write(INIT % then)
    os.chmod(os.path.join(tree, "init"), 0o755)
    # A second archive behind the first replaces its files.
    extra = subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=tree,
                           input=b"init\n", stdout=subprocess.PIPE, check=True).stdout
    with open(os.path.join(demo, "initrd.img"), "rb") as f:
        initrd = f.read()
    with open(os.path.join(demo, "vmlinuz"), "rb") as f:
        kernel = f.read()
    grub = ("set timeout=0\nmenuentry Linux {\n linux /boot/vmlinuz console=ttyS0 %s\n"
            " initrd /boot/initrd.img\n}\n" % cmdline)
    make_iso(flow, "boot.iso", {
        "boot/grub/grub.cfg": grub, "boot/vmlinuz": kernel,
        "boot/initrd.img": initrd + bytes(-len(initrd) % 4) + extra})
    flow.write("map", "(cd0) boot.iso\n")


def copy_sparse(source, target):
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def load(flow, memory):
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", memory, "vm")
    assert code == 0, out


def run(flow, memory, cpus, timeout, *args):
    """Boots once; (exit status or None when time was up, console, seconds)."""
    load(flow, memory)
    log = flow.path("console")
    began = time.monotonic()
    with open(log, "wb") as f:
        with subprocess.Popen([BHYVE, "-H", "-c", str(cpus), "-m", memory, "-s", "0,hostbridge",
                               "-s", "1,lpc", "-l", "com1,stdio", *args, "vm"], cwd=flow.dir,
                              env=flow.env, stdin=subprocess.DEVNULL, stdout=f, stderr=f) as p:
            try:
                status = p.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
                p.kill()
    seconds = time.monotonic() - began
    flow.destroy("vm")
    with open(log, encoding="latin-1") as f:
        text = f.read().replace("\r", "")
    return status, text, seconds


__all__ = ["BHYVE", "Flow", "TO_ROOT", "HERE", "WORK", "bad_lines", "boot_cd", "copy_sparse", "root",
           "run"]
