"""Reads the files of ops/ that orchestrators read, as their own schemas say; prints what is wrong and ends with 1.

Usage: deployment_files.py OPS [RENDERED]
OPS is the folder; RENDERED, if given, is what `kubectl kustomize` made of OPS/kubernetes/gateway.
"""

import sys
from pathlib import Path

import compose_spec
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

# The oldest release that has everything that is used here, and the newest that is known.
RELEASES = ["1.30", "1.37"]
CUSTOM = {"ServiceMonitor": operator.ServiceMonitor, "PrometheusRule": operator.PrometheusRule}


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def unknown(given, read, place):
    """Keys that were given and not read: a model drops what it does not know."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            if key not in read:
                yield f"{place}.{key} is unknown"
            else:
                yield from unknown(value, read[key], f"{place}.{key}")
    elif isinstance(given, list) and isinstance(read, list):
        for at, (one, other) in enumerate(zip(given, read)):
            yield from unknown(one, other, f"{place}[{at}]")


def check_object(document):
    kind = document.get("kind", "nothing")
    if kind == "Kustomization":
        return
    if kind in CUSTOM:
        read = CUSTOM[kind].model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")
        for problem in unknown(document, read, kind):
            raise ValueError(problem)
        return
    for release in RELEASES:
        kubernetes_validate.validate(document, release, strict=True)


def check_compose(path):
    options = compose_spec.PyOptions()
    options.apply_merge = True
    compose = options.from_yaml(path.read_text())
    compose.validate()
    for name, service in yaml.safe_load(path.read_text())["services"].items():
        for key, wanted in [("network_mode", "host"), ("read_only", True), ("cap_drop", ["ALL"])]:
            if service.get(key) != wanted:
                raise ValueError(f"{name}.{key} is {service.get(key)!r}: it must be {wanted!r}")
        if ":latest" in service["image"] or ":" not in service["image"].rsplit("/", 1)[-1]:
            raise ValueError(f"{name}: {service['image']} names no version")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not source.startswith("./grafana") and not (path.parent / source).exists():
                raise ValueError(f"{name}: there is no {source}")


def main(ops, rendered=None):
    problems, seen = [], []
    tasks = [(path, check_compose, [None]) for path in ops.glob("compose.yaml")]
    manifests = sorted(ops.glob("kubernetes/*/*.yaml")) + ([Path(rendered)] if rendered else [])
    tasks += [(path, check_object, documents(path)) for path in manifests]
    for path, check, given in tasks:
        for document in given:
            try:
                check(path if document is None else document)
                seen.append((document or {}).get("kind", "compose"))
            except Exception as error:  # whatever a reader says is what is wrong
                problems.append(f"{path}: {type(error).__name__}: {error}"[:2000])
    print("\n".join(problems) if problems else " ".join(sorted(seen)))
    return bool(problems)


sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
