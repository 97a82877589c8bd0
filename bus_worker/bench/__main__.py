"""`python -m bus_worker.bench`."""

import sys

from bus_worker.bench import main

sys.exit(main())
