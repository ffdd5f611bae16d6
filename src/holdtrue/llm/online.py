"""What answers at request time, without SQL."""
