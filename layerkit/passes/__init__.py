"""Running a net: inputs, inference, evaluation, and what is checked on the way."""
