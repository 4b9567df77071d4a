"""The pictures of the command line in docs/screens: what its commands really show, on real servers, as SVG.

`scenes` says what is shown, `stage` is where it plays, `drawing` turns a terminal's output into a picture.
"""
