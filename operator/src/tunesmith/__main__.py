"""``python -m tunesmith``: run the operator."""

import sys

from tunesmith.process.run import main

sys.exit(main())
