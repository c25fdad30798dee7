"""What a mail says: templates, the text made from HTML, and contexts stored as JSON."""
