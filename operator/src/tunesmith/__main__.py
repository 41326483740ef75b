"""``python -m tunesmith``: run the operator."""

import sys

from tunesmith.handlers.run import main

sys.exit(main())
