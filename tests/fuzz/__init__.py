"""Random calls, files and command lines: whatever comes, the result is right or a LayerkitError."""
