"""The descriptions that data.inspect prints of each kind of directory."""
