#!/usr/bin/env python3
"""What is wrong gets a sentence that names it, the right exit status, nothing left behind."""

import os
import re

from harness import BHYVE, BHYVECTL, GRUB_BHYVE, Flow, main, make_ext4, make_iso, tiny_kernel

BASE = ["-s", "0,hostbridge", "-s", "1,lpc"]


def prepare(flow):
    make_iso(flow, "good.iso", {"vmlinuz": tiny_kernel(b"\xfa\xf4"), "big": bytes(20 << 20)})
    make_ext4(flow, "disk.img", {"x": "y"}, size="8M")
    os.mkdir(flow.path("folder"))
    flow.write("empty.img", b"")
    flow.write("map", "(cd0) good.iso\n(hd0) disk.img\n")
    flow.write("missing.map", "# one\n\n(hd0) nowhere.img\n")
    flow.write("bad.map", "(cd0) good.iso\nhd0 disk.img\n")
    flow.write("nopath.map", "(hd0)\n")
    flow.write("part.map", "(hd0,1) disk.img\n")
    flow.write("twice.map", "(hd0) disk.img\n(hd0) good.iso\n")
    flow.write("folder.map", "(hd0) folder\n")
    flow.write("empty.map", "(hd0) empty.img\n")
    flow.write("binary.map", b"(hd0) a\0b\n")


def check(flow, argv, code, says, keys=b""):
    got, out = flow.run(*argv, input=keys)
    assert got == code, (argv, got, out)
    assert re.search(says, " ".join(out.split())), (argv, says, out)
    assert flow.objects() == [], argv
    assert flow.left_behind() == [], argv


def test_grub_bhyve(flow: Flow):
    prepare(flow)
    long_name = "n" * 201
    table = [
        ([], "name is missing"),
        (["a", "b"], "one VM name"),
        (["a/b"], "may not contain '/'"),
        ([long_name], "at most 200"),
        ([""], "may not be empty"),
        ([".x"], "may not start with"),
        (["-x", "vm"], "invalid option.*--help"),
        (["-M", "0", "vm"], "-M 0: .*512M"),
        (["-M", "12Q", "vm"], "-M 12Q"),
        (["-M", "900T", "vm"], "more memory than this host"),
        (["-m", "none.map", "vm"], "none.map: No such file"),
        (["-m", "missing.map", "vm"], "missing.map line 3: nowhere.img: No such file"),
        (["-m", "bad.map", "vm"], r"bad.map line 2: .*\(hd0\) /path"),
        (["-m", "nopath.map", "vm"], "nopath.map line 1: no path"),
        (["-m", "part.map", "vm"], "part.map line 1: .*not a partition"),
        (["-m", "twice.map", "vm"], "twice.map line 2: .*line 1 already"),
        (["-m", "folder.map", "vm"], "folder is a directory"),
        (["-m", "empty.map", "vm"], "empty.img holds less than one sector"),
        (["-m", "binary.map", "vm"], "binary.map line 1: not a text file"),
        (["-m", "map", "-r", "hd7", "vm"], r"-r hd7: there is no line"),
        (["-m", "map", "-r", "a b", "vm"], "-r a b: not a GRUB device"),
        (["-m", "map", "-g", "a/b", "vm"], "-g a/b"),
        (["-m", "map", "-c", "/dev/null", "vm"], "-c /dev/null: not a terminal"),
        (["-m", "map", "-c", "/dev/none", "vm"], "-c /dev/none: No such file"),
    ]
    for options, says in table:
        check(flow, [GRUB_BHYVE] + options, 1, says)
    load = [GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "16M", "vm"]
    check(flow, load, 1, "initrd is larger than the guest's memory of 16 MiB",
          b"linux /vmlinuz\ninitrd /big\n")
    check(flow, [GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "1M", "vm"], 1,
          "the kernel needs 3 MiB", b"linux /vmlinuz\n")
    check(flow, [GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "20M", "vm"], 1,
          "initrd of 20 MiB does not fit", b"linux /vmlinuz\ninitrd /big\n")


def test_full_disk(flow: Flow):
    """A VM directory with too little room, as /dev has on some systems."""
    prepare(flow)
    script = ('mount -t tmpfs -o size=4m none "$VMM_DIR" || exit 77; "$0" -m map -r cd0 -M 64M vm;'
              ' code=$?; ls "$VMM_DIR"; exit $code')
    code, out = flow.run("unshare", "-m", "sh", "-c", script, GRUB_BHYVE,
                         input=b"linux /vmlinuz\ninitrd /big\nboot\n")
    if code == 77 or "unshare:" in out:
        print("skip  only root can mount a small file system")
        return
    assert code == 1, out
    assert "the file system of the VM directory is full" in " ".join(out.split()), out
    assert not out.rstrip().endswith("vm"), out


