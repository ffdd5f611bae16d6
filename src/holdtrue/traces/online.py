"""Take spans in at request time, without SQL."""
