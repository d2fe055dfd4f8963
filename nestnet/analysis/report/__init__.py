"""The report of runs as a page: `nestnet.report.writing.write_report`."""
