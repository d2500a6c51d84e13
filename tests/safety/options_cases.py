"""The cases of tests/heavy/options: which values of which options on which side, made from options_table.py."""

import random
import re
from dataclasses import dataclass

from options_table import known


@dataclass(frozen=True)
class Case:
    name: str
    source: tuple = ()  # of (option, value)
    target: tuple = ()

    def options(self):
        return {o.name: o for o, _ in self.source + self.target}

    def may_refuse(self):
        """The words of which a refusal must name one, with the reasons; nothing where a refusal is needless."""
        of = lambda side, o: [v for p, v in side if p is o]  # noqa: E731
        found = []
        for o in self.options().values():
            on_source, on_target = of(self.source, o), of(self.target, o)
            for r in o.refuse:
                if {
                    "source": on_source,
                    "source only": on_source and not on_target,
                    "target": on_target,
                    "any": on_source or on_target,
                    "differ": on_source != on_target,
                }[r.when]:
                    found += [(w, r.why) for w in (*r.words, o.name.split(".")[0])]
        return found

    def filter(self):
        """The one database whose changes reach the target; nothing where all do."""
        return next((o.only for o, _ in self.target if o.only), "")


def singles(o):
    """The cases of one option: set on both, in conflict, on the source, on the target; in the order in which they say most."""
    values = list(enumerate(o.values, 1))
    pairs = []
    if "s" in o.sides and "t" in o.sides:
        pairs += [(a, b) for a in values for b in values if a is not b] or [(values[0], values[0])]
    for value in values[-1:] + values[:-1] if len(values) > 1 else values:
        pairs += [(value, None)] if "s" in o.sides else []
    for value in values:
        pairs += [(None, value)] if "t" in o.sides else []
    if len(values) > 1 and "s" in o.sides and "t" in o.sides:
        pairs.append((values[0], values[0]))
    side = lambda v: ((o, v[1]),) if v else ()  # noqa: E731
    return [Case(f"{o.name}/{a[0] if a else '-'}{b[0] if b else '-'}", side(a), side(b)) for a, b in pairs]


def settings_of(o, value):
    keys = {line.split("=")[0].replace("_", "-").removeprefix("skip-") for line in value.option_lines()}
    return (keys - {"plugin-load-add"}) or {o.name}


def combination(number, seed, options):
    """Three to five options at a time, some on the source, some on the target, some on both; none that another overrules."""
    rng = random.Random(f"{seed}/{number}")
    sides, taken = ([], []), (set(), set())
    wanted = rng.randint(3, 5)
    for o in rng.sample(options, len(options)):
        if not wanted:
            break
        choice = rng.choice(["s", "t", "st"])
        for side, mark in enumerate("st"):
            value = rng.choice(o.values)
            if mark not in choice or mark not in o.sides or settings_of(o, value) & taken[side]:
                continue
            taken[side].update(settings_of(o, value))
            sides[side].append((o, value))
        wanted -= 1
    return Case(f"combination/{number}", tuple(sides[0]), tuple(sides[1]))


def matrix(engine, seed, combinations=60):
    """Every case, in an order of which each beginning is a fair sample: the singles by turns of the options, between them combinations."""
    rng = random.Random(seed)
    options = known(engine)
    free = [o for o in options if not (o.alone or o.refuse or o.init)]
    queues = [singles(o) for o in rng.sample(options, len(options))]
    ordered = [q[i] for i in range(max(map(len, queues))) for q in queues if i < len(q)]
    mixed = [combination(n + 1, seed, free) for n in range(combinations)]
    out = []
    for number, case in enumerate(ordered):
        out.append(case)
        if mixed and number % 4 == 3:
            out.append(mixed.pop(0))
    return out + mixed


def each(engine, seed):
    """One case of each option, the one that says most: on both, and in conflict where it has several values; no combinations."""
    options = known(engine)
    return [singles(o)[0] for o in random.Random(seed).sample(options, len(options))]


def find(name, engine, seed):
    """The cases of a name, or of which it is the beginning."""
    cases = matrix(engine, seed)
    if re.fullmatch(r"combination/\d+", name):
        free = [o for o in known(engine) if not (o.alone or o.refuse or o.init)]
        return [combination(int(name.split("/")[1]), seed, free)]
    return [c for c in cases if c.name == name] or [c for c in cases if name in c.name]
