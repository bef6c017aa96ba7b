"""`python -m superscope.cli` is `superscope`."""

import sys

from . import main

sys.exit(main())
