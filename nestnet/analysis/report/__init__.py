"""The report of runs as a page: `nestnet.analysis.report.write_report.write_report`."""
