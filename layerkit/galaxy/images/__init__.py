"""Galaxy pictures to training rows, in four steps, each a folder.

1. `decode`: read a file of any supported format; `decode/formats` has a module for each.
2. `crop`: find the galaxy in a picture, judge it, cut it out and scale it.
3. `sources`: collect the pictures of a folder, a zip or a file, and give each an id.
4. `prepare`: do all of this in parallel and write the set, whose file format is in `prepared`.
"""
