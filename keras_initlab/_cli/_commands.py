"""All commands, in the order in which `--help` shows them."""

from ._audit import AUDIT
from ._recommend import RECOMMEND

# A new command is a module beside this one with a `Command` in it, listed here.
COMMANDS = (RECOMMEND, AUDIT)
