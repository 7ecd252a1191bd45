"""What users do: sessions, clicks, the feed, and a day of it."""
