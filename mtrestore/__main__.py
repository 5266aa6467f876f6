"""`python -m mtrestore` is the `mtrestore` command."""

import sys

from .cli import main

sys.exit(main())
