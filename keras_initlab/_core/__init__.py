"""What needs no model: errors, arrays, seeds, files, reports."""
