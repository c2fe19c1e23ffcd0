"""The command line.

`_main` parses, runs a command and turns errors into one line and an exit code;
`_commands` lists the commands, one module each; `_output` shows what they return.
`_loading` reads and writes models. Before Keras opens a file, `_screening` looks at the
archive, `_objects` at its configuration and `_stored` at its weights; while Keras loads
it, `_allowance` counts what is made.
"""

from ._main import main as main
