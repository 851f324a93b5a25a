"""report.html and card.md, each one file that explains itself."""
