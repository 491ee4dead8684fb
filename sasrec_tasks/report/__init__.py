"""Reports to look at: static HTML with inline SVG, without a script, of a run and of the nights of a table.

`content` and `nights` read, `figures` draws, `page` writes the HTML.
"""
