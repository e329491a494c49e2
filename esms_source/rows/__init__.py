"""From answers to rows of the tables that polling fills."""
