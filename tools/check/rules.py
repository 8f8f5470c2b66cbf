#!/usr/bin/env python3
"""The rules of the house that a line-by-line reading can check. Each is one function that yields
(line number, finding); the docstring is the rule."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Weaker than seq_cst; naming a constant for one is not yet using it.
ORDER = re.compile(r"memory_order_(?!seq_cst)|\bk(Relaxed|Acquire|Release|AcqRel)\b(?! =)")
COMMENT = re.compile(r"//|/\*|^\s*\*")
UNORDERED = re.compile(r"\.(load|test_and_set)\(\)")
REASON = re.compile(r"//.*\b(relaxed|acquire|release|acq_rel|order)\b")
LATER = re.compile(r"\b(" + "TO" + "DO|FIX" + "ME|XX" + r"X)\b")
SOURCES = {".cpp", ".hpp", ".c", ".h", ".S", ".sh", ".py"}
ASK, REJECT = 500, 800


def orders(path, lines):
    """An order is named; one weaker than seq_cst has its reason beside it or 4 lines above."""
    if path.parts[0] not in ("src", "include"):
        return
    for i, line in enumerate(lines):
        used = ORDER.search(line.split("//")[0]) and "constexpr auto k" not in line
        if used and not any(COMMENT.search(near) for near in lines[max(0, i - 4):i + 1]):
            yield i + 1, "memory order without a reason"
        if UNORDERED.search(line):
            yield i + 1, "atomic access without a memory order"


def test_orders(path, lines):
    """A test, whose own counts are to order nothing that it tests, says so once."""
    if path.parts[0] != "tests" or any(REASON.search(line) for line in lines):
        return
    for i, line in enumerate(lines):
        if ORDER.search(line):
            yield i + 1, "a weak memory order, and nowhere a reason"
            return


def size(_path, lines):
    """Above 500 lines we ask whether it is one file, above 800 it is not."""
    if len(lines) > REJECT:
        yield len(lines), f"more than {REJECT} lines"
    elif len(lines) > ASK:
        print(f"note: {_path} has {len(lines)} lines; is it still one file?")


def width(_path, lines):
    """100 columns, a tab being 8."""
    for i, line in enumerate(lines):
        if len(line.expandtabs(8)) > 100:
            yield i + 1, "wider than 100 columns"


def later(_path, lines):
    """What is to be done is done, or is in the README's list of limits."""
    for i, line in enumerate(lines):
        if LATER.search(line):
            yield i + 1, "a note to do it later"


def public(path, lines):
    """A public header opens its namespace visibly, or libbaton.so would not export it.

    By a pragma: clang++ does not give a definition the visibility of the namespace around its
    declaration."""
    if path.parts[0] != "include":
        return
    push, pop = "#pragma GCC visibility push(default)", "#pragma GCC visibility pop"
    for i, line in enumerate(lines):
        if re.match(r"(inline )?namespace (\[\[.*\]\] )?baton\b", line):
            if line != "namespace baton {" or lines[i - 1] != push:
                yield i + 1, f"write: namespace baton {{, after a line {push}"
        if line == push and (lines[i + 1 :] or [""])[0] != "namespace baton {":
            yield i + 1, "only what is in namespace baton is exported"
        if line == "} // namespace baton" and (lines[i + 1 :] or [""])[0] != pop:
            yield i + 2, f"write: {pop}"


# A type, a name and parameters, where a line begins with a declaration.
CALL = re.compile(
    r"^(?:    )?(?!return)[\w\[][^=;{}()#/]*[ *&](\w+)\(([^{};]*?)\)(?= |;|$)", re.M)


def kinds(parameters):
    """Their types but Until, as far as they tell forms apart; and whether that is among them."""
    depth, parts = 0, [""]
    for c in parameters:
        depth += (c in "<({") - (c in ">)}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    words = [re.sub(r"\bconst\b|=.*|[&.]", " ", part).split() for part in parts]
    types = {" ".join(w[:-1] or w) for w in words if w}
    return frozenset(types - {"Until"}), "Until" in types


def limits(path, lines):
    """Of a call that has a form with an Until, each other form has one as well."""
    if path.parts[0] != "include":
        return
    calls, limited = [], set()
    text = re.sub(r"^private:.*?^};", lambda m: re.sub(r"[^\n]+", "", m[0]) + "};",
                  "\n".join(lines), flags=re.M | re.S)
    for m in CALL.finditer(text):
        before = text[:m.start()]
        types, until = kinds(m[2])
        form = (before.count("\n};"), m[1], types)  # the class, the name
        calls.append((before.count("\n") + 1, form))
        if until:
            limited.add(form)
    names = {form[:2] for form in limited}
    for number, form in calls:
        if form[:2] in names and form not in limited:
            yield number, f"{form[1]} has no such form with an Until"


def main():
    files = [ROOT / "Makefile"]
    for top in ("src", "include", "bpf", "tests", "tools"):
        files += sorted(file for file in (ROOT / top).rglob("*") if file.suffix in SOURCES)
    bad = False
    for file in files:
        path = file.relative_to(ROOT)
        lines = file.read_text().splitlines()
        for rule in (orders, test_orders, size, width, later, public, limits):
            for number, finding in rule(path, lines):
                print(f"{path}:{number}: {finding}")
                bad = True
    return bad


sys.exit(main())
