"""Everything that knows Keras and its backends from inside."""
