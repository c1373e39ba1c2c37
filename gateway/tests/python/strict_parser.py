"""Reads a page of each text format with Prometheus' own parsers, which refuse what the formats do not allow.

Prints the families of the OpenMetrics page as JSON, after checking that both pages hold the same samples.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text


def samples(families):
    """Every sample once: name and labels, to type and value."""
    found = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if key in found:
                raise SystemExit(f"{key} is there twice")
            found[key] = (family.type, sample.value)
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as page:
        strict = list(openmetrics(page.read()))
    with open(sys.argv[2], encoding="utf-8") as page:
        older = list(text(page.read()))
    for family in strict:
        if not family.documentation:
            raise SystemExit(f"{family.name} says nothing about itself")
        if not family.samples:
            raise SystemExit(f"{family.name} has no sample")
    one, other = samples(strict), samples(older)
    for key in one.keys() ^ other.keys():
        raise SystemExit(f"{key} is in one format only")
    for key, (kind, value) in one.items():
        if kind != other[key][0]:
            raise SystemExit(f"{key} is a {kind} and a {other[key][0]}")
        # The pages were rendered one after the other: time and the process go on in between.
        moves = "seconds" in key[0] or key[0].startswith(("process_", "tokio_"))
        if value != other[key][1] and not moves:
            raise SystemExit(f"{key} is {value} and {other[key][1]}")
    help_of = {family.name: family.documentation for family in strict}
    for family in older:
        if help_of.get(family.name) != family.documentation:
            raise SystemExit(f"{family.name} is described in two ways")
    print(json.dumps({"families": len(strict), "samples": len(one)}))


main()
