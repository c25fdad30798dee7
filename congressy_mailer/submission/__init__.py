"""A call's arguments, checked, as rows: for one mail, and for the recipients of many."""
