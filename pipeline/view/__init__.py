"""Looking at an output beside its source: the page, its tiles, and what hands them out.

`scene` says what is shown, handed over by who calls; `layers` gives its pixels, `colours` how
values look on a screen; `server` serves it on this machine alone, `static` writes it into a folder.
"""
