"""What eSMS's API says: requests out, answers in, whatever they hold."""
