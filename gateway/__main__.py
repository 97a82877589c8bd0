"""`python -m gateway` is `bus-gateway`."""

import sys

from gateway.command import main

sys.exit(main())
