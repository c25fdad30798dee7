"""A small host project that shows Congressy Mailer at work: an event platform with registrations."""
