"""`python -m bus_worker` is `bus-worker`."""

import sys

from bus_worker.cli import main

sys.exit(main())
