"""Text for people: error messages, checks of arguments, and escaping for each medium."""
