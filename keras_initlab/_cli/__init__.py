"""The command line.

`_main` parses, runs a command and turns errors into one line and an exit code;
`_commands` lists the commands, one module each; `_loading` reads and writes models.
"""

from ._main import main as main
