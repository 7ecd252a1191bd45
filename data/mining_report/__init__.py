"""The parts of the page of data.report: what each perspective gained."""
