"""A look at the mails that the local server has received, as pages of the site and as plain files."""
