"""The Next.js app keeps step with the gateway; what needs Node is tried by `make web`."""

import json
import re

from bus_worker.errors import SetupError, error_codes
from tests.helpers import docs
from tests.helpers.description import FILE, description

APP = docs.ROOT / "deploy" / "nextjs"


def test_the_description_that_its_types_are_made_from_is_the_gateways() -> None:
    why = "run `make docs`, and `npm run api-types` in deploy/nextjs"
    assert json.loads(FILE.read_text()) == json.loads(description()), why


def test_every_code_that_the_gateway_may_send_has_a_sentence_there() -> None:
    source = (APP / "lib" / "errors.ts").read_text()
    (table,) = re.findall(r"GATEWAY_FAILURES = \{\n(.*?)\n\}", source, re.DOTALL)
    setup = {kind.code for kind in docs.error_kinds() if issubclass(kind, SetupError)}
    ours = error_codes() - setup
    assert set(re.findall(r"^  (\w+): \{", table, re.MULTILINE)) == ours


def test_a_checkout_needs_no_more_than_the_lock_names() -> None:
    package = json.loads((APP / "package.json").read_text())
    lock = json.loads((APP / "package-lock.json").read_text())["packages"]
    for kind in ("dependencies", "devDependencies"):
        assert lock[""][kind] == package[kind]
        locked = {name: lock[f"node_modules/{name}"]["version"] for name in package[kind]}
        assert locked == package[kind]
