"""The Python examples of the documentation as the type checkers of their readers see them: ``make example-types``."""
