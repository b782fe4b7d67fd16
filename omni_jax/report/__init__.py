"""The report of a run: report.json, report.html (one self-contained file) and samples/."""