def test_not_an_object(flow: Flow):
    """A damaged object can be loaded over; a directory in its place cannot."""
    prepare(flow)
    with open(os.path.join(flow.vmm, "vm"), "wb") as f:
        f.write(b"not a VM object")
    code, out = flow.run(BHYVE, *BASE, "-m", "64M", "vm")
    assert code == 4, out
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm",
                         input=b"linux /vmlinuz\nboot\n")
    assert code == 0, out
    assert flow.destroy("vm")[0] == 0
    os.mkdir(os.path.join(flow.vmm, "vm"))
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm")
    assert code == 1 and "vm" in out, out
    os.rmdir(os.path.join(flow.vmm, "vm"))


def test_bhyve(flow: Flow):
    prepare(flow)
    table = [
        ([], 1, "VM"),
        (["a/b"], 4, "name a VM"),
        (["-c", "x", "vm"], 64, "-c x"),
        (["-m", "0", "vm"], 64, "-m 0"),
        (["-m", "900T", "vm"], 4, "more than this host"),
        (["-s", "99,virtio-blk,disk.img", "vm"], None, "-s 99"),
        (["-s", "3,nonsense", "vm"], 4, 'unknown device "nonsense"'),
        (["-s", "3,virtio-rnd", "-s", "3,virtio-rnd", "vm"], 4, "slot 0:3:0 already occupied"),
        (["-l", "com9,stdio", "vm"], None, "com9"),
        (["-U", "1234", "vm"], 4, "-U 1234: not a UUID"),
        (["-o", "novalue", "vm"], 64, "-o novalue"),
        (["-p", "1", "vm"], 64, "-p 1"),
        (["--nonsense", "vm"], 1, "nonsense|option"),
        (["nothere"], 4, "virtual machine cannot be booted"),
    ]
    for options, code, says in table:
        got, out = flow.run(BHYVE, *options)
        assert got == code or (code is None and got in (1, 4, 64)), (options, got, out)
        assert re.search(says, " ".join(out.split())), (options, says, out)
        assert flow.objects() == []
    # Disks: the VM is loaded, the machine cannot be built.
    for disk, says in (("nowhere.img", "nowhere.img: .*No such file"),
                       ("folder", "folder: is a directory"),
                       ("empty.img", "empty.img: is smaller than one sector")):
        for device in ("virtio-blk", "ahci-hd"):
            code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm",
                                 input=b"linux /vmlinuz\nboot\n")
            assert code == 0, out
            code, out = flow.run(BHYVE, *BASE, "-s", f"3,{device},{disk}", "-m", "64M", "vm")
            assert code == 4, (disk, code, out)
            assert re.search(says, " ".join(out.split())), out
            assert flow.destroy("vm")[0] == 0
    # So are the CPU's engine and what does not go together.
    for options, says in ((["-o", "cpu.tier=fast"], "cpu.tier: 'fast' is neither interp nor jit"),
                          (["-o", "cpu.tier=interp", "-o", "cpu.lockstep=true"],
                           "cpu.lockstep: .* needs cpu.tier=jit"),
                          (["-o", "cpu.tier=jit", "-o", "cpu.lockstep=true", "-c", "2"],
                           "cpu.lockstep: works with one virtual CPU, not 2"),
                          (["-o", "cpu.tier=jit", "-o", "cpu.lockstep=9"], "cpu.lockstep")):
        code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm",
                             input=b"linux /vmlinuz\nboot\n")
        assert code == 0, out
        code, out = flow.run(BHYVE, *BASE, *options, "-m", "64M", "vm")
        assert code == 4, (options, code, out)
        assert re.search(says, " ".join(out.split())), (options, out)
        assert flow.destroy("vm")[0] == 0


def test_bhyvectl(flow: Flow):
    for options, says in (
            (["--destroy", "--vm=nothere"], "nothere.*No such file"),
            (["--vm=a/b", "--destroy"], "a/b"),
            (["--nonsense"], "nonsense|usage|Usage"),
            ([], "usage|Usage")):
        code, out = flow.run(BHYVECTL, *options)
        assert code == 1, (options, code, out)
        assert re.search(says, " ".join(out.split())), (options, out)


if __name__ == "__main__":
    main(test_grub_bhyve, test_full_disk, test_not_an_object, test_bhyve, test_bhyvectl)
