"""What data.report shows: what each perspective gained."""
