"""`python -m cosyflow` is the command `cosyflow`."""

import sys

from cosyflow.cli.main import main

sys.exit(main())
