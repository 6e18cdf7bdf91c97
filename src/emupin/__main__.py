"""`python -m emupin`."""

from __future__ import annotations

import sys

from emupin.cli import main

sys.exit(main())
