"""`python -m layerkit`: the command line, where `layerkit` is not on the path."""

from layerkit.cli.main import program

if __name__ == "__main__":
    program()
