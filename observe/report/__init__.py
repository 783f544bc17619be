"""What `headrace report` shows of a config's runs: figures, a table, a page.

metrics.py    the figures of docs/report.md as pure functions
findings.py   what was found about the runs, and their figures beside the targets
table.py      in a terminal        pictures.py, page.py    as one HTML file
"""
