#!/usr/bin/env python3
"""Does every include point downwards? A newcomer can then read the layers from the bottom up.

Layers of equal rank may include each other one way, not in a circle. Anybody may include
bpf/baton_shared.h; the rest of bpf/ is the probe's own. A public header includes public headers
only. A source may include any public header: that is where it finds what it has to define.
"""
import pathlib
import re
import sys

RANK = {"arch": 0, "kernel": 0, "assist": 1, "runtime": 2,
        "sync": 3, "chan": 3, "io": 3, "file": 3, "time": 3, "task": 3, "trace": 3, "preload": 4}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)
ROOT = pathlib.Path(__file__).resolve().parents[2]


def includes(file):
    """The files of ours that it includes; generated and system headers are nobody's layer."""
    for name in INCLUDE.findall(file.read_text()):
        for place in (file.parent, ROOT / "src", ROOT / "include", ROOT / "bpf"):
            if (place / name).is_file():
                yield (place / name).resolve().relative_to(ROOT)
                break


def layer(path):
    return path.parts[1] if path.parts[0] == "src" else None


def complaint(path, target):
    if path.parts[0] != "bpf" and target.parts[0] == "bpf" and target.name != "baton_shared.h":
        return "belongs to the probe"
    if path.parts[0] == "include" and target.parts[0] == "src":
        return "is not public"
    if layer(path) and layer(target) and RANK[layer(path)] < RANK[layer(target)]:
        return f"is in a layer above {layer(path)}"
    return None


def main():
    found = []
    sideways = {}
    for top in ("src", "include", "bpf"):
        for file in sorted((ROOT / top).rglob("*.[hcS]*")):
            path = file.relative_to(ROOT)
            if top == "src" and layer(path) not in RANK:
                found.append(f"{path}: src/{layer(path)} has no rank in tools/check/layers.py")
                continue
            for target in includes(file):
                why = complaint(path, target)
                if why:
                    found.append(f"{path}: {target} {why}")
                elif top == "src" and layer(target) not in (None, layer(path)):
                    sideways[layer(path), layer(target)] = f"{path} includes {target}"
    found += [f"in a circle: {text}" for (here, there), text in sideways.items()
              if (there, here) in sideways]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


sys.exit(main())
