"""Events that people register for; every mail of the demo begins in its views."""
