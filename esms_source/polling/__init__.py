"""From a work list to answers: in batches, at the rate, in threads, with retries."""
