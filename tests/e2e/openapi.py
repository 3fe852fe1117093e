"""proto/openapi.yaml, and the part of JSON Schema (2020-12) that it uses."""

import os
import re

import yaml

from breakerd import ROOT

FILE = os.path.join(ROOT, "proto", "openapi.yaml")

# Keywords that do not restrict a value.
_NOTES = {"description", "default", "examples", "title"}


class UniqueLoader(yaml.SafeLoader):
    """Fails for a mapping with the same key twice, where PyYAML takes the last."""


def _mapping(loader, node, deep=False):
    keys = [loader.construct_object(k, deep=True) for k, _ in node.value]
    assert len(set(keys)) == len(keys), f"a key came twice at {node.start_mark}: {keys}"
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


UniqueLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load():
    with open(FILE, encoding="utf-8") as file:
        return yaml.load(file, Loader=UniqueLoader)  # noqa: S506, a safe loader's child


class Mismatch(AssertionError):
    pass


class Document:
    def __init__(self):
        self.root = load()
        self.used = set()  # the $refs that were followed

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            assert set(node) == {"$ref"}, f"something beside a $ref: {node}"
            self.used.add(node["$ref"])
            assert node["$ref"].startswith("#/"), node
            target = self.root
            for part in node["$ref"][2:].split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        return node

    def references(self, node=None):
        """Every $ref in the file."""
        node = self.root if node is None else node
        if isinstance(node, dict):
            found = {node["$ref"]} if "$ref" in node else set()
            return found.union(*(self.references(v) for v in node.values()))
        if isinstance(node, list):
            return set().union(*(self.references(v) for v in node))
        return set()

    def operations(self):
        """(path, method, operation) for each."""
        for path, item in self.root["paths"].items():
            for method in ("get", "head", "post", "put", "patch", "delete", "options", "trace"):
                if method in item:
                    yield path, method.upper(), item[method]

    def methods(self, path):
        return {m for p, m, _ in self.operations() if p == path}

    def responses(self, path, method):
        """{status: response} of a request to a documented path; a method that is not
        listed has those of x-other-methods."""
        item = self.root["paths"][path]
        holder = item.get(method.lower(), item["x-other-methods"])
        return {int(s): self.resolve(r) for s, r in holder["responses"].items()}

    def check(self, path, method, answer):
        """Raises Mismatch unless the answer is one of those documented."""
        responses = self.responses(path, method)
        if answer.status not in responses:
            raise Mismatch(f"{method} {path}: {answer.status} is not documented")
        self.check_response(responses[answer.status], method, answer)

    def check_response(self, response, method, answer):
        known = set()
        for name, header in response.get("headers", {}).items():
            header = self.resolve(header)
            known.add(name.lower())
            value = answer.header(name)
            if value is None:
                if header.get("required"):
                    raise Mismatch(f"no header {name}: {answer!r}")
                continue
            schema = self.resolve(header["schema"])
            self.fits(int(value) if schema["type"] == "integer" else value, schema, name)
        names = [name.lower() for name, _ in answer.headers]
        if len(set(names)) < len(names):
            raise Mismatch(f"a header came twice: {answer!r}")
        general = {"date", "connection", "content-length", "content-type", "cache-control",
                   "keep-alive", "transfer-encoding"}
        for name, _ in answer.headers:
            if name.lower() not in known | general:
                raise Mismatch(f"the header {name} is not documented: {answer!r}")
        content = response.get("content")
        if response.get("x-may-have-no-body") and answer.type is None:
            content = None
        if content is None:
            if answer.body or answer.type:
                raise Mismatch(f"a body where none is documented: {answer!r}")
            return
        if answer.type not in content:
            raise Mismatch(f"the type {answer.type} is not documented: {answer!r}")
        if method == "HEAD":
            return
        value = answer.body.decode("utf-8") if answer.type.startswith("text/") else answer.json()
        self.fits(value, content[answer.type]["schema"], "body")

    def fits(self, value, schema, where):
        """Raises Mismatch unless value is an instance of schema."""
        schema = self.resolve(schema)
        for keyword, want in schema.items():
            if keyword in _NOTES:
                continue
            check = getattr(self, "_" + keyword, None)
            assert check, f"the keyword {keyword} is not known here"
            check(value, want, schema, where)

    def _type(self, value, want, _schema, where):
        kinds = [want] if isinstance(want, str) else want
        if not any(self._is(value, kind) for kind in kinds):
            raise Mismatch(f"{where}: {value!r} is no {want}")

    @staticmethod
    def _is(value, kind):
        if isinstance(value, bool):
            return kind == "boolean"
        return isinstance(value, {"object": dict, "array": list, "string": str, "integer": int,
                                  "number": (int, float), "null": type(None),
                                  "boolean": bool}[kind])

    @staticmethod
    def _enum(value, want, _schema, where):
        if value not in want:
            raise Mismatch(f"{where}: {value!r} is none of {want}")

    @staticmethod
    def _const(value, want, _schema, where):
        if value != want or isinstance(value, bool) != isinstance(want, bool):
            raise Mismatch(f"{where}: {value!r} is not {want!r}")

    @staticmethod
    def _minimum(value, want, _schema, where):
        if value < want:
            raise Mismatch(f"{where}: {value} < {want}")

    @staticmethod
    def _maximum(value, want, _schema, where):
        if value > want:
            raise Mismatch(f"{where}: {value} > {want}")

    @staticmethod
    def _minLength(value, want, _schema, where):
        if isinstance(value, str) and len(value) < want:
            raise Mismatch(f"{where}: shorter than {want}")

    @staticmethod
    def _maxLength(value, want, _schema, where):
        if isinstance(value, str) and len(value) > want:
            raise Mismatch(f"{where}: longer than {want}")

    @staticmethod
    def _pattern(value, want, _schema, where):
        if isinstance(value, str) and not re.search(want, value):
            raise Mismatch(f"{where}: {value!r} is not like {want}")

    @staticmethod
    def _maxItems(value, want, _schema, where):
        if len(value) > want:
            raise Mismatch(f"{where}: more than {want}")

    def _items(self, value, want, _schema, where):
        for n, item in enumerate(value):
            self.fits(item, want, f"{where}[{n}]")

    def _properties(self, value, want, _schema, where):
        for name, schema in want.items():
            if name in value:
                self.fits(value[name], schema, f"{where}.{name}")

    @staticmethod
    def _required(value, want, _schema, where):
        if missing := set(want) - set(value):
            raise Mismatch(f"{where}: without {missing}")

    @staticmethod
    def _additionalProperties(value, want, schema, where):
        assert want is False
        if unknown := set(value) - set(schema["properties"]):
            raise Mismatch(f"{where}: {unknown} is not documented")

    def _allOf(self, value, want, _schema, where):
        for schema in want:
            self.fits(value, schema, where)

    def _oneOf(self, value, want, _schema, where):
        wrong = []
        for schema in want:
            try:
                self.fits(value, schema, where)
            except Mismatch as mismatch:
                wrong.append(str(mismatch))
        if len(wrong) != len(want) - 1:
            raise Mismatch(f"{where}: fits {len(want) - len(wrong)} of oneOf: {wrong}")
