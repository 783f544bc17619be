"""``headrace report``: the evaluation report of a config's runs, defined in docs/report.md.

    cli.py       RUN... -> runs.py (which, and are they seeds of one config?)
                 -> curve.py (return over environment steps) <- greedy.py (episodes, each played once)
                 -> adapt.py (a changed environment, trained on a little) -> observe/report (figures, table, page)

What was played and trained is kept in RUN/report/, so that the next report of the run is quick.
"""
