"""Reads dashboards as Grafana's own model of them, and says what that model does not know or would not take.

Arguments: files. Standard output: one line a finding, `FILE: PLACE: WHAT`, and nothing when there is none.

The model is the one that Grafana publishes (its Foundation SDK), generated from the same schema as Grafana's. Its reader
drops what it does not know and checks no types, so that a dashboard is good here when it is the same after being read and
written again, and when every value has the type that the model declares.
"""

import enum
import json
import sys
import types
import typing

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models import dashboard, units

# What Grafana reads and the model leaves out: how an annotation is called.
BEYOND_THE_MODEL = {"titleFormat"}
UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}


def lost(written, read, place):
    """What of `written` is missing or different in `read`."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            if key in BEYOND_THE_MODEL:
                continue
            if key not in read:
                # Where nothing is the same as not being there.
                if value not in ([], {}, "", None, False):
                    yield f"{place}.{key}: not known to Grafana"
            else:
                yield from lost(value, read[key], f"{place}.{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for index, (one, other) in enumerate(zip(written, read)):
            yield from lost(one, other, f"{place}[{index}]")
    elif written != read:
        yield f"{place}: {written!r} is read as {read!r}"


def fits(value, hint):
    """Whether `value` is of the declared type; its parts are looked at one by one by `mistyped`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is typing.Any or hint is object:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin is list:
        return isinstance(value, list) and all(fits(one, args[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, args[1]) for one in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return value in [member.value for member in hint] or isinstance(value, hint)
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        # The model reads some lists no further; so it is done here.
        return not any(lost(value, again(hint.from_json(value)), ""))
    return isinstance(value, hint) if isinstance(hint, type) else True


def mistyped(value, place):
    """Everything in the model's objects that is not of its declared type."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from mistyped(one, f"{place}.{key}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from mistyped(one, f"{place}[{index}]")
    elif type(value).__module__.startswith("grafana_foundation_sdk.models") and not isinstance(value, enum.Enum):
        hints = typing.get_type_hints(type(value))
        for name, one in vars(value).items():
            if name in hints and not fits(one, hints[name]):
                yield f"{place}.{name}: {one!r} is not {hints[name]}"
            yield from mistyped(one, f"{place}.{name}")


def unknown_kinds(panels):
    for index, panel in enumerate(panels):
        if panel["type"] != "row" and panelcfg_config(panel["type"]) is None:
            yield f"panels[{index}]: Grafana has no {panel['type']!r}"
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        if panel["type"] != "row" and unit not in UNITS:
            yield f"panels[{index}]: {unit!r} is no unit of Grafana's"


def again(read):
    """What the model would write."""
    return json.loads(json.dumps(read, cls=JSONEncoder))


def findings(text):
    written = json.loads(text)
    read = dashboard.Dashboard.from_json(json.loads(text))
    yield from lost(written, again(read), "")
    yield from mistyped(read, "")
    yield from unknown_kinds(written["panels"])


def main():
    register_default_plugins()
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            for finding in findings(file.read()):
                print(f"{name}: {finding}")


main()
