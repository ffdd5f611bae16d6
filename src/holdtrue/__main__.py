"""Let `python -m holdtrue` be the command."""

import sys

from holdtrue.cli import main

sys.exit(main())
