"""The command line: `python -m keras_initlab recommend model.keras`."""

import sys

from ._cli import main

if __name__ == "__main__":
    sys.exit(main())
