#!/usr/bin/env python3
"""Golden tests of bhyve's command line: arguments -> variables, or message and status.

usage: options.py BHYVE

Cases are in cases.txt beside this file: blocks of lines separated by empty ones. The
first line holds the arguments; "N" alone is the exit status (1 when missing: config.dump);
"name=value" and "-name" lines are variables that must be, and must not be, in the dump;
"! TEXT" must be part of standard error, "> TEXT" of standard output. DIR in a case is a
fresh folder with what prepare() puts there.
"""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile


def prepare(folder):
    (folder / "good.conf").write_text("# comment\n\ncpus=3\nmemory.size=1G\nname=fromfile\n")
    (folder / "bad.conf").write_text("cpus=3\nmemory.size=\n")
    (folder / "disk.img").write_bytes(bytes(1 << 20))
    (folder / "empty.img").write_bytes(b"")


def run(bhyve, arguments, folder):
    environment = dict(os.environ, VMM_DIR=str(folder / "vmm"), LC_ALL="C")
    return subprocess.run(
        [bhyve, *shlex.split(arguments)], capture_output=True, text=True, timeout=30,
        stdin=subprocess.DEVNULL, env=environment, check=False)


def check(bhyve, block, folder):
    """The faults of one case, as lines."""
    lines = [line.replace("DIR", str(folder)) for line in block]
    expectations = lines[1:]
    status = [int(line) for line in expectations if line.lstrip("-").isdigit()] or [1]
    wants_dump = any("=" in x and x[0] not in "!>" or x.startswith("-") and not x[1:].isdigit()
                     for x in expectations)
    arguments = ("-o config.dump=1 " if wants_dump else "") + lines[0]
    result = run(bhyve, arguments, folder)
    dump = result.stdout.splitlines()
    faults = []
    if result.returncode != status[0]:
        faults.append(f"status {result.returncode}, not {status[0]}")
    for line in expectations:
        if line.isdigit():
            continue
        if line.startswith("! "):
            if line[2:] not in result.stderr:
                faults.append(f"standard error lacks: {line[2:]}")
        elif line.startswith("> "):
            if line[2:] not in result.stdout:
                faults.append(f"standard output lacks: {line[2:]}")
        elif line.startswith("-"):
            if any(x.startswith(line[1:] + "=") for x in dump):
                faults.append(f"is set: {line[1:]}")
        elif line not in dump:
            faults.append(f"is not set: {line}")
    if faults:
        faults += ["standard error was: " + result.stderr.strip()]
    return [f"bhyve {arguments}: {fault}" for fault in faults]


def main():
    bhyve = os.path.abspath(sys.argv[1])
    text = (pathlib.Path(__file__).parent / "cases.txt").read_text(encoding="utf-8")
    blocks = [[line for line in block.splitlines() if not line.startswith("#")]
              for block in text.strip().split("\n\n")]
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder)
        for block in blocks:
            if block:
                faults += check(bhyve, block, folder)
    print("\n".join(faults) or f"{len(blocks)} cases")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
