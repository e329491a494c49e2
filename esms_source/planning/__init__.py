"""What a run asks: the ledger's due rows and the warehouse's new ones."""
