"""What data.inspect shows: what each kind of directory holds."""
