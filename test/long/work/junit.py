"""Outcomes of a run of Python's own tests, a line a module; what is not ok by its name."""

import re
import sys
import xml.etree.ElementTree as ET

modules = {}
for case in ET.parse(sys.argv[1]).iter("testcase"):
    name = case.get("name")
    module = name.split(".")[1] if name.startswith("test.") else name.split(".")[0]
    kind = "ok"
    for child in case:
        if child.tag in ("failure", "error", "skipped"):
            kind = child.tag
    m = modules.setdefault(module, {"ok": 0, "skipped": 0, "bad": []})
    if kind in ("ok", "skipped"):
        m[kind] += 1
    else:
        # Names of objects, which differ from run to run, are no part of it.
        m["bad"].append(kind + " " + re.sub(r"0x[0-9a-f]+", "0x", name))
for module, m in modules.items():
    print(module, m["ok"], "ok", m["skipped"], "skipped")
    for line in sorted(m["bad"]):
        print("   ", line)
