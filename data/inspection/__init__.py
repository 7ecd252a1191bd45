"""Descriptions of each kind of directory, which data.inspect prints."""
