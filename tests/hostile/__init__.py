"""An attacker's and a first-day user's view: written from proto/, the documents and what the commands print, only."""
