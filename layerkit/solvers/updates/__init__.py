"""Updates of parameters: how a solver makes them, what it remembers, and hooks before them."""
