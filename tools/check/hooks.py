#!/usr/bin/env python3
"""Does the README tell what the hooks do, in the words of their own table? --print prints it.

src/preload/symbols.def is the one place that says which symbols are hooked and how; its GROUP lines
are the rows here. A symbol that is named twice there would be defined twice."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "src/preload/symbols.def"
HEAD = ["| `BATON_HOOKS` | calls | sockets | pipes | files | ttys |",
        "| --- | --- | --- | --- | --- | --- |"]
ROW = re.compile(r"^GROUP\((\w+),((?:[^()\"]|\"[^\"]*\")*)\)", re.MULTILINE)


def code():
    return "\n".join(line for line in TABLE.read_text().splitlines() if not line.startswith("//"))


def strings(text):
    """The arguments of a GROUP after its name; C joins adjacent strings."""
    joined = re.sub(r'"\s*\n\s*"', "", text)
    return re.findall(r'"([^"]*)"', joined)


def rows():
    for group, rest in ROW.findall(code()):
        what, *cells = strings(rest)
        yield f"| {group} | " + " | ".join([what] + [cell or "-" for cell in cells]) + " |"


def symbols():
    kinds = "PARK|SAME|CALL|TURN|NAME|READS|WRITES|FORMATS|OWNER|OWNER_SAME|LAST|SOME"
    return re.findall(rf"^(?:{kinds})\(\w+, [^,]+, (\w+),", code(), re.MULTILINE)


def main():
    wanted = HEAD + list(rows())
    if "--print" in sys.argv:
        print("\n".join(wanted))
        return 0
    if "--symbols" in sys.argv:
        print("\n".join(symbols()))
        return 0
    found = []
    names = symbols()
    found += [f"{TABLE.name}: {name} twice" for name in set(names) if names.count(name) > 1]
    readme = (ROOT / "README.md").read_text()
    if "\n".join(wanted) not in readme:
        found.append("README.md: not the table of tools/check/hooks.py --print")
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


sys.exit(main())
