#!/usr/bin/env python3
"""grub-bhyve with a medium's own grub.cfg: found by itself, its menu works."""

import os
import subprocess

from harness import GRUB_BHYVE, Flow, main, make_ext4, make_iso, tiny_kernel

KERNEL = tiny_kernel(b"\xfa\xf4")
UP, DOWN, ESC = "\x1b[A", "\x1b[B", "\x1b"

# What Debian's installed systems have at the top, abridged.
DEBIAN_CFG = """
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
set default="0"
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
    save_env saved_entry
  fi
}
function load_video {
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod efi_gop
    insmod video_bochs
  fi
}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
   font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
  load_video
  insmod gfxterm
  set locale_dir=$prefix/locale
  set lang=en_US
  insmod gettext
fi
serial --unit=0 --speed=115200
terminal_input serial
terminal_output gfxterm
if [ "${recordfail}" = 1 ] ; then
  set timeout=30
else
  if [ x$feature_timeout_style = xy ] ; then
    set timeout_style=menu
    set timeout=1
  fi
fi
set menu_color_normal=cyan/blue
background_image /usr/share/images/desktop-base/desktop-grub.png
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'simple' {
        load_video
        insmod gzio
        if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
        insmod part_msdos
        insmod ext2
        set root='hd0,msdos1'
        if [ x$feature_platform_search_hint = xy ]; then
          search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 THEUUID
        else
          search --no-floppy --fs-uuid --set=root THEUUID
        fi
        savedefault
        echo    'Loading Linux ...'
        linux   /boot/vmlinuz root=UUID=THEUUID ro  quiet
        echo    'Loading initial ramdisk ...'
        initrd  /boot/initrd.img
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'advanced' {
        menuentry 'Debian GNU/Linux, recovery' --class debian $menuentry_id_option 'recovery' {
                linux   /boot/vmlinuz single
        }
}
"""

MENU = """
set timeout=60
menuentry "First" { linux /vmlinuz entry=1 }
menuentry "Second" --hotkey=s { linux /vmlinuz entry=2 }
submenu "More" { menuentry "Third" { linux /vmlinuz entry=3 } }
"""


def menu(flow, where="boot/grub", text=MENU):
    make_iso(flow, "m.iso", {"vmlinuz": KERNEL, where + "/grub.cfg": text})
    flow.write("map", "(cd0) m.iso\n")


def boot(flow, *options):
    return flow.run(GRUB_BHYVE, "-m", "map", *options, "vm")


def test_places(flow: Flow):
    for where in ("boot/grub", "boot/grub2", "grub", "grub2", "EFI/fedora", "EFI/BOOT"):
        menu(flow, where, f"linux /vmlinuz at={where}\nboot\n")
        code, out = boot(flow, "-r", "cd0")
        assert code == 0, out
        assert flow.cmdline("vm").endswith("at=" + where)
    menu(flow, "some/where", "linux /vmlinuz x=1\nboot\n")
    code, out = boot(flow, "-r", "cd0", "-d", "/some/where")
    assert code == 0, out
    code, out = boot(flow, "-r", "cd0", "-d", "some/where")
    assert code == 0, out
    os.rename(flow.path("m.iso"), flow.path("n.iso"))
    make_iso(flow, "m.iso", {"vmlinuz": KERNEL, "boot/grub/other.cfg": "linux /vmlinuz g\nboot\n"})
    code, out = boot(flow, "-r", "cd0", "-g", "other.cfg")
    assert code == 0 and flow.cmdline("vm").endswith(" g"), out


def test_arrows(flow: Flow):
    menu(flow)
    c = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    c.expect_exact("First")
    c.expect_exact("automatically in")
    c.send(DOWN + DOWN + UP + "\r")
    assert c.wait() == 0
    assert flow.cmdline("vm").endswith("entry=2")
    c.check_modes()


def test_submenu_and_hotkey(flow: Flow):
    menu(flow)
    c = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    c.expect_exact("automatically in")
    c.send(DOWN + DOWN + "\r")
    c.expect_exact("Third")
    c.send("\r")
    assert c.wait() == 0
    assert flow.cmdline("vm").endswith("entry=3")
    c = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    c.expect_exact("automatically in")
    c.send("s")
    assert c.wait() == 0
    assert flow.cmdline("vm").endswith("entry=2")


