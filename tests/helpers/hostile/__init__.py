"""What may come in and what it gets, case by case: the tests run each, and docs/input.md shows them."""
