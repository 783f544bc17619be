"""headrace board: a page for the runs of a folder, in the browser, on this machine only."""