def test_edit(flow: Flow):
    menu(flow)
    c = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    c.expect_exact("automatically in")
    c.send("e")
    c.expect_exact("entry=1")
    c.send(DOWN + "\x05 added\x18")  # ^E end of line, ^X boot
    assert c.wait() == 0
    assert flow.cmdline("vm").endswith("entry=1 added"), flow.cmdline("vm")


def test_command_line(flow: Flow):
    menu(flow)
    c = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    c.expect_exact("automatically in")
    c.send("c")
    c.expect_exact("grub> ")
    c.send(ESC)  # back to the menu
    c.expect_exact("Second")
    c.send("c")
    c.expect_exact("grub> ")
    c.send("linux /vmlinuz typed\r")
    c.expect_exact("\n")
    c.expect_exact("grub> ")
    c.send("boot\r")
    assert c.wait() == 0
    assert flow.cmdline("vm").endswith("typed")


def test_timeout_without_input(flow: Flow):
    """No terminal and no input: the countdown goes on; without one the error says so."""
    for style in ("menu", "countdown", "hidden"):
        menu(flow, text=f"set timeout=1\nset timeout_style={style}\nset default=1\n" +
             MENU.replace("set timeout=60", ""))
        code, out = boot(flow, "-r", "cd0")
        assert code == 0, (style, out)
        assert flow.cmdline("vm").endswith("entry=2")
    menu(flow, text=MENU.replace("set timeout=60", ""))
    code, out = boot(flow, "-r", "cd0")
    assert code == 1 and "input ended" in out, out


def test_debian(flow: Flow):
    """An installed system: a partition named or not; nothing is written to the image."""
    uuid = "0fc63daf-8483-4772-8e79-3d69d8477de4"
    make_ext4(flow, "linux.img", {
        "boot/vmlinuz": KERNEL, "boot/initrd.img": b"i" * 5000,
        "boot/grub/grubenv": "# GRUB Environment Block\n" + "#" * 999,
        "boot/grub/grub.cfg": DEBIAN_CFG.replace("THEUUID", uuid)}, offset=1 << 20, uuid=uuid)
    flow.write("map", "(hd0) linux.img\n")
    before = subprocess.check_output(["sha256sum", flow.path("linux.img")])
    for root in ("hd0,msdos1", "hd0"):
        code, out = boot(flow, "-r", root)
        assert code == 0, out
        assert "error" not in out, out
        assert flow.cmdline("vm") == \
            f"console=ttyS0 BOOT_IMAGE=/boot/vmlinuz root=UUID={uuid} ro quiet"
    assert subprocess.check_output(["sha256sum", flow.path("linux.img")]) == before


def test_unreadable(flow: Flow):
    """A file system GRUB cannot read is named, with its feature."""
    make_ext4(flow, "linux.img", {"boot/vmlinuz": KERNEL})
    with open(flow.path("linux.img"), "r+b") as f:
        f.seek(1024 + 0x60)
        incompat = int.from_bytes(f.read(4), "little")
        f.seek(1024 + 0x60)
        f.write((incompat | 0x8000 | 0x4000).to_bytes(4, "little"))
    flow.write("map", "(hd0) linux.img\n")
    code, out = boot(flow, "-r", "hd0")
    assert code == 1
    flat = " ".join(out.split())
    assert "ext4 with large_dir, inline_data" in flat, out
    with open(flow.path("linux.img"), "wb") as f:
        f.write(b"LUKS\xba\xbe" + bytes(1 << 20))
    code, out = boot(flow, "-r", "hd0")
    assert code == 1 and "encrypted volume (LUKS)" in " ".join(out.split()), out
    with open(flow.path("linux.img"), "wb") as f:
        f.write(bytes(1 << 20))
    code, out = boot(flow, "-r", "hd0")
    assert code == 1 and "no file system that GRUB knows" in " ".join(out.split()), out


if __name__ == "__main__":
    main(test_places, test_arrows, test_submenu_and_hotkey, test_edit, test_command_line,
         test_timeout_without_input, test_debian, test_unreadable)
