"""The gateway's `/openapi.json` as the Next.js app keeps it beside its types."""

import json
import sys

from bus_worker.settings import Settings
from gateway.app import create_app
from tests.helpers.docs import ROOT

FILE = ROOT / "deploy" / "nextjs" / "lib" / "openapi.json"


def description() -> str:
    """What an open gateway with default settings tells of itself."""
    told = create_app(Settings()).state.openapi
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(description())
